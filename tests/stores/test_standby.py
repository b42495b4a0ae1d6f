"""A primary and a standby of PostgreSQL: which one a run finds, and a fail-over in its middle."""

from __future__ import annotations

import sys
import textwrap
import types
import uuid

import psycopg
import pytest

from is_db_bootstrap.app import orchestrator
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import connect
from is_db_bootstrap.stores.postgres.run_sessions import RunSessions
from pages import Reader, blocks, commands
from servers import DEBIAN_POSTGRES_15
from standbys import Pair
from team_project import TeamProject

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not DEBIAN_POSTGRES_15.is_dir(), reason="PostgreSQL 15 is not installed"),
]

#: A module that revisions import, to let something happen while they run.
MIDDLE = "the_middle_of_a_run"
TIMING = Timing(timeout_s=20, connect_timeout_s=5, retry_initial_s=0.05, retry_maximum_s=0.2)


@pytest.fixture(scope="module")
def servers(farm):
    made = Pair(farm)
    yield made
    made.close()


@pytest.fixture
def pair(servers):
    """A primary and a standby that follows it."""
    servers.renew()
    return servers


@pytest.fixture
def shop(pair, tmp_path, monkeypatch):
    made = Shop(pair, tmp_path / "migrations")
    middle = types.ModuleType(MIDDLE)
    middle.happen = made.call_happen
    monkeypatch.setitem(sys.modules, MIDDLE, middle)
    return made


class Shop:
    """A blueprint of three revisions, and its database on a pair of servers."""

    def __init__(self, pair, folder):
        self.pair = pair
        self.folder = folder
        folder.mkdir()
        self.name = f"shop_{uuid.uuid4().hex[:12]}"
        self.happen = lambda: None
        self.add("a1", None, 'op.execute("CREATE TABLE account (cents int)")')
        self.add("b2", "a1", 'op.execute("INSERT INTO account VALUES (1)")')
        self.add("c3", "b2", 'op.execute("INSERT INTO account VALUES (2)")')
        self.blueprint = Blueprint("shop", "accounts", migrations=folder)

    def add(self, name, before, body):
        text = f"from alembic import op\nrevision = {name!r}\ndown_revision = {before!r}\n"
        text += f"def upgrade():\n{textwrap.indent(body, '    ')}\ndef downgrade():\n    pass\n"
        (self.folder / f"{name}.py").write_text(text)

    def call_happen(self):
        self.happen()

    def create(self):
        self.pair.primary.ask(f'CREATE DATABASE "{self.name}"')
        self.pair.standby.wait_for(self.pair.primary)

    def run(self, url="", mode=Mode.APPLY, *, at=None, timing=TIMING):
        """The result of a run. `at` are a kind of event and a phase, at which `happen` is called."""
        store = PostgreSQLBootstrapper(
            url or self.pair.url(self.name), self.blueprint, timing=timing
        )
        left = [at] if at else []

        def observe(event):
            if left and (event.kind, getattr(event.phase, "value", None)) == left[0]:
                left.clear()
                self.happen()

        return BootstrapOrchestrator(
            [store], blueprint="shop", observers=[observe], retry=RetryPolicy.of(timing)
        ).run(mode)

    def rows(self, server=None):
        with psycopg.connect(f"{(server or self.pair.standby).url}/{self.name}") as session:
            return [row[0] for row in session.execute("SELECT cents FROM account ORDER BY 1")]


def error_of(result):
    return result.stores[0].exception


def test_every_form_of_several_hosts_leads_to_the_primary(pair):
    standby, primary = pair.standby.port, pair.primary.port
    login = pair.primary.url.partition("//")[2].rpartition("@")[0]
    places = [
        f"127.0.0.1:{standby},127.0.0.1:{primary}/postgres",
        f"127.0.0.1:{standby},127.0.0.1:{primary}/postgres?target_session_attrs=read-write",
        f"/postgres?host=127.0.0.1,127.0.0.1&port={standby},{primary}",
        f"/postgres?host=127.0.0.1:{standby}&host=127.0.0.1:{primary}",
        f"/postgres?host=127.0.0.1:{standby},127.0.0.1:{primary}",
        f"/postgres?hostaddr=127.0.0.1,127.0.0.1&port={standby},{primary}",
        f"127.0.0.1:1,127.0.0.1:{primary}/postgres",
    ]
    for place in places:
        with connect(StoreUrl.parse("postgres", f"postgresql://{login}@{place}"), 5) as session:
            assert session.info.port == primary, place
    wrong = StoreUrl.parse("postgres", f"postgresql://{login}@a,b/postgres?port=1,2,3")
    with pytest.raises(ConfigurationError, match="names 2 hosts and 3 ports"):
        connect(wrong, 5)


