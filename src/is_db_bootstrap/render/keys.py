"""Tables of keys and of their lifetimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from is_db_bootstrap.render.document import as_json

#: A table of the store, its rows, and what these two have are described there. This room and the
#: stores stand side by side, so none imports the other.
KeyTable = Any
KeyRow = Any

_UNITS, _STEP = ("B", "kB", "MB", "GB", "TB"), 1000


def table_text(blueprint: str, target: str, table: KeyTable, exit_code: int) -> str:
    """The table for a person: a line for each pattern, then one for each other prefix."""
    classes = _used_classes(table)
    head = ["pattern", "type", "keys", "memory", *classes, "breaks it"]
    lines = [head, *(_cells(row, classes) for row in table.declared)]
    if table.undeclared:
        lines.append(["fits no pattern"] + [""] * (len(head) - 1))
        lines += [_cells(row, classes) for row in table.undeclared]
    notes = [*table.notes]
    if not table.is_complete:
        notes.append(f"Looked at {table.looked_at} of {table.total} keys, from a random place on.")
    if table.forbidden:
        notes.append(f"{table.forbidden} keys were not looked at: this user may not read them.")
    total = f"{blueprint}: {table.looked_at} keys at {target}, {table.broken} break their pattern"
    return "\n".join([*_aligned(lines), *notes, f"{total} (exit {exit_code})"]) + "\n"


def table_document(blueprint: str, target: str, table: KeyTable, exit_code: int) -> str:
    """The table as one JSON document. Memory is bytes, lifetimes are seconds."""
    return as_json(
        {
            "blueprint": blueprint,
            "target": target,
            "exit_code": exit_code,
            "looked_at": table.looked_at,
            "total": table.total,
            "complete": table.is_complete,
            "forbidden": table.forbidden,
            "patterns": [_declared_document(row) for row in table.declared],
            "undeclared": [{"prefix": row.name, **_counts(row)} for row in table.undeclared],
            "notes": list(table.notes),
        }
    )


def lifetimes_text(
    blueprint: str,
    target: str,
    missing: Mapping[str, int],
    lifetimes: Mapping[str, int],
    mended: Mapping[str, int] | None,
) -> str:
    """What is missing, or what was set, for a person. `mended` is None before anything was set."""
    if not missing:
        return f"{blueprint}: no key at {target} lacks a lifetime\n"
    head = ["pattern", "without lifetime", "would get, s" if mended is None else "got, s"]
    rows = [
        [name, str(count), str(lifetimes[name])] + ([str(mended.get(name, 0))] if mended else [])
        for name, count in missing.items()
    ]
    if mended:
        head.append("set")
    total = sum(missing.values())
    end = f"{blueprint}: {total} keys at {target} lack a lifetime"
    if mended is not None:
        end = f"{blueprint}: {sum(mended.values())} of {total} keys at {target} got a lifetime"
    return "\n".join([*_aligned([head, *rows]), end]) + "\n"


def lifetimes_document(
    blueprint: str,
    target: str,
    missing: Mapping[str, int],
    lifetimes: Mapping[str, int],
    mended: Mapping[str, int] | None,
) -> str:
    """The same as one JSON document. `set` is null before anything was set."""
    patterns = [
        {
            "name": name,
            "missing": count,
            "lifetime_seconds": lifetimes[name],
            "set": None if mended is None else mended.get(name, 0),
        }
        for name, count in missing.items()
    ]
    return as_json({"blueprint": blueprint, "target": target, "patterns": patterns})


def _declared_document(row: KeyRow) -> dict[str, Any]:
    key = row.pattern
    return {
        "name": row.name,
        "pattern": key.pattern,
        "type": key.type,
        "ttl_seconds": list(key.ttl) if isinstance(key.ttl, tuple) else key.ttl,
        **_counts(row),
        "faults": dict(row.faults),
    }


def _counts(row: KeyRow) -> dict[str, Any]:
    return {
        "keys": row.keys,
        "types": dict(row.types),
        "lifetimes": dict(row.lifetimes),
        "memory_bytes": row.memory,
    }


def _used_classes(table: KeyTable) -> list[str]:
    """The classes of lifetimes that occur, in their order."""
    rows = [*table.declared, *table.undeclared]
    used = {name for row in rows for name in row.lifetimes}
    return [name for name in table.lifetime_classes if name in used]


def _cells(row: KeyRow, classes: Sequence[str]) -> list[str]:
    name = row.name if row.pattern is None else row.pattern.pattern
    faults = ", ".join(f"{count} {word}" for word, count in sorted(row.faults.items()))
    return [
        name,
        "/".join(sorted(row.types)) or "-",
        str(row.keys),
        "-" if row.memory is None else _size(row.memory),
        *(str(row.lifetimes.get(each, 0)) for each in classes),
        faults or "-",
    ]


def _size(bytes_: float) -> str:
    unit = 0
    while bytes_ >= _STEP and unit < len(_UNITS) - 1:
        bytes_, unit = bytes_ / _STEP, unit + 1
    return f"{bytes_:.0f} {_UNITS[unit]}" if unit == 0 else f"{bytes_:.1f} {_UNITS[unit]}"


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[number]) for line in lines) for number in range(len(lines[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
