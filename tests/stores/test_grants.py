"""Runs of roles that have just what `grants` prints, and one privilege less."""

from __future__ import annotations

import re
import shlex
import uuid
from contextlib import contextmanager
from dataclasses import replace

import neo4j
import psycopg
import pytest
import redis
from pymilvus.grpc_gen import common_pb2, milvus_pb2

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.grant_list import GrantWish, Purpose
from is_db_bootstrap.render.grants import grants_text
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.settings import StoreUrl, Timing
from is_db_bootstrap.stores.milvus import errors as milvus_errors
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from is_db_bootstrap.stores.milvus.privileges import refused_privilege
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper
from is_db_bootstrap.stores.neo4j.privileges import HOMES, QUERY, told_privileges, words_for
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.moves import Upgrade
from is_db_bootstrap.stores.postgres.sure_needs import sure_needs
from is_db_bootstrap.stores.redis.bootstrapper import RedisBootstrapper
from is_db_bootstrap.stores.redis.errors import TRANSACTION_RIGHTS
from milvus_gateway import gateway, privilege_of
from servers import milvus_client
from team_project import TeamProject

LOOKS = (Mode.WAIT, Mode.PLAN, Mode.VERIFY, Mode.STATUS)
WORD = "a-word-of-tests"
NOVEL = load_blueprint("novel_genesis")
HELPDESK = load_blueprint("helpdesk")


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

    def content(self, database):
        """What there is in the database beside what the server has by itself."""
        query = (
            "SELECT nspname, relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname !~ '^(pg_|information_schema)' UNION ALL "
            "SELECT nspname, '' FROM pg_namespace UNION ALL SELECT extname, 'e' FROM pg_extension"
        )
        with psycopg.connect(f"{self.server.url}/{database}") as session:
            return sorted(session.execute(query).fetchall())

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


@pytest.fixture
def migrated_database(migrated):
    """The name of a database at the head of context_service, in which nobody may do anything."""
    url = migrated("context_service")
    database = url.rpartition("/")[2]
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f'REVOKE ALL ON DATABASE "{database}" FROM PUBLIC')
        session.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    return load_blueprint("context_service"), database


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


def needed_by(purpose):
    """What `grants` lists for a database that nobody has granted anything on."""
    declared = load_blueprint("context_service")
    listed = postgres_statements(declared, "the-database", "the-role", purpose)
    return [each for each in listed if not each.startswith(("CREATE ROLE", "\\connect"))]


def of(statement, database, role):
    """A statement of `needed_by` for another database and another role."""
    return statement.replace("the-database", database).replace("the-role", role)


@pytest.mark.parametrize("lacking", needed_by(Purpose.APPLY))
def test_apply_on_postgres_without_one_of_the_privileges_names_it_and_changes_nothing(
    admin, lacking
):
    declared = load_blueprint("context_service")
    database, role = admin.database(), name("lacking")
    lacking = of(lacking, database, role)
    statements = postgres_statements(declared, database, role, Purpose.APPLY)
    assert lacking in statements
    url = admin.role(role, [each for each in statements if each != lacking], database)
    before = admin.content(database)
    result = run_postgres(url, declared)
    if "is_db_bootstrap" in lacking:
        assert (result.exit_code, result.outcome) == (0, Outcome.CHANGED), result
        assert ("is_db_bootstrap", "") not in admin.content(database)
        return
    assert result.exit_code == 5, result
    assert lacking in result.stores[0].error.hint
    assert admin.content(database) == before


@pytest.mark.parametrize("lacking", needed_by(Purpose.VERIFY))
def test_verify_on_postgres_without_one_of_the_privileges_is_denied(
    admin, migrated_database, lacking
):
    declared, database = migrated_database
    role = name("lacking")
    lacking = of(lacking, database, role)
    statements = postgres_statements(declared, database, role, Purpose.VERIFY)
    assert lacking in statements
    url = admin.role(role, [each for each in statements if each != lacking], database)
    result = run_postgres(url, declared, Mode.VERIFY)
    assert result.exit_code == 5, result
    assert lacking in result.stores[0].error.hint


# --- Redis


redis_versions = pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)


def redis_statements(url, blueprint, role, purpose, version):
    """What is pasted, and for Redis 6 also what it alone needs, without what only others take."""
    listed = RedisBootstrapper(url, blueprint).grants(wish(role, purpose)).grants
    is_old = version == 6
    return [
        grant.statement
        for grant in listed
        if (is_old or not grant.only_in) and not (is_old and "%R~" in grant.statement)
    ]


