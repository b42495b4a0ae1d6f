"""A revision that fails tells its file and line, and the place in its SQL, whatever the driver."""

from __future__ import annotations

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.refused_statement import _Place, _shown, shown_statement
from team_project import OPTIONS, TeamProject

pytestmark = pytest.mark.postgres

TABLE = 'op.create_table("account", sa.Column("cents", sa.Integer))'
#: What a revision does, the line of its file, and what is told.
REFUSALS = {
    "a second line": (
        'op.execute("""SELECT 1,\n  nope\nFROM account""")',
        11,
        'Line 2 of its SQL, at the arrow: "→nope".',
    ),
    "an operation": (
        'op.execute("SELECT 1")\nop.drop_column("account", "nope")',
        12,
        "",
    ),
    "a value": (
        "op.execute(\"UPDATE account SET cents = 'geheim' WHERE cents = 1234567\")",
        11,
        "Line 1 of its SQL, at the arrow: \"UPDATE account SET cents = →'…' WHERE cents = …\".",
    ),
    "a function": (
        'op.execute("""DO $$ BEGIN\n  PERFORM 1;\n  PERFORM nope FROM account;\nEND $$""")',
        11,
        "PL/pgSQL function inline_code_block line 3.",
    ),
}


@pytest.fixture(params=["ours", "psycopg2", "asyncpg"])
def failing(request, tmp_path, postgres_url, monkeypatch):
    """`failing(BODY)`: the error of a run whose second revision has this body."""
    server, _, name = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{name}"')
    is_ours = request.param == "ours"
    team = TeamProject(tmp_path, postgres_url, "psycopg" if is_ours else request.param)
    team.env(f"{OPTIONS}, transaction_per_migration=True")
    monkeypatch.setenv("SHOP_DATABASE", team.address)
    team.revision("a1", None, TABLE)

    def fail(body):
        team.revision("b2", "a1", body)
        own = Blueprint("shop", "accounts", migrations=tmp_path / "db/versions")
        blueprint = own if is_ours else load_blueprint(team.toml)
        store = PostgreSQLBootstrapper(postgres_url, blueprint, timing=Timing())
        run = BootstrapOrchestrator([store], blueprint="shop", retry=RetryPolicy(busy_attempts=1))
        return run.run().stores[0].exception

    return fail


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_statement_is_told_with_its_place(failing, kind):
    body, line, told = REFUSALS[kind]
    message = failing(body).message
    assert f"b2.py, line {line}." in message
    assert told in message
    assert "geheim" not in message
    assert "1234567" not in message


def test_what_a_step_has_committed_one_by_one_is_told(failing):
    body = (
        "with op.get_context().autocommit_block():\n"
        "    op.execute(\"CREATE TABLE noted AS SELECT 'geheim' AS word\")\n"
        '    op.execute("SELECT nope FROM noted")'
    )
    error = failing(body)
    told = "Outside of its transaction it had run: CREATE TABLE noted AS SELECT '…' AS word."
    assert told in error.message
    assert "rolled back" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize(
    ("text", "position", "shown"),
    [
        ("SELECT 'a b", 8, "\"SELECT →'…'\"."),
        ("SELECT E'a\\'b', nope", 17, "\"SELECT '…', →nope\"."),
        ("SELECT $x$geheim$x$, nope", 22, "\"SELECT '…', →nope\"."),
        (f"SELECT {'a, ' * 40}nope", 128, '"… a, a, a, a, a, a, a, a, a, a, a, a, a, →nope".'),
    ],
)
def test_no_value_of_a_statement_is_shown(text, position, shown):
    assert _shown(_Place(text, position)).endswith(shown)
    assert "geheim" not in shown_statement(text)
