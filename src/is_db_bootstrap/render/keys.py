"""Tables of keys and of their lifetimes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from is_db_bootstrap.render.document import as_json

#: A table of the store, its rows, and what these two have are described there. This room and the
#: stores stand side by side, so none imports the other.
KeyTable = Any
KeyRow = Any
#: What became of keys without a lifetime, also described there.
Mended = Any

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


def table_document(
    blueprint: str, target: str, table: KeyTable, exit_code: int, blueprint_source: str = ""
) -> str:
    """The table as one JSON document. Memory is bytes, lifetimes are seconds.

    `blueprint_source` says who named the blueprint.
    """
    return as_json(
        {
            "blueprint": blueprint,
            "blueprint_source": blueprint_source,
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
    mended: Mended | None,
) -> str:
    """What is missing, or what was set, for a person. `mended` is None before anything was set."""
    if not missing:
        return f"{blueprint}: no key at {target} lacks a lifetime\n"
    total = sum(missing.values())
    if mended is None:
        head = ["pattern", "without lifetime", "would get, s"]
        rows = [[name, str(count), str(lifetimes[name])] for name, count in missing.items()]
        end = [f"{blueprint}: {total} keys at {target} lack a lifetime"]
    else:
        head = ["pattern", "without lifetime", "got, s", "set"]
        rows = [
            [name, str(count), str(lifetimes[name]), str(mended.done[name])]
            for name, count in missing.items()
        ]
        done = mended.done.total()
        end = [
            *_not_set(total, mended),
            f"{blueprint}: {done} of {total} keys at {target} got a lifetime",
        ]
    return "\n".join([*_aligned([head, *rows]), *end]) + "\n"


def _not_set(total: int, mended: Mended) -> list[str]:
    """Why keys that were counted got no lifetime, and how many lack one now."""
    why: Counter[str] = Counter()
    for reasons in mended.passed.values():
        why.update(reasons)
    lines = [f"{count} keys got none: {reason} meanwhile." for reason, count in sorted(why.items())]
    unseen = total - mended.done.total() - why.total()
    if unseen > 0:
        lines.append(
            f"{unseen} keys got none: they were gone, of another type or given a lifetime when "
            "they were looked at again."
        )
    left = mended.left.total()
    if left:
        lines.append(
            f"{left} keys lack a lifetime now, because they are written meanwhile. "
            "Run fix-ttl again, and see which program writes them without a lifetime."
        )
    elif lines:
        lines.append("No key lacks a lifetime now, so nothing is to do.")
    return lines


def lifetimes_document(
    blueprint: str,
    target: str,
    missing: Mapping[str, int],
    lifetimes: Mapping[str, int],
    mended: Mended | None,
    *,
    blueprint_source: str = "",
) -> str:
    """The same as one JSON document. `set`, `not_set` and `left` are null before a change.

    `not_set` counts keys by the reason why they got none, and `left` those that lack one now.
    """
    patterns = [
        {
            "name": name,
            "missing": count,
            "lifetime_seconds": lifetimes[name],
            "set": None if mended is None else mended.done[name],
            "not_set": None if mended is None else dict(mended.passed.get(name, {})),
            "left": None if mended is None else mended.left[name],
        }
        for name, count in missing.items()
    ]
    head = {"blueprint": blueprint, "blueprint_source": blueprint_source}
    return as_json({**head, "target": target, "patterns": patterns})


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