@contextmanager
def redis_user(url, role, statements):
    """A user with what these lines give. Yields the user's address, and an administrator."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        try:
            for statement in statements:
                client.execute_command(*shlex.split(statement))
            client.execute_command("ACL", "SETUSER", role, f">{WORD}")
            yield replace(StoreUrl.parse("redis", url), username=role, password=WORD), client
        finally:
            client.execute_command("ACL", "DELUSER", role)


def redis_version(url):
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return int(client.info("server")["redis_version"].partition(".")[0])


def run_redis(url, blueprint, mode=Mode.APPLY, **options):
    store = RedisBootstrapper(url, blueprint)
    return BootstrapOrchestrator([store], **options).run(mode)


@redis_versions
@pytest.mark.parametrize("blueprint", ["helpdesk", "novel_genesis"])
def test_users_of_redis_with_just_the_printed_rights_do_all(redis_url, blueprint):
    declared, version = load_blueprint(blueprint), redis_version(redis_url)
    statements = redis_statements(redis_url, declared, "applier", Purpose.APPLY, version)
    with redis_user(redis_url, "applier", statements) as (url, client):
        key = re.sub(r"\{\w+\}", "1", declared.keys[0].pattern)
        client.set(key, "x", ex=60)
        assert run_redis(url, declared, Mode.PLAN).ok
        adopted = run_redis(url, declared, Mode.ADOPT)
        assert adopted.outcome is Outcome.CHANGED, adopted
        client.delete(f"is-db-bootstrap:conventions:{declared.name}")
        first = run_redis(url, declared)
        assert first.outcome is Outcome.CHANGED, first
        assert "not looked at" not in str(first.stores[0].notes)
        assert run_redis(url, declared).outcome is Outcome.UNCHANGED
        for mode in LOOKS:
            assert run_redis(url, declared, mode).ok
    statements = redis_statements(redis_url, declared, "verifier", Purpose.VERIFY, version)
    with redis_user(redis_url, "verifier", statements) as (url, client):
        client.flushdb()
        client.set("stranger", "x")
        assert run_redis(redis_url, declared).ok
        for mode in LOOKS:
            result = run_redis(url, declared, mode)
            assert result.ok, result
        strict = run_redis(url, declared, Mode.VERIFY, strict=True)
        assert "was not looked at" not in str(strict)
        assert run_redis(url, replace(declared, keys=declared.keys[1:])).exit_code == 5


@redis_versions
def test_what_is_printed_for_redis_can_be_pasted_whole_and_shows_what_redis_6_needs(redis_url):
    """The pasted lines are sent as they are. Redis 6 refuses those that only Redis 7 knows."""
    version = redis_version(redis_url)
    listed = RedisBootstrapper("redis://nowhere", HELPDESK).grants(wish("pasted", Purpose.VERIFY))
    pasted, beside = grants_text([listed])
    assert "Redis 6" not in beside
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        try:
            shown = []
            for line in pasted.splitlines():
                is_of_7 = "%R~" in line and not line.startswith("ECHO")
                if is_of_7 and version == 6:
                    with pytest.raises(redis.ResponseError, match="Syntax error"):
                        client.execute_command(*shlex.split(line))
                    continue
                answer = client.execute_command(*shlex.split(line))
                if line.startswith("ECHO"):
                    shown.append(answer)
            for_6 = [each for each in shown if each.startswith("ACL SETUSER")]
            assert "Only Redis 6 needs" in shown[0]
            assert len(for_6) * 2 == len(shown)
            if version == 6:
                for each in for_6:
                    client.execute_command(*shlex.split(each))
            else:
                assert "%R~" in str(client.acl_getuser("pasted"))
            client.execute_command("ACL", "SETUSER", "pasted", f">{WORD}")
            assert run_redis(redis_url, HELPDESK).ok
            url = replace(StoreUrl.parse("redis", redis_url), username="pasted", password=WORD)
            assert run_redis(url, HELPDESK, Mode.VERIFY).ok
            assert run_redis(url, HELPDESK, Mode.WAIT, climbs=True).ok
        finally:
            client.execute_command("ACL", "DELUSER", "pasted")


def redis_rules(purpose):
    """Each single right that is pasted and whose lack is exit 5."""
    listed = RedisBootstrapper("redis://nowhere", HELPDESK).grants(wish("r", purpose)).grants
    needed = [grant for grant in listed if not (grant.without or grant.only_in)]
    rules = [rule for grant in needed for rule in grant.statement.split()[3:]]
    return [rule for rule in rules if rule != "on" and ":memory:" not in rule]


@pytest.mark.parametrize("redis_url", ["7"], indirect=True)
@pytest.mark.parametrize("lacking", redis_rules(Purpose.APPLY))
def test_apply_on_redis_without_one_of_the_rights_names_it_and_changes_nothing(redis_url, lacking):
    statements = redis_statements(redis_url, HELPDESK, "applier", Purpose.APPLY, 7)
    fewer = [" ".join(w for w in each.split() if w != lacking) for each in statements]
    with redis_user(redis_url, "applier", fewer) as (url, client):
        result = run_redis(url, HELPDESK)
        assert client.keys() == []
    assert result.exit_code == 5, result
    # A user without one of the first way is told of the other one, which takes fewer rights.
    told = "+eval" if lacking in TRANSACTION_RIGHTS.split() else lacking
    assert f"ACL SETUSER applier {told}" in result.stores[0].error.hint


@pytest.mark.parametrize("redis_url", ["7"], indirect=True)
@pytest.mark.parametrize("lacking", redis_rules(Purpose.VERIFY))
def test_verify_on_redis_without_one_of_the_rights_is_denied(redis_url, lacking):
    assert run_redis(redis_url, HELPDESK).ok
    statements = redis_statements(redis_url, HELPDESK, "verifier", Purpose.VERIFY, 7)
    fewer = [" ".join(w for w in each.split() if w != lacking) for each in statements]
    with redis_user(redis_url, "verifier", fewer) as (url, _):
        looks = [run_redis(url, HELPDESK, mode) for mode in (Mode.VERIFY, Mode.STATUS)]
    denied = [result for result in looks if result.exit_code == 5]
    assert denied, looks
    told = lacking.replace("%R~", "~")
    assert f"ACL SETUSER verifier {told}" in denied[0].stores[0].error.hint


REVISION = '''
"""{title}"""
from alembic import op
import sqlalchemy as sa

revision = "{name}"
down_revision = {before!r}


def upgrade():
    {body}


def downgrade():
    pass
'''


def chain(folder, *bodies):
    """A blueprint of revisions with these bodies."""
    folder.mkdir()
    before = None
    for number, body in enumerate(bodies, 1):
        text = REVISION.format(title=f"step {number}", name=f"r{number}", before=before, body=body)
        (folder / f"r{number}.py").write_text(text)
        before = f"r{number}"
    return Blueprint("chain", "for tests", migrations=folder)


MADE = 'op.create_table("bill", sa.Column("id", sa.Integer, primary_key=True))'


@pytest.mark.parametrize(
    "change",
    [
        'op.add_column("bill", sa.Column("note", sa.Text))',
        'op.create_index("ix", table_name="bill", columns=["id"])',
        'op.execute("ALTER TABLE bill ADD COLUMN note text")',
        'op.execute(sa.text("alter table public.bill ADD COLUMN note text"))',
        'op.execute("ALTER TABLE IF EXISTS ONLY bill ADD COLUMN note text")',
        'op.execute("SELECT 1; /* a word */ ALTER TABLE bill RENAME COLUMN id TO number")',
    ],
)
def test_a_table_of_another_role_is_named_before_any_revision_runs(admin, tmp_path, change):
    database, role = admin.database(), name("clerk")
    before = chain(tmp_path / "before", MADE)
    assert run_postgres(f"{admin.server.url}/{database}", before).ok
    declared = chain(tmp_path / "after", MADE, 'op.execute("CREATE TABLE other (id int)")', change)
    url = admin.role(role, postgres_statements(declared, database, role, Purpose.APPLY), database)
    admin.run(f'GRANT SELECT ON alembic_version TO "{role}"', database=database)
    content = admin.content(database)
    result = run_postgres(url, declared)
    assert result.exit_code == 5, result
    hint = result.stores[0].error.hint
    statements = hint.partition("run: ")[2]
    assert f'ALTER TABLE "public"."bill" OWNER TO "{role}";' in statements
    assert f'GRANT SELECT, INSERT, UPDATE, DELETE ON "public"."alembic_version" TO "{role}";' in (
        statements
    )
    assert admin.content(database) == content
    admin.run(statements, database=database)
    assert run_postgres(url, declared).outcome is Outcome.CHANGED


def test_a_table_that_may_not_be_altered_is_no_hindrance_behind_a_condition(admin, tmp_path):
    """Nobody can tell by reading whether it is altered, so the run is not refused."""
    database, role = admin.database(), name("clerk")
    before = chain(tmp_path / "before", MADE)
    assert run_postgres(f"{admin.server.url}/{database}", before).ok
    body = 'if False:\n        op.execute("ALTER TABLE bill ADD COLUMN note text")'
    declared = chain(tmp_path / "after", MADE, body)
    url = admin.role(role, postgres_statements(declared, database, role, Purpose.APPLY), database)
    admin.run(
        f'GRANT SELECT, INSERT, UPDATE, DELETE ON alembic_version TO "{role}"', database=database
    )
    assert run_postgres(url, declared).outcome is Outcome.CHANGED


#: SQL that speaks of an extension, and makes none.
ONLY_SPOKEN_OF = [
    "-- no CREATE EXTENSION dblink here\nSELECT 1",
    "/* CREATE EXTENSION dblink */ SELECT 1",
    "INSERT INTO bill VALUES (7) -- before CREATE EXTENSION dblink",
    "COMMENT ON TABLE bill IS 'first: CREATE EXTENSION dblink'",
    "DO $$ BEGIN IF false THEN CREATE EXTENSION dblink; END IF; END $$",
]


@pytest.mark.parametrize("sql", ONLY_SPOKEN_OF)
def test_an_extension_that_is_only_spoken_of_keeps_nobody_from_applying(admin, tmp_path, sql):
    database, role = admin.database(), name("clerk")
    declared = chain(tmp_path / "chain", MADE, f"op.execute({sql!r})  # CREATE EXTENSION dblink")
    statements = postgres_statements(declared, database, role, Purpose.APPLY)
    if "DO $$" not in sql:  # what a block makes under a condition is granted all the same
        assert not any("dblink" in each for each in statements), statements
    statements = [each for each in statements if "dblink" not in each]
    url = admin.role(role, statements, database)
    assert run_postgres(url, declared).outcome is Outcome.CHANGED


def test_what_a_function_makes_of_a_text_is_not_taken_for_the_text(tmp_path):
    written = ['op.add_column(op.f("bill"), x)', 'op.execute(sa.text("ALTER TABLE a ADD b int"))']
    for body in written:
        assert sure_needs(chain_files(tmp_path, body), ["r1"]).tables, body
    made = ['op.add_column(prefixed("users"), x)', 'op.execute(load("ALTER TABLE a ADD b int"))']
    for body in made:
        assert not sure_needs(chain_files(tmp_path, body), ["r1"]).tables, body


def chain_files(folder, body):
    made = folder / uuid.uuid4().hex
    chain(made, body)
    return {"r1": made / "r1.py"}


def test_an_extension_that_a_role_may_not_make_is_named_before_any_revision_runs(admin, tmp_path):
    database, role = admin.database(), name("clerk")
    declared = chain(tmp_path / "chain", MADE, 'op.execute("CREATE EXTENSION dblink")')
    statements = postgres_statements(declared, database, role, Purpose.APPLY)
    assert any('CREATE EXTENSION IF NOT EXISTS "dblink"' in each for each in statements)
    url = admin.role(role, [each for each in statements if "dblink" not in each], database)
    content = admin.content(database)
    result = run_postgres(url, declared)
    assert result.exit_code == 5, result
    assert 'CREATE EXTENSION IF NOT EXISTS "dblink";' in result.stores[0].error.hint
    assert admin.content(database) == content


def test_a_role_that_makes_the_database_itself_needs_two_privileges(admin):
    declared, role = load_blueprint("mplp"), name("maker")
    database = f"grants_{uuid.uuid4().hex[:10]}"
    admin.databases.append(database)
    statements = postgres_statements(declared, database, role, Purpose.APPLY, creates_database=True)
    url = admin.role(role, statements, database)
    assert run_postgres(url, declared).outcome is Outcome.CHANGED
    assert run_postgres(url, declared).outcome is Outcome.UNCHANGED
    admin.run(f'ALTER ROLE "{role}" NOCREATEDB')
    result = run_postgres(replace(url, database=f"{database}_2"), declared)
    assert result.exit_code == 5
    assert f'ALTER ROLE "{role}" CREATEDB;' in result.stores[0].error.hint


@pytest.mark.parametrize("denied", ["postgres", "redis"])
def test_a_privilege_that_is_missing_in_one_store_leaves_the_other_one_as_it_was(
    admin, redis_url, denied
):
    database, role = admin.database(), name("both")
    statements = postgres_statements(HELPDESK, database, role, Purpose.APPLY)
    lines = redis_statements(redis_url, HELPDESK, "applier", Purpose.APPLY, 6)
    if denied == "postgres":
        statements = [each for each in statements if "CREATE ON SCHEMA" not in each]
    else:
        lines = [line for line in lines if "+watch" not in line]
    url = admin.role(role, statements, database)
    content = admin.content(database)
    with redis_user(redis_url, "applier", lines) as (redis_address, client):
        stores = [
            PostgreSQLBootstrapper(url, HELPDESK),
            RedisBootstrapper(redis_address, HELPDESK),
        ]
        result = BootstrapOrchestrator(stores).run()
        assert client.keys() == []
    assert result.exit_code == 5
    assert [store.store for store in result.stores if store.error] == [denied]
    assert admin.content(database) == content


def test_a_role_of_a_teams_own_alembic_folder_does_all(admin, tmp_path, monkeypatch):
    database = admin.database()
    applier, verifier = name("applier"), name("verifier")
    team = TeamProject(tmp_path, f"{admin.server.url}/{database}")
    team.ini("recursive_version_locations = true")
    team.revision("a1", None, "op.execute('CREATE TABLE account (id int)')", place="db/versions")
    declared = load_blueprint(team.toml)

    def run_team(url, mode=Mode.APPLY):
        monkeypatch.setenv(
            "SHOP_DATABASE", url.reveal().replace("postgresql:", "postgresql+psycopg:")
        )
        return run_postgres(url, declared, mode)

    monkeypatch.setenv("SHOP_DATABASE", team.address)
    statements = postgres_statements(declared, database, applier, Purpose.APPLY)
    assert any("CREATE ON DATABASE" in each for each in statements)
    url = admin.role(applier, statements, database)
    assert run_team(url).outcome is Outcome.CHANGED
    assert run_team(url).outcome is Outcome.UNCHANGED
    statements = postgres_statements(declared, database, verifier, Purpose.VERIFY)
    url = admin.role(verifier, statements, database)
    for mode in LOOKS:
        result = run_team(url, mode)
        assert result.ok, result


# --- roles that have less, or other things than the printed


def login(admin, database, *statements):
    """A role that may log in, and what `statements` give `{role}`. Returns name and address."""
    role = name("clerk")
    made = [f'CREATE ROLE "{role}" LOGIN', f'GRANT CONNECT ON DATABASE "{database}" TO "{role}"']
    url = admin.role(role, made, database)
    admin.run(*(each.format(role=role) for each in statements), database=database)
    return role, url


@contextmanager
def opened(url, declared, **options):
    store = PostgreSQLBootstrapper(url, declared, **options)
    try:
        store.ping(5)
        yield store
    finally:
        store.close()


def privileges(url, declared, **options):
    """What the doctor tells of a role: each privilege, with whether it is there and the GRANT."""
    with opened(url, declared, **options) as store:
        return {each.name: each for each in store.diagnose().privileges}


def applied(admin, folder, *bodies, schema=None):
    """A database in which a superuser has applied a chain. Returns its name and the chain."""
    database = admin.database()
    declared = chain(folder, *bodies)
    store = PostgreSQLBootstrapper(f"{admin.server.url}/{database}", declared, schema=schema)
    assert BootstrapOrchestrator([store]).run().ok
    return database, declared


def test_the_doctor_names_a_schema_that_a_role_may_not_use(admin, tmp_path):
    database, declared = applied(admin, tmp_path / "chain", MADE, schema="app")
    role, url = login(admin, database)
    told = privileges(url, declared, schema="app")
    lacking = told["use schema app"]
    assert not lacking.is_granted
    assert lacking.statement == f'GRANT USAGE ON SCHEMA "app" TO "{role}";'
    assert not told['read "app"."alembic_version"'].is_granted


def test_the_doctor_knows_that_tables_of_our_own_belong_to_another_role(admin, tmp_path):
    """The right to make tables in our schema writes none of those that are there."""
    database, declared = applied(admin, tmp_path / "chain", MADE)
    _, url = login(
        admin,
        database,
        'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"',
        'GRANT USAGE, CREATE ON SCHEMA is_db_bootstrap TO "{role}"',
    )
    keeping = "keep records of our own in schema is_db_bootstrap"
    found = privileges(url, declared)[keeping]
    assert not found.is_granted
    admin.run(found.statement, database=database)
    assert privileges(url, declared)[keeping].is_granted


def test_a_tenant_is_not_hindered_by_the_schema_of_another_one(admin, tmp_path):
    database, declared = applied(admin, tmp_path / "chain", MADE, schema="tenant_a")
    _, url = login(admin, database, 'CREATE SCHEMA tenant_b AUTHORIZATION "{role}"')
    with opened(url, declared, schema="tenant_b") as store:
        assert store.recorded_blueprints() == {"chain"}


def test_a_role_that_may_not_use_public_works_where_its_path_leads(admin, tmp_path):
    database, declared = admin.database(), chain(tmp_path / "chain", MADE)
    _, url = login(
        admin,
        database,
        'CREATE SCHEMA tenant AUTHORIZATION "{role}"',
        'ALTER ROLE "{role}" SET search_path = tenant',
    )
    result = run_postgres(url, declared)
    assert result.outcome is Outcome.CHANGED, result


def test_an_upgrade_needs_only_what_its_own_revisions_need(admin, tmp_path):
    database, _ = applied(admin, tmp_path / "before", MADE)
    later = 'op.add_column("bill", sa.Column("note", sa.Text))'
    declared = chain(tmp_path / "after", MADE, 'op.execute("CREATE TABLE b (id int)")', later)
    _, url = login(
        admin,
        database,
        'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON alembic_version TO "{role}"',
    )
    upgrade = Upgrade(url, declared, "r2", timing=Timing(), schema=None)
    result = BootstrapOrchestrator([upgrade]).run()
    assert result.outcome is Outcome.CHANGED, result
    assert run_postgres(url, declared).exit_code == 5


def test_an_extension_that_a_role_may_not_make_is_named_before_its_database_is_made(
    admin, tmp_path
):
    database = f"grants_{uuid.uuid4().hex[:10]}"
    admin.databases.append(database)
    bodies = ['op.execute("CREATE EXTENSION hstore")', 'op.execute("CREATE EXTENSION dblink")']
    declared = chain(tmp_path / "chain", *bodies)
    role = name("maker")
    url = admin.role(role, [f'CREATE ROLE "{role}" LOGIN CREATEDB'], database)
    result = run_postgres(url, declared)
    assert result.exit_code == 5, result
    error = result.stores[0].error
    assert error.message.endswith("create the extension dblink, as revision r2 does.")
    assert '"dblink"' in error.hint
    with psycopg.connect(f"{admin.server.url}/postgres") as session:
        query = "SELECT FROM pg_database WHERE datname = %s"
        assert session.execute(query, [database]).fetchone() is None


def test_a_plan_that_another_role_has_left_fails_no_run_that_is_done(admin, tmp_path):
    database, _ = applied(admin, tmp_path / "before", MADE)
    admin.run("UPDATE is_db_bootstrap.lineage SET planned = revisions", database=database)
    declared = chain(tmp_path / "after", MADE, 'op.execute("CREATE TABLE b (id int)")')
    _, url = login(
        admin,
        database,
        'GRANT USAGE, CREATE ON SCHEMA public TO "{role}"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON alembic_version TO "{role}"',
    )
    result = run_postgres(url, declared)
    assert (result.exit_code, result.outcome) == (0, Outcome.CHANGED), result
    assert run_postgres(url, declared).outcome is Outcome.UNCHANGED


def test_where_a_team_s_env_py_works_is_neither_asked_nor_refused(admin, tmp_path, monkeypatch):
    """A role may not make tables in `public`, and the team works in a schema of its own."""
    database = admin.database()
    _, url = login(
        admin,
        database,
        f'GRANT CREATE ON DATABASE "{database}" TO "{{role}}"',
        'GRANT USAGE ON SCHEMA public TO "{role}"',
    )
    team = TeamProject(tmp_path, url.reveal())
    monkeypatch.setenv("SHOP_DATABASE", team.address)
    team.revision("a1", None, "op.execute('CREATE TABLE meta.account (id int)')")
    declared = load_blueprint(team.toml)
    with opened(url, declared) as store:
        last = store.rungs()[-1]
        assert (last.ok, last.text) == (
            None,
            "not asked, because env.py decides in which schema it works",
        )
    assert not [each for each in privileges(url, declared) if each.startswith("create tables")]
    assert run_postgres(url, declared).outcome is Outcome.CHANGED


def test_a_record_that_cannot_be_made_for_another_reason_is_no_missing_right(admin, tmp_path):
    database = admin.database()
    admin.run(
        "CREATE FUNCTION public.full() RETURNS event_trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'the disk is full' USING ERRCODE = '53100'; END $$",
        "CREATE EVENT TRIGGER f ON ddl_command_start WHEN TAG IN ('CREATE SCHEMA') "
        "EXECUTE FUNCTION public.full()",
        database=database,
    )
    result = run_postgres(f"{admin.server.url}/{database}", chain(tmp_path / "chain", MADE))
    assert result.exit_code != 0
    error = result.stores[0].error
    assert error.object == "is_db_bootstrap.lineage", error
    assert "SQLSTATE 53100" in error.message


# --- Neo4j: roles are a part of the Enterprise Edition, which cannot be had here


BOTH_NEO4J = pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)


@BOTH_NEO4J
@pytest.mark.parametrize("purpose", Purpose)
def test_each_statement_for_neo4j_is_one_that_the_server_can_read(neo4j_url, purpose):
    """The Community Edition reads an administration command before it says that it has none."""
    url = StoreUrl.parse("neo4j", neo4j_url)
    statements = [
        grant.statement
        for database in ("", "/shop")
        for grant in Neo4jBootstrapper(f"bolt://nowhere{database}", NOVEL)
        .grants(wish("a-role", purpose))
        .grants
    ]
    address = f"bolt://{url.hosts}"
    with neo4j.GraphDatabase.driver(address, auth=(url.username, url.password)) as driver:
        for statement in statements:
            with pytest.raises(neo4j.exceptions.ClientError) as refused:
                driver.execute_query(statement.rstrip(";"), database_="system")
            assert "UnsupportedAdministrationCommand" in refused.value.code, refused.value


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("neo4j", {"home", "default"}),
        ("shop", set()),
        ("own", {"home"}),
    ],
)
def test_a_privilege_on_the_home_or_the_default_database_is_one_on_the_database_that_is_meant(
    database, words
):
    """Rows as the manual has them. `neo4j` is the default, and the home of whom nobody gave one."""
    is_own = database == "own"
    rows = [
        {"name": "neo4j", "home": not is_own, "default": True},
        {"name": "shop", "home": False, "default": False},
        {"name": "own", "home": is_own, "default": False},
    ]
    found = words_for(database, rows)
    assert found == words
    for graph in ("HOME", "DEFAULT"):
        granted = [
            {"access": "GRANTED", "action": action, "graph": graph}
            for action in ("index", "constraint")
        ]
        told = told_privileges(granted, database, found)
        assert told.may_change_schema is (True if graph.lower() in words else None)


@BOTH_NEO4J
def test_the_queries_for_privileges_are_ones_that_the_server_can_read(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password)
    ) as driver:
        rows = driver.execute_query(HOMES, database_="system").records
        assert words_for("neo4j", rows) == {"home", "default"}
        with pytest.raises(neo4j.exceptions.ClientError) as refused:
            driver.execute_query(QUERY, database_="system")
    assert "UnsupportedAdministrationCommand" in refused.value.code


@pytest.mark.parametrize("neo4j_url", ["5.26"], indirect=True)
def test_what_the_doctor_prints_for_neo4j_is_what_grants_prints(neo4j_url):
    """Each is one command, as the server takes it."""
    store = Neo4jBootstrapper(neo4j_url, NOVEL)
    try:
        store.ping(20)
        [found] = store.diagnose().privileges
    finally:
        store.close()
    database = StoreUrl.parse("neo4j", neo4j_url).database
    printed = {
        grant.statement
        for grant in Neo4jBootstrapper(f"bolt://nowhere/{database}", NOVEL)
        .grants(wish("ROLE", Purpose.APPLY))
        .grants
    }
    statements = [f"{each.strip()};" for each in found.statement.split(";") if each.strip()]
    assert len(statements) == 2
    assert set(statements) <= printed
    assert found.purpose == "apply"


# --- Milvus: names as its protocol has them


def _of_protocol():
    """Each privilege that a call of Milvus's protocol asks for, and the kind of its object."""
    found = {}
    for message in milvus_pb2.DESCRIPTOR.message_types_by_name.values():
        options = message.GetOptions()
        is_of_roles = "Ownership" in str(options)  # which are of two kinds
        if options.HasExtension(common_pb2.privilege_ext_obj) and not is_of_roles:
            needed = options.Extensions[common_pb2.privilege_ext_obj]
            name = common_pb2.ObjectPrivilege.Name(needed.object_privilege)
            kind = common_pb2.ObjectType.Name(needed.object_type)
            found[name.removeprefix("Privilege")] = kind
    return found


