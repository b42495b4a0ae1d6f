"""Commands that ask before they do something: what they show, and who may answer.

Each is called as a person, a job or a collector of logs calls it, on a real PostgreSQL.
"""

from __future__ import annotations

import json

import psycopg
import pytest

from commands import answered, command
from pages import ROOT

pytestmark = pytest.mark.postgres
SHOP = ("-b", str(ROOT / "tests/stores/shop"), "--only", "postgres")
STATEMENT = 'CREATE INDEX CONCURRENTLY "idx_orders_status"'
NO_TERMINAL = "is-db-bootstrap: Nothing was changed. There is no terminal to ask at. Say --yes."


@pytest.fixture
def lacking(postgres_url):
    """The environment of a converged shop that lacks an index."""
    environ = {"POSTGRES_URL": postgres_url}
    code, _, err = command("apply", *SHOP, environ=environ)
    assert code == 0, err
    with psycopg.connect(postgres_url, autocommit=True) as client:
        client.execute("DROP INDEX idx_orders_status")
    return environ


def has_index(environ):
    with psycopg.connect(environ["POSTGRES_URL"]) as client:
        return client.execute("SELECT to_regclass('idx_orders_status')").fetchone() != (None,)


@pytest.mark.parametrize("words", [(), ("-q",), ("-o", "json")])
def test_a_repair_without_a_terminal_shows_its_statements_and_refuses(lacking, words):
    code, out, err = command("repair", *SHOP, *words, environ=lacking)
    assert (code, has_index(lacking)) == (2, False)
    assert NO_TERMINAL in err.splitlines()
    assert STATEMENT in (err if words else "\n".join(out))
    if words == ("-o", "json"):
        document = json.loads("\n".join(out))
        assert (document["exit_code"], document["outcome"]) == (2, "failed")


@pytest.mark.parametrize("words", [(), ("-q",), ("-o", "json")])
def test_a_repair_shows_its_statements_before_it_asks(lacking, words):
    code, shown = answered("y", "repair", *SHOP, *words, environ=lacking)
    assert (code, has_index(lacking)) == (0, True), shown
    assert STATEMENT in shown[: shown.index("Make 1 repair now? [y/N]")]


def test_a_repair_that_need_not_ask_is_quiet(lacking):
    code, out, err = command("repair", *SHOP, "-q", "--yes", environ=lacking)
    assert (code, out, err) == (0, [], "")
    assert has_index(lacking)


@pytest.mark.parametrize("name", ["repair", "adopt", "setup"])
def test_a_log_of_records_cannot_ask(lacking, name):
    """Neither at a terminal nor without one, and before anything is looked at."""
    words = (name, *SHOP, "--log-format", "json")
    code, _, err = command(*words, environ=lacking)
    [record] = map(json.loads, err.splitlines())
    assert (code, record["level"], record["event"]) == (2, "error", "message")
    assert "--log-format json needs --yes here" in record["message"]
    code, shown = answered("y", *words, environ=lacking)
    assert (code, has_index(lacking)) == (2, False)
    assert "[y/N]" not in shown


@pytest.mark.parametrize("name", ["repair", "adopt", "doctor"])
def test_each_command_that_runs_gives_its_events_as_records(lacking, tmp_path, name):
    file = tmp_path / "result.json"
    yes = () if name == "doctor" else ("--yes",)
    words = (name, *SHOP, *yes, "--log-format", "json", "--result-file", str(file))
    _, out, err = command(*words, "-o", "json", environ=lacking)
    records = [json.loads(line) for line in err.splitlines()]
    assert {record["run_id"] for record in records} == {json.loads("\n".join(out))["run_id"]}
    events = [record["event"] for record in records]
    assert events[0] == "phase"
    assert "finished" in events
    assert json.loads(file.read_text()) == json.loads("\n".join(out))
