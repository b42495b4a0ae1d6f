import io
import json
import re
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from is_db_bootstrap.blueprint import Collection, Field, Index
from is_db_bootstrap.cli import main
from is_db_bootstrap.events import Event, Phase
from is_db_bootstrap.render import PlainScreen, report, screen_of
from is_db_bootstrap.render.progress import Progress
from is_db_bootstrap.render.proofs import proof_line, proofs_document, proofs_total
from is_db_bootstrap.render.screen import Node
from is_db_bootstrap.results import (
    BootstrapResult,
    ChangeResult,
    Danger,
    DangerKind,
    Drift,
    ErrorReport,
    LockHolder,
    Mode,
    Nature,
    Outcome,
    Proof,
    ServerInfo,
    Status,
    StoreResult,
)
from is_db_bootstrap.stores.milvus import planned_calls

CHANGED = StoreResult(
    "postgres",
    "postgresql://app:***@db/novel",
    Outcome.CHANGED,
    ServerInfo("18.4"),
    duration_s=1.234,
    changes=(
        ChangeResult("novel", "database", Outcome.CHANGED, 0.1),
        ChangeResult("ng_0001", "revision", Outcome.CHANGED, 0.2, "conversations"),
        ChangeResult("ng_0002", "revision", Outcome.CHANGED, 0.2),
    ),
)
FAILED = StoreResult(
    "neo4j",
    "bolt://graph",
    Outcome.FAILED,
    error=ErrorReport(
        "conflict",
        "V002",
        "V002__indexes.cypher was changed [bold]after[/bold] it was applied.",
        "Restore the file.",
    ),
)
DRIFTED = StoreResult(
    "redis",
    "redis://cache",
    Outcome.DRIFTED,
    ServerInfo("7.0.15", "cluster"),
    drifts=(
        Drift(
            "idx",
            "index",
            "differs",
            "btree (a)",
            "btree (b)",
            "DROP INDEX idx;\nCREATE INDEX idx ON t (a);",
        ),
        Drift("t", "table", "is missing", reason="run its revision"),
    ),
    notes=("allkeys-lru may evict locks.",),
    error=ErrorReport("verification", "idx", "index idx: differs and 1 more.", "Compare."),
)


def result_of(*stores, mode=Mode.APPLY, exit_code=0, outcome=Outcome.CHANGED):
    started = datetime(2026, 11, 25, tzinfo=UTC)
    return BootstrapResult("0" * 12, "story", mode, outcome, exit_code, started, 1.5, stores)


def shown(*stores, verbose=False, **run):
    return report(result_of(*stores, **run), verbose=verbose)


@pytest.mark.parametrize("nature", Nature)
def test_a_plan_says_which_change_is_neither_atomic_nor_repeatable(nature):
    change = ChangeResult("V1__a.cypher", "cypher", Outcome.PLANNED, nature=nature)
    store = replace(FAILED, outcome=Outcome.PLANNED, changes=(change,), error=None)
    text = shown(store, mode=Mode.PLAN)
    assert ("neither atomic nor repeatable" in text) == (nature is Nature.NEITHER)


class Terminal(io.StringIO):
    """A terminal, as a stream says that it is one."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """The screen of a terminal of 100 columns that has colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return screen_of(Terminal(), {})


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_store_is_a_row_of_the_table():
    row = shown(CHANGED).splitlines()[1].split()
    assert row == ["postgres", "18.4", "changed", "1", "database,", "2", "revisions", "1.23", "s"]


def test_the_last_line_has_outcome_time_and_exit_code():
    assert shown(CHANGED).splitlines()[-1] == "story: apply changed in 1.5 s (exit 0)"


def test_single_changes_are_listed_when_asked_for_or_planned():
    line = "postgres: changed: revision ng_0001 (conversations)"
    assert line not in shown(CHANGED)
    assert line in shown(CHANGED, verbose=True)
    assert line in shown(CHANGED, mode=Mode.PLAN)


def test_a_failure_has_object_cause_and_next_step_literally():
    text = shown(FAILED, exit_code=6, outcome=Outcome.FAILED)
    assert (
        "neo4j: conflict: V002__indexes.cypher was changed [bold]after[/bold] it was applied."
        in text
    )
    assert "neo4j: next: Restore the file." in text


