"""`schema.sql` of each blueprint: current, and as good as a run when psql loads it."""

from __future__ import annotations

import shutil
import subprocess

import psycopg
import pytest

from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.catalogue import FILE_NAME
from is_db_bootstrap.stores.postgres.scratch import SCHEMA_NAME, generate, schema_sql

pytestmark = pytest.mark.postgres
EACH = pytest.mark.parametrize(
    "name", [n for n in blueprint_names() if "postgres" in load_blueprint(n).stores]
)
STALE = "stale: is-db-bootstrap revision --refresh --blueprint"


@EACH
def test_the_files_are_current(postgres_url, name):
    blueprint = load_blueprint(name)
    assert (blueprint.migrations / SCHEMA_NAME).read_text(encoding="utf-8") == schema_sql(
        blueprint
    ), f"{STALE} {name}"
    catalogue = generate(StoreUrl.parse("postgres", postgres_url), blueprint, Timing())
    assert (blueprint.migrations / FILE_NAME).read_text(encoding="utf-8") == catalogue.text(), (
        f"{STALE} {name}"
    )


@EACH
@pytest.mark.parametrize("postgres_url", ["18", "14"], indirect=True)
@pytest.mark.skipif(
    shutil.which("psql") is None, reason="psql is not installed (postgresql-client)"
)
def test_psql_makes_what_a_run_makes(postgres_url, name):
    server, _, database = postgres_url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{database}"')
    blueprint = load_blueprint(name).without_seed()
    file = blueprint.migrations / SCHEMA_NAME
    subprocess.run(
        ["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", postgres_url, "-f", str(file)],
        check=True,
        timeout=60,
    )
    result = BootstrapOrchestrator([PostgreSQLBootstrapper(postgres_url, blueprint)]).run()
    assert (result.outcome, result.exit_code) == ("unchanged", 0)
    store = PostgreSQLBootstrapper(postgres_url, blueprint)
    assert store.status().recorded == store.status().head
    assert store.audit() == []
    assert store._place.history.read(store.reader()).blueprint == name
    store.close()
