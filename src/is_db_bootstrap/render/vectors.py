"""What the `vector` commands print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.render.document import as_json
from is_db_bootstrap.wording import counted, noun, visible

if TYPE_CHECKING:
    from is_db_bootstrap.vector_results import CopyProgress, Moved, Upgraded, Version, Versions


def vectors_document(kind: str, rows: Sequence[Any]) -> str:
    """A JSON document with one list, whose name is `kind`."""
    return as_json({kind: list(rows)})


def versions_text(found: Sequence[Versions]) -> str:
    """Each collection with its versions, one a line."""
    return _text_of(line for each in found for line in _versions_lines(each))


def _text_of(lines: Iterable[str]) -> str:
    return "".join(f"{visible(line)}\n" for line in lines)


def _versions_lines(found: Versions) -> Iterator[str]:
    yield f"{found.alias or found.declared}"
    if not found.versions:
        yield "  no version is there"
    if found.alias:
        yield from _stray_alias(found)
    for version in found.versions:
        yield f"  {version.name}  {_rows_text(version)}{_marks(found, version)}"


def _stray_alias(found: Versions) -> Iterator[str]:
    """Where the alias leads when it leads to none of the versions."""
    if found.target is None:
        yield f"  alias {found.alias} is not there"
    elif found.target not in {version.name for version in found.versions}:
        yield (
            f"  alias {found.alias} leads to {found.target}, which is no version of "
            f"{found.declared}"
        )


def _rows_text(version: Version) -> str:
    if version.rows is None:
        return "rows unknown (not loaded)"
    return _rows(version.rows)


def _rows(number: int) -> str:
    return f"{number:,} {noun(number, 'row')}"


def _marks(found: Versions, version: Version) -> str:
    marks = ["declared"] if version.is_declared else []
    if version.name == found.target:
        marks.append(f"alias {found.alias}")
    marks += [f"alias {alias}" for alias in version.aliases if alias != found.alias]
    return f"  ({', '.join(marks)})" if marks else ""


def progress_line(progress: CopyProgress) -> str:
    """Such as `docs_v2: 12,000 of 50,000 rows, 3,400 rows/s, 11 s left`."""
    left = progress.seconds_left
    parts = [
        f"{progress.target}: {progress.done:,} of {_rows(progress.total)}",
        f"{progress.rows_per_second:,.0f} rows/s",
    ]
    if left is not None:
        parts.append(f"{left:,.0f} s left")
    if progress.failed:
        parts.append(f"{progress.failed:,} failed")
    return visible(", ".join(parts))


def upgraded_text(done: Sequence[Upgraded]) -> str:
    """What became of each collection."""
    if not done:
        return "Every alias leads to the declared version. Nothing was copied.\n"
    return _text_of(line for each in done for line in _upgraded_lines(each))


def _upgraded_lines(done: Upgraded) -> Iterator[str]:
    present = (
        f", {done.present:,} {noun(done.present, 'was', 'were')} there" if done.present else ""
    )
    yield f"{done.source} to {done.target}: {_rows(done.copied)} written{present}"
    same = done.sampled - len(done.differing)
    compared = (
        f"{same} of {counted(done.sampled, 'compared row')} {noun(same, 'is', 'are')} the same"
    )
    if not done.sampled:
        compared = "no row was compared"
    yield f"  {_rows(done.source_rows)} there, {done.target_rows:,} here, {compared}"
    for row in done.failures:
        yield f"  row {row.key} failed: {row.reason}"
    if done.failed > len(done.failures):
        more = done.failed - len(done.failures)
        yield f"  and {more:,} more {noun(more, 'row')} failed"
    for note in done.notes:
        yield f"  {note}"
    if done.was_there:
        yield f"  alias {done.alias} leads to {done.target}, as before"
    elif done.is_moved:
        yield f"  alias {done.alias} leads to {done.target} now"
    else:
        yield f"  alias {done.alias} still leads to {done.source}"


def moved_text(moved: Sequence[Moved]) -> str:
    """Where each alias leads now."""
    return _text_of(
        f"alias {each.alias} leads to {each.target} now, and led to {each.source}" for each in moved
    )


def prune_question(old: Sequence[Version]) -> str:
    """What would be dropped, with its rows."""
    named = ", ".join(f"{version.name} ({_old_text(version)})" for version in old)
    return visible(f"This drops {named}. Drop?")


def _old_text(version: Version) -> str:
    """The rows of a version, and what nothing else has."""
    if not version.only_here:
        return _rows_text(version)
    return f"{_rows_text(version)}, and only there: {', '.join(version.only_here)}"


def pruned_text(old: Sequence[Version]) -> str:
    """What was dropped."""
    if not old:
        return "No old version is there.\n"
    return _text_of(f"dropped {version.name} ({_old_text(version)})" for version in old)
