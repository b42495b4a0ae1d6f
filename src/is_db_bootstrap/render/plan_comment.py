"""A plan as a comment for a pull request: what to look at first, and then store by store.

The comment says the same whenever the plan is the same. So it has no times and no ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from is_db_bootstrap.render.fleet import change_counts
from is_db_bootstrap.render.markdown import code, fenced, folded, hidden_line, table, words
from is_db_bootstrap.render.page import Page, Part, Rank
from is_db_bootstrap.results import Nature, Outcome
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.wording import counted

#: Bytes of a comment. GitHub refuses one of more than 65,536 characters, and what posts the comment
#: adds a line.
LIMIT = 65_000
#: Statements of so many lines stand open. Longer ones are folded.
_OPEN_LINES = 8
#: Rows of one table, items of one list, and names of targets in one line.
_MOST_ROWS = 150
_MOST_ITEMS = 60
_MOST_NAMES = 40

Mask = Callable[[str], str]
Document = Mapping[str, Any]

_LEFT_OUT = (
    "**Left out**, because GitHub takes no comment of more than 65,536 characters: {parts}. "
    "`is-db-bootstrap plan` shows everything."
)


def _as_it_is(text: str) -> str:
    return text


def plan_comment(result: Document, mask: Mask = _as_it_is) -> str:
    """The comment for the document of one plan, in at most `LIMIT` bytes.

    `mask` takes secrets out of a text.
    """
    page = _started_page(result)
    run = _masked(result, mask)
    page.add(Part(f"## {_heading(run)}", Rank.HEAD))
    _add_dangers(page, [run])
    _add_stores(page, run, None)
    return page.text(LIMIT, _LEFT_OUT)


def fleet_plan_comment(result: Document, mask: Mask = _as_it_is) -> str:
    """The comment for the document of plans of many targets, in at most `LIMIT` bytes.

    Targets with the same plan are told together.
    """
    page = _started_page(result)
    groups = _groups(result["targets"])
    firsts = [_masked(group[0], mask) for group in groups]
    numbers = Counter(str(target["outcome"]) for target in result["targets"])
    counts = [f"{number} {outcome}" for outcome, number in numbers.items()]
    total = counted(len(result["targets"]), "target")
    heading = f"{code(result['blueprint'])}: {total}, {', '.join(counts) or 'none'}"
    page.add(Part(f"## {heading}", Rank.HEAD))
    if result["message"]:
        page.add(Part(words(mask(result["message"])), Rank.FAILURES))
    _add_dangers(page, [first["run"] for first in firsts if first["run"]])
    for first, group in zip(firsts, groups, strict=True):
        _add_group(page, first, [target["name"] for target in group])
    return page.text(LIMIT, _LEFT_OUT)


def _started_page(result: Document) -> Page:
    page = Page()
    marker = hidden_line(f"is-db-bootstrap plan of {result['blueprint']}")
    page.add(Part(marker, Rank.HEAD))
    return page


def _masked(value: Any, mask: Mask) -> Any:
    """A document with all its texts masked."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, Mapping):
        return {name: _masked(item, mask) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, mask) for item in value]
    return value


# --- the heading


def _heading(run: Document) -> str:
    """Blueprint and outcome, and how much there is to look at."""
    changes = _planned_changes(run)
    dangers = sum(len(change["dangers"]) for change in changes)
    parts = [_outcome_words(run, len(changes))]
    if dangers:
        parts.append(f"{dangers} to look at first")
    return f"{code(run['blueprint'])}: {', '.join(parts)}"


def _outcome_words(run: Document, changes: int) -> str:
    planned = f"{counted(changes, 'change')} planned"
    outcome = run["outcome"]
    if outcome in {Outcome.PLANNED, Outcome.UNCHANGED}:
        return planned if changes else "nothing to change"
    return f"the plan {'was interrupted' if outcome == Outcome.INTERRUPTED else 'failed'}"


def _planned_changes(run: Document) -> list[Document]:
    changes = [change for store in run["stores"] for change in store["changes"]]
    return [change for change in changes if change["outcome"] == Outcome.PLANNED]


# --- what to look at first


def _add_dangers(page: Page, runs: Sequence[Document]) -> None:
    """A list of all dangers. The same danger of two plans stands there once."""
    lines = [
        line
        for run in runs
        for store in run["stores"]
        for change in store["changes"]
        for line in _danger_lines(store, change)
    ]
    unique = list(dict.fromkeys(lines))
    if not unique:
        return
    shown = unique[:_MOST_ITEMS]
    if more := len(unique) - len(shown):
        shown.append(f"- … and {more} more")
    text = "\n".join(["### Look at this first", "", *shown])
    page.add(Part(text, Rank.DANGERS, ("list of dangers", "lists of dangers")))


def _danger_lines(store: Document, change: Document) -> Iterator[str]:
    for danger in change["dangers"]:
        number = danger["statement"]
        place = "" if number is None else f", statement {number + 1}"
        where = f"{store['store']}, {code(change['name'])}{place}"
        yield f"- **{danger['kind']}** {code(danger['object'])} ({where}): {words(danger['text'])}"


# --- stores


def _add_stores(page: Page, run: Document, parent: int | None, owner: str = "") -> None:
    """The stores of one plan. `owner` is the name of a target whose stores these are alone."""
    is_shared = parent is not None and not owner
    for store in run["stores"]:
        place = "" if is_shared else f" {code(store['target'])}"
        level = "###" if parent is None else "####"
        title = f"{level} {KINDS[store['store']].label}{place}"
        _add_store(page, store, title, parent, owner)