def test_every_drift_is_listed_once_with_both_sides():
    text = shown(DRIFTED, exit_code=3, outcome=Outcome.DRIFTED)
    assert (
        "  redis: drift: index idx: differs\n"
        "      declared: btree (a)\n"
        "      there:    btree (b)\n"
        "      mend:     DROP INDEX idx;\n"
        "                CREATE INDEX idx ON t (a);\n"
    ) in text
    assert "redis: drift: table t: is missing\n      by hand:  run its revision\n" in text
    assert "and 1 more" not in text
    assert "redis: note: allkeys-lru may evict locks." in text
    assert "7.0.15 cluster" in text


@pytest.mark.parametrize(
    ("lock", "said"),
    [(None, "not locked"), (LockHolder("pid 7 on web-1"), "locked by pid 7 on web-1")],
)
def test_status_says_record_head_and_lock(lock, said):
    store = StoreResult("redis", "redis://cache", Outcome.UNCHANGED, status=Status("", "h", lock))
    assert f"redis: recorded nothing, head h, {said}" in shown(store, mode=Mode.STATUS)


def test_long_lines_are_not_broken():
    long = "x" * 300
    store = StoreResult("redis", "redis://cache", Outcome.UNCHANGED, notes=(long,))
    assert long in shown(store)


@pytest.mark.parametrize("store", [CHANGED, FAILED, DRIFTED], ids=lambda store: store.outcome)
def test_a_terminal_gets_the_same_words_in_colours(terminal, store):
    result = result_of(store, mode=Mode.PLAN)
    coloured = report(result, terminal)
    assert "\x1b[" in coloured
    assert without_colours(coloured) == report(result)


def test_a_variable_makes_a_terminal_of_a_pipe():
    pipe = io.StringIO()
    assert isinstance(screen_of(pipe, {"FORCE_COLOR": ""}), PlainScreen)
    assert not isinstance(screen_of(pipe, {"FORCE_COLOR": "1"}), PlainScreen)


def test_changes_that_do_not_fit_are_broken_between_words_within_their_column():
    kinds = [f"kind{number:02}" for number in range(12)]
    changes = tuple(ChangeResult("x", kind, Outcome.CHANGED) for kind in kinds)
    store = StoreResult("redis", "redis://cache", Outcome.CHANGED, changes=changes)
    head, first, second, *_ = shown(store).splitlines()
    column = head.index("CHANGES")
    assert first[column:].startswith("1 kind00, 1 kind01")
    assert second[:column].strip() == ""
    assert second[column:].strip().endswith("1 kind11")
    assert max(map(len, (head, first, second))) <= 120


TREE = Node(
    [("root", "cyan")],
    [
        Node([("first", ""), (" " + "word " * 4, "")], [Node([("leaf", "")])]),
        Node([("last", "")], [Node([("x" * 30, "")])]),
    ],
)


def test_a_tree_is_drawn_as_on_a_terminal(terminal, monkeypatch):
    for width in (18, 24, 40, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        coloured = terminal.tree(TREE, width=1)
        assert without_colours(coloured) == PlainScreen().tree(TREE, width=width)


def test_a_tree_has_ascii_lines_where_the_encoding_has_no_others():
    assert PlainScreen("ascii").tree(TREE, width=100).isascii()
    assert "└── last" in PlainScreen("utf-8").tree(TREE, width=100)


def test_control_characters_of_a_server_do_not_move_the_cursor():
    note = "one\rtwo\x08\x07"
    store = StoreResult("redis", "redis://cache", Outcome.UNCHANGED, notes=(note,))
    assert r"redis: note: one\rtwo\x08\x07" in shown(store)


def test_checks_are_told_literally_in_lines_and_in_the_document():
    proof = Proof("a [bold]:key:[/bold]", ok=None, detail="no :key:")
    screen = PlainScreen()
    assert proof_line("redis", proof, screen) == (
        "redis     not tried a [bold]:key:[/bold]  no :key:\n"
    )
    assert proofs_total("mine", [proof], 0, screen) == "mine: selftest 1 not tried (exit 0)\n"
    [check] = json.loads(proofs_document("mine", [("redis", proof)], 0))["checks"]
    seen = {"ok": None, "detail": proof.detail, "duration_s": 0.0}
    assert check == {"store": "redis", "name": proof.name, **seen}


def progress(*events, **options):
    lines = []
    observer = Progress(lines.append, **{"verbose": False, "quiet": False} | options)
    for event in events:
        observer(event)
    return "".join(f"{line}\n" for line in lines)


WAITING = Event("waiting", Phase.WAIT, "redis", "Nobody listens.")
CHANGE = Event(
    "change", Phase.APPLY, "redis", change=ChangeResult("k", "conventions", Outcome.CHANGED, 0.5)
)


def test_the_same_wait_is_said_once():
    assert progress(WAITING, WAITING) == "redis: Nobody listens. Trying again.\n"


def test_changes_are_said_when_verbose():
    assert progress(CHANGE) == ""
    assert progress(CHANGE, verbose=True) == "redis: conventions k: changed in 0.50 s\n"


def test_quiet_progress_is_silent():
    assert progress(WAITING, CHANGE, quiet=True) == ""


# --- what a plan would send


def planned_change(*statements, **extra):
    change = ChangeResult("a", "revision", Outcome.PLANNED, statements=statements, **extra)
    return replace(FAILED, outcome=Outcome.PLANNED, changes=(change,), error=None)


def test_a_plan_shows_statements_in_lines_of_80_columns_that_lose_nothing():
    long = f"ALTER TABLE a ADD CONSTRAINT c CHECK ({' AND '.join(f'x{i} > 0' for i in range(40))});"
    text = shown(planned_change(long, "CREATE TABLE b (\n        id int\n    );"), mode=Mode.PLAN)
    lines = [line for line in text.splitlines() if line.startswith("      ")]
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines).split()).startswith(long)
    assert lines[-3:] == ["      CREATE TABLE b (", "          id int", "      );"]