def test_each_run_on_a_standby_says_so_and_names_the_way_out(shop):
    shop.create()
    shop.run().raise_for_failure()
    shop.pair.standby.wait_for(shop.pair.primary)
    alone = f"{shop.pair.standby.url}/{shop.name}"
    dead = alone.replace(f"/{shop.name}", f",127.0.0.1:1/{shop.name}")
    hasty = Timing(timeout_s=0.2, connect_timeout_s=5)
    for url in (alone, dead):
        for mode in (Mode.APPLY, Mode.PLAN, Mode.VERIFY, Mode.STATUS):
            result = shop.run(url, mode, timing=hasty)
            error = error_of(result)
            assert result.exit_code == 4, result
            assert "is a standby (read-only)" in error.message
            assert shop.pair.standby.address in error.message
            assert "Give the address of the primary" in error.hint


def test_a_standby_that_is_asked_for_is_looked_at_and_never_changed(shop):
    shop.create()
    wished = f"{shop.pair.standby.url}/{shop.name}?target_session_attrs=standby"
    planned = shop.run(wished, Mode.PLAN)
    assert [change.name for change in planned.stores[0].changes] == ["a1", "b2", "c3"], planned
    any_server = wished.replace("=standby", "=any")
    refused = shop.run(any_server, timing=Timing(timeout_s=0.2, connect_timeout_s=5))
    assert refused.exit_code == 4, refused
    assert "is a standby (read-only)" in error_of(refused).message
    shop.run().raise_for_failure()
    shop.pair.standby.wait_for(shop.pair.primary)
    for mode in (Mode.PLAN, Mode.VERIFY, Mode.STATUS):
        result = shop.run(wished, mode)
        assert result.ok, result
        assert result.stores[0].changes == (), result