OF_PROTOCOL = _of_protocol()


def test_each_privilege_of_milvus_that_is_printed_is_one_of_its_protocol():
    collection = replace(
        NOVEL.collections[0], alias="any", load=True, partition_names=("a", "b"), partitions=0
    )
    declared = replace(NOVEL, collections=(collection,))
    for purpose in Purpose:
        for grant in (
            MilvusBootstrapper("http://nowhere", declared).grants(wish("r", purpose)).grants
        ):
            if found := re.search(r"object_type='(\w+)', privilege='(\w+)'", grant.statement):
                assert OF_PROTOCOL[found[2]] == found[1], grant.statement
    known = set(common_pb2.ObjectPrivilege.keys())
    for name in re.findall(r"\b[A-Z]\w+[a-z][A-Z]\w+|\bLoad\b", milvus_errors._PRIVILEGES):
        assert f"Privilege{name}" in known, name


def test_a_refusal_of_milvus_names_the_kind_of_object_that_its_protocol_has():
    for name, kind in OF_PROTOCOL.items():
        found = refused_privilege(f"Privilege{name}: permission deny to bob")
        assert found is not None
        assert found.object_type == kind, name


#: What the role public may do.
OF_EVERYBODY = {"", "DescribeCollection", "ShowCollections", "IndexDetail"}