def test_the_arguments_of_a_call_of_milvus_stand_below_it():
    notes = Collection("notes", (Field("id", "INT64", primary=True),))
    index = Index("id", "STL_SORT")
    calls = [
        planned_calls.create_collection(notes, {"a": "b"}),
        planned_calls.create_index(notes, index, "STL_SORT"),
        planned_calls.alter_properties(notes, {"a": "b"}),
    ]
    for call in calls:
        lines = shown(planned_change(call), mode=Mode.PLAN).splitlines()
        first, *arguments, last = [line for line in lines if line.startswith("      ")]
        assert re.match(r" {6}\w+\('notes',", first)
        assert arguments
        assert all(re.match(r" {10}[\w{]", line) for line in arguments)
        assert last == "      )"


def test_a_long_list_says_how_much_is_left_and_verbose_shows_all():
    store = planned_change(*(f"SELECT {number};" for number in range(100)))
    text = shown(store, mode=Mode.PLAN)
    assert "SELECT 23;" in text
    assert "SELECT 24;" not in text
    assert "… 76 more lines of 100 statements: -v or --output json shows all" in text
    assert "SELECT 99;" in shown(store, mode=Mode.PLAN, verbose=True)


def test_a_danger_and_code_stand_before_the_statements():
    danger = Danger(DangerKind.REFUSED, "public.books", "3 rows have no title.", 1)
    store = planned_change("SELECT 1;", "SELECT 2;", is_code=True, dangers=(danger,))
    lines = [line.strip() for line in shown(store, mode=Mode.PLAN).splitlines()]
    first = lines.index("! refused public.books: 3 rows have no title. (statement 2)")
    assert lines[first + 1 : first + 4] == ["runs Python", "SELECT 1;", "SELECT 2;"]


def test_a_control_character_in_a_statement_is_written_out(terminal):
    store = planned_change("SELECT '\x1b[31m\r\x07'; [bold] :key:")
    for screen in (None, terminal):
        text = without_colours(report(result_of(store, mode=Mode.PLAN), screen))
        assert "SELECT '\\x1b[31m\\r\\x07'; [bold] :key:" in text


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_nothing_of_a_report_is_cut_on_a_narrow_terminal(monkeypatch, terminal, columns):
    """Cells are broken into lines, and lines go on in the next one. Neither loses its end."""
    monkeypatch.setenv("COLUMNS", str(columns))
    fix = "CREATE INDEX idx ON " + "long_name_of_a_table_" * 9 + " (a);"
    drifted = replace(DRIFTED, drifts=(Drift("idx", "index", "is missing", "btree", fix=fix),))
    many = tuple(ChangeResult("x", f"kind{n:02}", Outcome.CHANGED) for n in range(12))
    result = result_of(replace(CHANGED, changes=many), FAILED, drifted, mode=Mode.VERIFY)
    text = without_colours(report(result, terminal))
    assert "\u2026" not in text
    assert fix in text
    assert "Restore the file." in text
    letters = Counter("".join(text.split()))
    assert not Counter("".join(report(result).split())) - letters


@pytest.mark.parametrize("columns", ["40", "80"])
@pytest.mark.parametrize(
    "words", [[], ["migrate"], ["redis"], ["vector"], ["blueprints"], ["local"]]
)
def test_the_list_of_commands_has_whole_sentences(monkeypatch, capsys, words, columns):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert "..." not in capsys.readouterr().out.replace("[ARGS]...", "")