def _add_store(page: Page, store: Document, title: str, parent: int | None, owner: str) -> None:
    """A heading, a table of the changes, and what they send."""
    is_calm = not store["changes"] and not store["error"]
    text = f"{title}\n\nNothing to change." if is_calm else title
    place = page.add(Part(text, Rank.TABLES, ("store", "stores"), parent))
    if store["error"]:
        text = _failure_text(store, owner)
        page.add(Part(text, Rank.FAILURES, ("failure", "failures")))
    if store["changes"]:
        text = _changes_table(store)
        page.add(Part(text, Rank.TABLES, ("table of changes", "tables of changes"), place))
    if store["notes"]:
        page.add(
            Part(
                _notes_text(store["notes"]), Rank.NOTES, ("list of notes", "lists of notes"), place
            )
        )
    nouns = ("list of statements", "lists of statements")
    for change in store["changes"]:
        if change["statements"]:
            text = _statements_text(store, change)
            page.add(Part(text, Rank.STATEMENTS, nouns, place))


def _failure_text(store: Document, owner: str) -> str:
    error = store["error"]
    message = error["message"].removeprefix(f"{store['store']}: ")
    where = f"{store['store']} of {code(owner)}" if owner else store["store"]
    lines = [f"**{where} failed** ({error['kind']}): {words(message)}"]
    if error["hint"]:
        lines.append(f"Next: {words(error['hint'])}")
    return "\n\n".join(lines)


def _notes_text(notes: Sequence[str]) -> str:
    lines = [f"- {words(note)}" for note in notes[:_MOST_ITEMS]]
    if more := len(notes) - len(lines):
        lines.append(f"- … and {more} more")
    return "\n".join(lines)


def _changes_table(store: Document) -> str:
    changes = store["changes"]
    rows = [_change_row(store, change) for change in changes[:_MOST_ROWS]]
    if more := len(changes) - len(rows):
        rows.append([f"… and {more} more", "", "", ""])
    return table(("Change", "What", "Detail", "Remarks"), rows)


def _change_row(store: Document, change: Document) -> list[str]:
    one, _ = KINDS[store["store"]].change_nouns.get(change["kind"], (change["kind"], ""))
    detail = words(change["detail"]) if change["detail"] else ""
    return [code(change["name"]), words(one), detail, "; ".join(_remarks(change))]


def _remarks(change: Document) -> Iterator[str]:
    kinds = dict.fromkeys(danger["kind"] for danger in change["dangers"])
    if kinds:
        yield f"**look first: {', '.join(kinds)}**"
    if change["outcome"] != Outcome.PLANNED:
        yield str(change["outcome"])
    if change["is_code"]:
        yield "runs Python"
    if change["nature"] == Nature.NEITHER and change["outcome"] == Outcome.PLANNED:
        yield "if it is cut off, a person decides"


def _statements_text(store: Document, change: Document) -> str:
    """The statements of a change. Those that take many lines are folded."""
    language = KINDS[store["store"]].statement_language
    body = "\n\n".join(change["statements"])
    block = fenced(body, language)
    count = counted(len(change["statements"]), "statement")
    title = f"{store['store']} {code(change['name'])}: {count}"
    if change["is_code"]:
        title += ", and what its Python sends by itself"
    if body.count("\n") < _OPEN_LINES:
        return f"{title}\n\n{block}"
    return folded(title, block)


# --- many targets


def _groups(targets: Sequence[Document]) -> list[list[Document]]:
    """The targets with the same plan together, in the order of the first of each."""
    found: dict[str, list[Document]] = {}
    for target in targets:
        found.setdefault(_key(target), []).append(target)
    return list(found.values())


def _key(target: Document) -> str:
    """What two targets with the same plan have in common: all but their places and times.

    A failure names its place, so it is told of each target.
    """
    run = target["run"]
    if run is None or target["message"]:
        return json.dumps(["alone", target["name"], target["message"]])
    told = ("store", "outcome", "changes", "notes", "error")
    stores = [{name: store[name] for name in told} for store in run["stores"]]
    without_times = [
        store | {"changes": [{**change, "duration_s": 0} for change in store["changes"]]}
        for store in stores
    ]
    return json.dumps([target["outcome"], without_times])


def _add_group(page: Page, first: Document, names: Sequence[str]) -> None:
    """One plan, and the targets that have it."""
    shown = ", ".join(code(name) for name in names[:_MOST_NAMES])
    if more := len(names) - _MOST_NAMES:
        shown += f" and {more} more" if more > 0 else ""
    is_one = len(names) == 1
    title = f"### {code(names[0])}" if is_one else f"### {counted(len(names), 'target')}"
    text = f"{title}: {_group_outcome(first)}"
    if not is_one:
        text += f"\n\n{shown}"
    nouns = ("group of targets", "groups of targets")
    place = page.add(Part(text, Rank.TABLES, nouns))
    if first["message"]:
        lines = [f"**{code(names[0])} failed**: {words(first['message'])}"]
        if first["hint"]:
            lines.append(f"Next: {words(first['hint'])}")
        page.add(Part("\n\n".join(lines), Rank.FAILURES, ("failure", "failures")))
    if first["run"] and first["outcome"] != Outcome.UNCHANGED:
        _add_stores(page, first["run"], place, names[0] if is_one else "")


def _group_outcome(first: Document) -> str:
    run = first["run"]
    counts = [count for store in run["stores"] for count in change_counts(store)] if run else []
    return ", ".join(counts) or str(first["outcome"])