def test_the_ladder_of_a_standby_that_was_asked_for_says_that_nothing_can_be_written(shop):
    """Also for a role that may read and nothing else, which gets no advice to create there."""
    shop.create()
    shop.run().raise_for_failure()
    role = f"looker_{uuid.uuid4().hex[:8]}"
    shop.pair.primary.ask(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    for schema in ("public", "is_db_bootstrap"):
        shop.pair.primary.ask(f"GRANT USAGE ON SCHEMA {schema} TO {role}", shop.name)
        shop.pair.primary.ask(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}", shop.name)
    shop.pair.standby.wait_for(shop.pair.primary)
    for login in ("", f"{role}:pw"):
        url = f"{shop.pair.standby.url}/{shop.name}?target_session_attrs=any"
        if login:
            url = f"postgresql://{login}@{url.rpartition('@')[2]}"
        for mode in (Mode.WAIT, Mode.DOCTOR):
            store = PostgreSQLBootstrapper(url, shop.blueprint, timing=TIMING)
            result = BootstrapOrchestrator([store], retry=RetryPolicy.of(TIMING), climbs=True).run(
                mode
            )
            assert result.ok, result
            rungs = {rung.rung: rung for rung in result.stores[0].rungs}
            writable, schema = rungs[Rung.WRITABLE], rungs[Rung.SCHEMA]
            assert writable.ok is False
            assert writable.text.startswith("a standby (read-only)")
            assert "give the address of the primary" in writable.hint
            assert schema.ok is None
            assert "GRANT" not in schema.hint + schema.text
    plain = f"{shop.pair.standby.url}/{shop.name}"
    store = PostgreSQLBootstrapper(plain, shop.blueprint, timing=TIMING)
    hasty = RetryPolicy(deadline_s=0.2)
    result = BootstrapOrchestrator([store], retry=hasty, climbs=True).run(Mode.WAIT)
    assert result.exit_code == 4, result
    assert result.stores[0].rungs[-1].rung is Rung.WRITABLE


def test_a_missing_database_is_made_on_the_primary(shop):
    result = shop.run()
    assert result.outcome is Outcome.CHANGED, result
    assert shop.rows(shop.pair.primary) == [1, 2]


# --- a fail-over in the middle of a run

#: An event of a run, and whether the run may go on after it. A run that has taken its lock may not.
MOMENTS = {
    "before the plan": (("phase", "plan"), False),
    "before the lock": (("phase", "lock"), True),
    "under the lock": (("phase", "plan again"), False),
    "before the first revision": (("phase", "apply"), False),
    "before a revision": (("change-started", "apply"), False),
    "before a commit": (("change-ran", "apply"), None),
    "after a revision": (("change", "apply"), False),
    "before verify": (("phase", "verify"), False),
}


def made(result):
    return [each.name for each in result.stores[0].changes if each.outcome is Outcome.CHANGED]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_standby_that_is_promoted_in_the_middle_doubles_nothing(shop, moment):
    shop.create()
    shop.happen = shop.pair.fail_over
    at, goes_on = MOMENTS[moment]
    first = shop.run(at=at)
    if goes_on is not None:
        assert first.exit_code == (0 if goes_on else 4), first
    told = made(first)
    with psycopg.connect(f"{shop.pair.standby.url}/{shop.name}") as session:
        [found] = session.execute("SELECT to_regclass('alembic_version') IS NOT NULL").fetchone()
        recorded = session.execute("SELECT * FROM alembic_version").fetchall() if found else []
    order = ["a1", "b2", "c3"]
    reached = order[: order.index(recorded[0][0]) + 1] if recorded else []
    assert told == reached, first
    second = shop.run()
    assert second.ok, second
    assert made(second) == order[len(reached) :], second
    assert shop.rows() == [1, 2]
    assert shop.run().outcome is Outcome.UNCHANGED


def test_the_plan_of_a_primary_that_has_gone_is_made_again_on_the_new_one(shop):
    shop.create()
    shop.happen = shop.pair.fail_over
    assert made(shop.run(at=("phase", "lock"))) == ["a1", "b2", "c3"]


def test_a_primary_that_ends_during_a_revision_leaves_nothing_half_done(shop):
    shop.create()
    body = f'op.execute("INSERT INTO account VALUES (1)")\nimport {MIDDLE}\n{MIDDLE}.happen()\n'
    shop.add("b2", "a1", f'{body}op.execute("INSERT INTO account VALUES (7)")')
    shop.happen = shop.pair.fail_over
    first = shop.run()
    assert first.exit_code == 4, first
    assert made(first) == ["a1"]
    assert shop.rows() == []
    shop.happen = lambda: None
    assert made(shop.run()) == ["b2", "c3"]
    assert shop.rows() == [1, 2, 7]


def test_a_commit_that_a_fail_over_has_taken_back_is_told(shop):
    """The standby gets nothing any more, as behind a network that is cut."""
    shop.create()
    shop.run(mode=Mode.PLAN).raise_for_failure()
    shop.add("b2", "a1", f'import {MIDDLE}\n{MIDDLE}.happen()\nop.execute("SELECT 1")')
    shop.add("c3", "b2", f'import {MIDDLE}\n{MIDDLE}.happen()\nop.execute("SELECT 1")')
    events = [shop.pair.fail_over, shop.pair.cut_off]

    def happen():
        events.pop()()

    shop.happen = happen
    first = shop.run()
    assert first.exit_code == 4, first
    assert made(first) == ["a1"]
    [lost] = [each for each in first.stores[0].changes if each.name == "b2"]
    assert (lost.outcome, lost.detail) == (Outcome.FAILED, "taken back by the fail-over")
    assert any("has taken back b2" in note for note in first.stores[0].notes), first
    shop.happen = lambda: None
    assert made(shop.run()) == ["b2", "c3"]


def test_two_primaries_at_once_do_not_share_a_run(shop):
    """The old primary lives on and has the lock, and new sessions reach the promoted standby."""
    shop.create()
    body = f"import {MIDDLE}\n{MIDDLE}.happen()\n"
    body += "with op.get_bind().engine.begin() as second:\n"
    body += '    second.exec_driver_sql("INSERT INTO account VALUES (9)")'
    shop.add("b2", "a1", body)
    shop.happen = shop.pair.standby.promote
    result = shop.run()
    try:
        assert result.exit_code != 0, result
        error = error_of(result)
        assert f"has reached {shop.pair.standby.address}, which is another server" in str(error)
        assert shop.pair.primary.address in str(error)
        assert shop.rows(shop.pair.primary) == []
        assert shop.rows(shop.pair.standby) == []
    finally:
        shop.pair.primary.kill()
    shop.happen = lambda: None
    assert made(shop.run()) == ["b2", "c3"]
    assert shop.rows() == [2, 9]


def test_an_apply_to_a_standby_that_was_asked_for_ends_at_once(shop):
    shop.create()
    wished = f"{shop.pair.standby.url}/{shop.name}?target_session_attrs=standby"
    result = shop.run(wished)
    assert result.exit_code == 2, result
    assert "asks for a standby (target_session_attrs=standby)" in error_of(result).message
    sessions = RunSessions(StoreUrl.parse("postgres", wished), TIMING, "public")
    with pytest.raises(ConfigurationError, match="asks for a standby"):
        sessions.take_lock(1, "a run")
    assert sessions.roles.one_server.held is None, "the next try may reach the primary"


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_the_environment_of_a_team_gets_an_address_that_sqlalchemy_reads(
    shop, tmp_path, driver, monkeypatch
):
    shop.create()
    scheme = f"postgresql+{driver}:"
    url = shop.pair.url(shop.name).replace("postgresql:", scheme)
    monkeypatch.setenv("SHOP_DATABASE", "")
    folder = tmp_path / "team"
    folder.mkdir()
    team = TeamProject(folder, url, driver)
    team.write(
        "db/env.py",
        (folder / "db/env.py")
        .read_text()
        .replace(
            'os.environ["SHOP_DATABASE"]', 'context.get_x_argument(as_dictionary=True).get("url")'
        ),
    )
    team.revision("a1", None, 'op.execute("CREATE TABLE account (cents int)")')
    team.toml.write_text('[postgres]\nalembic = "alembic.ini"\nx = ["url={url}"]\n')
    blueprint = load_blueprint(team.toml)
    settings = Settings.load(blueprint, environ={"POSTGRES_URL": url})
    result = orchestrator(blueprint, settings, RunOptions()).run()
    result.raise_for_failure()
    assert made(result) == ["a1"]
    assert shop.rows(shop.pair.primary) == []


# --- the page

PAGE = "docs/how-to/standbys.md"


def typed(pair, name, number, folder):
    """What the command of a block has printed, with real addresses in the places of the page's."""
    [(line, _)] = commands(list(blocks(PAGE))[number])
    pairs = pair.url(name)
    alone = f"{pair.standby.url}/{name}"
    line = line.replace("postgresql://app:secret@pg-1:5432,pg-2:5432/shop", pairs)
    line = line.replace("postgresql://app:secret@pg-2:5432/shop", alone)
    return Reader(folder, {}).type(line)


def test_the_lines_of_standbys_are_typed(pair, tmp_path):
    name = f"page_{uuid.uuid4().hex[:12]}"
    done = typed(pair, name, 0, tmp_path)
    assert done.returncode == 0, done.stderr
    found = pair.primary.ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name)
    assert found > 1


def test_the_lines_of_standbys_are_typed_on_a_standby(pair, tmp_path):
    name = f"page_{uuid.uuid4().hex[:12]}"
    assert typed(pair, name, 0, tmp_path).returncode == 0
    pair.standby.wait_for(pair.primary)
    done = typed(pair, name, 2, tmp_path)
    assert done.returncode == 0, done.stderr
    plain = f"is-db-bootstrap verify -b mplp --timeout 1 --postgres-url '{pair.standby.url}/{name}'"
    refused = Reader(tmp_path, {}).type(plain)
    assert refused.returncode == 4
    place = pair.standby.address
    said = list(blocks(PAGE))[1].text.strip().partition(" leads to ")[2].replace("pg-2:5432", place)
    assert f"leads to {said}" in " ".join(refused.stderr.split())