def _printed(declared, purpose):
    grants = MilvusBootstrapper("http://nowhere", declared).grants(wish("r", purpose)).grants
    return set(re.findall(r"privilege='(\w+)'", " ".join(each.statement for each in grants)))


@pytest.mark.milvus
@pytest.mark.parametrize("milvus_url", ["lite"], indirect=True)
def test_a_run_that_finds_its_alias_missing_needs_no_privilege_that_is_not_printed(milvus_url):
    """As after a first run that was killed between the collection and the alias.

    Milvus Lite has no users, so each call is compared with the privilege that the protocol names.
    """
    [declared] = NOVEL.collections
    name, client = declared.name, milvus_client(milvus_url)

    def run_and_watch(mode, *denied):
        sent = []
        with gateway(milvus_url, sent=sent, denies=denied) as url:
            store = MilvusBootstrapper(url, NOVEL)
            result = BootstrapOrchestrator([store], blueprint="mine", fingerprint="f").run(mode)
            store.close()
        needed = {privilege_of(call).removeprefix("Privilege") for call in sent}
        return result, needed - OF_EVERYBODY

    try:
        assert run_and_watch(Mode.APPLY)[0].ok
        client.drop_alias(declared.alias)
        for call, privilege in (("Query", "Query"), ("GetCollectionStatistics", "GetStatistics")):
            looked, needed = run_and_watch(Mode.VERIFY)
            assert looked.exit_code == 3, looked
            assert privilege in needed
            assert needed <= _printed(NOVEL, Purpose.VERIFY)
            denied, _ = run_and_watch(Mode.VERIFY, call)
            assert denied.exit_code == 5, denied
            hint = denied.stores[0].error.hint
            assert f"privilege='{privilege}', object_name='{name}'" in hint
            client.release_collection(name)
        client.create_collection(name.replace("_v1", "_v0"), dimension=8)
        _, needed = run_and_watch(Mode.PLAN)
        assert "ListAliases" in needed
        assert needed <= _printed(NOVEL, Purpose.VERIFY)
        client.drop_collection(name.replace("_v1", "_v0"))
        mended, needed = run_and_watch(Mode.APPLY)
        assert mended.ok, mended
        assert needed <= _printed(NOVEL, Purpose.APPLY)
    finally:
        client.close()
