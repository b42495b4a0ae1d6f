"""A primary and a standby of PostgreSQL: which one a run finds, and a fail-over in its middle."""

from __future__ import annotations

import sys
import textwrap
import types
import uuid

import psycopg
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.connection import connect
from servers import DEBIAN_POSTGRES_15
from standbys import Pair

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
    middle.happen = lambda: made.happen()
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

        from is_db_bootstrap.engine.retry import RetryPolicy

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
    refused = shop.run(wished)
    assert refused.exit_code == 4, refused
    assert "is a standby (read-only)" in error_of(refused).message
    shop.run().raise_for_failure()
    shop.pair.standby.wait_for(shop.pair.primary)
    for mode in (Mode.PLAN, Mode.VERIFY, Mode.STATUS):
        result = shop.run(wished, mode)
        assert result.ok, result
        assert result.stores[0].changes == (), result


def test_a_missing_database_is_made_on_the_primary(shop):
    result = shop.run()
    assert result.outcome is Outcome.CHANGED, result
    assert shop.rows(shop.pair.primary) == [1, 2]


def show(result):
    print(result.exit_code, [c for c in result.stores[0].changes], error_of(result))


@pytest.mark.parametrize(
    "at", [("phase", "plan"), ("phase", "lock"), ("phase", "plan again"), ("change-started", "apply"), ("change-ran", "apply"), ("change", "apply"), ("phase", "verify"), ("phase", "apply")]
)
def test_probe(shop, at):
    shop.create()
    shop.happen = shop.pair.fail_over
    result = shop.run(at=at)
    show(result)
    result = shop.run()
    show(result)
    assert shop.rows() == [1, 2]
