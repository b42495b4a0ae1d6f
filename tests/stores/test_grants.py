"""Runs of roles that have just what `grants` prints, and one privilege less."""

from __future__ import annotations

import re
import uuid
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest

from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.grant_list import GrantWish, Purpose
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper

LOOKS = (Mode.WAIT, Mode.PLAN, Mode.VERIFY, Mode.STATUS)
WORD = "a-word-of-tests"


def wish(role, *purposes, **options):
    return GrantWish(role, frozenset(purposes), **options)


# --- PostgreSQL


class Administrator:
    """What a superuser does on one PostgreSQL, as psql would do it."""

    def __init__(self, server):
        self.server = server
        self.databases, self.roles = [], []

    def run(self, *statements, database="postgres"):
        """Run what was printed, in the order in which it was printed."""
        for statement in statements:
            if found := re.fullmatch(r'\\connect "(.*)"', statement):
                database = found[1]
                continue
            with psycopg.connect(f"{self.server.url}/{database}", autocommit=True) as session:
                session.execute(statement)

    def database(self):
        """A database in which nobody may do anything."""
        name = f"grants_{uuid.uuid4().hex[:10]}"
        self.run(f'CREATE DATABASE "{name}"')
        self.databases.append(name)
        self.run(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        self.run("REVOKE ALL ON SCHEMA public FROM PUBLIC", database=name)
        return name

    def role(self, name, statements, database):
        """A role with what these statements give it. Returns its address."""
        self.roles.append(name)
        self.run(*statements)
        self.run(f"ALTER ROLE \"{name}\" PASSWORD '{WORD}'")
        url = StoreUrl.parse("postgres", f"{self.server.url}/{database}")
        return replace(url, username=name, password=WORD)

    def clean(self):
        for name in self.databases:
            self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        for name in self.roles:
            self.run(f'DROP OWNED BY "{name}"', f'DROP ROLE "{name}"')


@contextmanager
def administrator(server):
    made = Administrator(server)
    try:
        yield made
    finally:
        made.clean()


@pytest.fixture
def admin(request, farm):
    with administrator(farm.shared("postgres", getattr(request, "param", None))) as made:
        yield made


def postgres_statements(blueprint, database, role, purpose, **options):
    store = PostgreSQLBootstrapper(f"postgresql://nobody@nowhere/{database}", blueprint)
    listed = store.grants(wish(role, purpose, **options))
    return [grant.statement for grant in listed.grants]


def run_postgres(url, blueprint, mode=Mode.APPLY):
    return BootstrapOrchestrator([PostgreSQLBootstrapper(url, blueprint)]).run(mode)


def name(word):
    return f"{word}_{uuid.uuid4().hex[:8]}"


@pytest.mark.parametrize(
    ("admin", "blueprint"),
    [
        ("18", "agentic_projects"),
        ("18", "context_service"),
        ("18", "helpdesk"),
        ("18", "mplp"),
        ("18", "novel_genesis"),
        ("15", "context_service"),
        ("15", "mplp"),
    ],
    indirect=["admin"],
)
def test_roles_of_postgres_with_just_the_printed_privileges_do_all(admin, blueprint):
    declared = load_blueprint(blueprint)
    database = admin.database()
    applier, verifier = name("applier"), name("verifier")
    statements = postgres_statements(declared, database, applier, Purpose.APPLY)
    url = admin.role(applier, statements, database)
    assert run_postgres(url, declared, Mode.PLAN).ok
    first = run_postgres(url, declared)
    assert first.outcome is Outcome.CHANGED, first
    assert not [note for note in first.stores[0].notes if "administrator" in note]
    assert run_postgres(url, declared).outcome is Outcome.UNCHANGED
    for mode in LOOKS:
        assert run_postgres(url, declared, mode).ok, mode
    statements = postgres_statements(declared, database, verifier, Purpose.VERIFY)
    url = admin.role(verifier, statements, database)
    for mode in LOOKS:
        result = run_postgres(url, declared, mode)
        assert result.ok, result
        assert not [note for note in result.stores[0].notes if "administrator" in note]
