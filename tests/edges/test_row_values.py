"""What a server says of rows and values stays out of JSON documents and termination logs."""

from __future__ import annotations

import json
import logging
import os

import neo4j
import psycopg
import pytest
from sqlalchemy import create_engine

from is_db_bootstrap import BootstrapOrchestrator, Neo4jBootstrapper, PostgreSQLBootstrapper
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreConflict, StoreError
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.observers import to_log
from is_db_bootstrap.render import report, summary
from is_db_bootstrap.results import Change
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.neo4j.errors import translated
from is_db_bootstrap.stores.neo4j.server_words import safe_words, status_words
from is_db_bootstrap.stores.postgres.errors import errors
from servers import neo4j_driver

SECRET = "anna@example"

REVISION = '''
from alembic import op

revision = "v_0002"
down_revision = "v_0001"


def upgrade():
    op.execute("""{statement}""")


def downgrade():
    pass
'''
FIRST = """
from alembic import op

revision = "v_0001"
down_revision = None


def upgrade():
    op.execute("CREATE TABLE people (id int, email text)")
    op.execute("INSERT INTO people VALUES (1, 'anna@example'), (2, 'anna@example'), (NULL, 'anna@example')")


def downgrade():
    pass
"""

#: A statement of a revision, and what is left of the server's message without values.
REFUSED = {
    "ALTER TABLE people ADD CONSTRAINT one UNIQUE (email)": "could not create unique index",
    "ALTER TABLE people ADD CONSTRAINT long CHECK (length(email) > 99)": 'check constraint "long"',
    "ALTER TABLE people ALTER id SET NOT NULL; INSERT INTO people VALUES (NULL, "
    "'anna@example')": "null values",
    "ALTER TABLE people ALTER email TYPE int USING email::int": "invalid input syntax for type integer (",
    "UPDATE people SET email = ('x' || email)::uuid::text": "invalid input syntax for type uuid (",
    "SELECT email::date FROM people": "invalid input syntax for type date (",
    "DO $$ BEGIN RAISE EXCEPTION 'no: %', (SELECT max(email) FROM people); END $$": "raised an error of its own (SQLSTATE P0001)",
    "DO $$ BEGIN RAISE 'x' USING ERRCODE = '23505', DETAIL = 'Key (email)=(anna@example)'; "
    "END $$": "raised an error of its own",
    "DO $$ BEGIN ASSERT false, (SELECT max(email) FROM people); END $$": (
        "raised an error of its own (SQLSTATE P0004)"
    ),
    (
        "DO $$ BEGIN EXECUTE 'COMMENT ON TABLE people IS ' "
        "|| (SELECT quote_ident(max(email)) FROM people); END $$"
    ): "refused: SyntaxError (SQLSTATE 42601)",
    "DO $$ BEGIN EXECUTE format('DROP TABLE %I', (SELECT max(email) FROM people)); END $$": (
        "refused: UndefinedTable (SQLSTATE 42P01)"
    ),
    "SELECT (email || ' & & x')::tsquery FROM people": "refused: SyntaxError (SQLSTATE 42601)",
    "CREATE TABLE part (id int) PARTITION BY LIST (id); INSERT INTO part SELECT 7 FROM people": 'no partition of relation "part"',
}


def outputs(engine):
    """The JSON document, termination log and log records of a run, and its text."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("row-values")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    engine._observers = (to_log(logger),)
    result = engine.run()
    logger.removeHandler(handler)
    person = report(result)
    machine = "\n".join([json.dumps(result.to_dict()), summary(result), *lines])
    return result, machine, person


@pytest.mark.parametrize("statement", REFUSED)
def test_values_of_rows_are_shown_to_a_person_only(postgres_url, tmp_path, statement):
    (tmp_path / "v_0001.py").write_text(FIRST)
    (tmp_path / "v_0002.py").write_text(REVISION.format(statement=statement))
    blueprint = Blueprint("values", "for tests", migrations=tmp_path)
    engine = BootstrapOrchestrator([PostgreSQLBootstrapper(postgres_url, blueprint)])
    result, machine, text = outputs(engine)
    assert result.exit_code == 1, machine
    assert SECRET not in machine
    assert result.stores[0].error.object == "v_0002"
    assert REFUSED[statement] in result.stores[0].error.message
    shown = SECRET in text
    assert shown or "null values" in text or "(id) = (7)" in text or "check constraint" in text
    assert "(7)" not in machine


#: What a revision may raise while it has a row in its hands, and what is told of it everywhere.
RAISED = {
    "int(email)": "ValueError",
    "{}[email]": "KeyError",
    "raise LookupError(f'bad row {email}')": "LookupError",
    "raise ModuleNotFoundError(f'no {email}')": "ModuleNotFoundError",
    "raise NameError(email)": "NameError",
    "raise SystemExit(f'bad row {email}')": "SystemExit",
    "raise ExceptionGroup(email, [ValueError(email)])": "ExceptionGroup",
    "eval(email)": "NameError",
    "importlib.import_module(email)": "ModuleNotFoundError",
    "sqlite3.connect(':memory:').execute(email)": "OperationalError",
    "sqlite().connect().exec_driver_sql(email)": "OperationalError",
    "op.get_bind().scalar(sa.select(sa.literal(email, sa.Enum('a'))))": "LookupError",
    (
        "try:\n"
        "        op.execute('CREATE UNIQUE INDEX u ON people (email)')\n"
        "    except Exception as exc:\n"
        "        raise RuntimeError(f'cannot index: {exc}')"
    ): "RuntimeError",
}
RAISING = """
import importlib
import sqlite3

import psycopg
import sqlalchemy as sa
from alembic import op

revision = "v_0002"
down_revision = "v_0001"


def sqlite():
    return sa.create_engine("sqlite://", connect_args={"check_same_thread": False})


def upgrade():
    email = op.get_bind().scalar(sa.text("SELECT max(email) FROM people"))
    {code}


def downgrade():
    pass
"""


def test_what_a_revision_raises_is_told_by_class_file_and_line_and_its_text_to_a_person(
    postgres_url, tmp_path
):
    folder = tmp_path / "chain"
    folder.mkdir()
    (folder / "v_0001.py").write_text(FIRST)
    second = folder / "v_0002.py"
    blueprint = Blueprint("values", "for tests", migrations=folder)
    for code, kind in RAISED.items():
        second.write_text(RAISING.replace("{code}", code))
        engine = BootstrapOrchestrator([PostgreSQLBootstrapper(postgres_url, blueprint)])
        result, machine, person = outputs(engine)
        assert result.exit_code == 1, person
        told = result.stores[0].error.message
        assert told.startswith(f"Revision v_0002 failed in its own code: {kind} ({second}, line ")
        assert "anna" not in machine, code
        assert "anna" in person, code


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nosuchmodule", "ModuleNotFoundError: No module named 'nosuchmodule' ("),
        ("colour", "NameError: name 'colour' is not defined ("),
        ("raise SystemExit(3)", "SystemExit: 3 ("),
        ("os._exit(3)", "SystemExit: os._exit(3) ("),
        ("raise ValueError", "ValueError ("),
        ("exec(compile('1 +', FILE, 'exec'))", "SyntaxError: invalid syntax ("),
    ],
)
def test_what_python_says_of_the_code_itself_is_told_everywhere(tmp_path, code, said):
    file = str(tmp_path / "code.py")
    compiled = compile(code, file, "exec")
    with pytest.raises(GuestFailed) as caught, strict_guest():
        exec(compiled, {"os": os, "FILE": file})
    assert caught.value.general.startswith(said)
    assert caught.value.detail == ""


#: Statements that PostgreSQL refuses while it has a row in its hands.
REFUSED_BY_POSTGRES = {
    "SELECT email::regclass FROM people": "relation … does not exist",
    "SELECT email::regtype FROM people": "type … does not exist",
    "SELECT email::regrole FROM people": "role … does not exist",
    "SELECT email::regnamespace FROM people": "schema … does not exist",
    "SELECT (email || '()')::regprocedure FROM people": "UndefinedFunction",
    "SELECT email::regproc FROM people": "UndefinedFunction",
    "SELECT email::regconfig FROM people": "text search configuration … does not exist",
    "SELECT email::int FROM people": "invalid input syntax for type integer",
    "SELECT now() AT TIME ZONE email FROM people": "time zone … not recognized",
    "SELECT date_trunc(email, now()) FROM people": "unit … not recognized for type",
    "SELECT set_config(email, '1', false) FROM people": "unrecognized configuration parameter …",
    "SELECT pg_has_role(email, 'USAGE') FROM people": "role … does not exist",
    "SELECT nextval(email) FROM people": "relation … does not exist",
    "SELECT convert_to(email, email) FROM people": "invalid destination encoding name …",
    "SELECT pg_read_file(email) FROM people": "UndefinedFile",
    "SELECT lo_import(email) FROM people": "UndefinedFile",
    "SELECT query_to_xml('SELECT ' || quote_ident(email), true, true, '') FROM people": "column …",
    "SELECT email FROM people ORDER BY (email || ' & &')::tsquery": "SyntaxError",
    "SELECT ('$.' || email || '@')::jsonpath FROM people": "SyntaxError",
    "SELECT has_table_privilege(email, 'SELECT') FROM people": "relation … does not exist",
    "SELECT pg_terminate_backend(email::int) FROM people": "invalid input syntax",
}
#: Statements with a fault of their own, of which everything is told.
FAULTS = {
    "SELECT * FROM nosuch": 'relation "nosuch" does not exist',
    "DROP TABLE Nosuch": 'table "nosuch" does not exist',
    "ALTER TABLE people ADD email text": 'column "email" of relation "people" already exists',
    "CREATE TEMP TABLE people (id int)": 'relation "people" already exists',
    "SELECT colour FROM people": 'column "colour" does not exist',
    "SELECT colour(1)": "function colour(integer) does not exist",
    "DROP FUNCTION colour(int)": "function colour(integer) does not exist",
    "SELEC 1": 'syntax error at or near "SELEC"',
    "DROP TABLE parents": "cannot drop table parents because other objects depend on it",
    "INSERT INTO children VALUES (7)": 'violates foreign key constraint "children_id_fkey"',
    "SELECT (SELECT id FROM people)": "more than one row returned by a subquery",
    "GRANT nobody_here TO postgres": 'role "nobody_here" does not exist',
}


def test_no_message_of_postgresql_shows_a_value_of_a_row(postgres_url):
    server = postgres_url.rpartition("/")[0] + "/postgres"
    engine = create_engine(server.replace("postgresql://", "postgresql+psycopg://"))
    told, leaked = {}, []
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE people (id int, email text)")
        connection.exec_driver_sql("INSERT INTO people VALUES (1, 'annaexample'), (2, 'x')")
        connection.exec_driver_sql("CREATE TEMP TABLE parents (id int PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TEMP TABLE children (id int REFERENCES parents)")
        for statement in [*REFUSED_BY_POSTGRES, *FAULTS]:
            change = Change("v_0002", "revision")
            with pytest.raises(StoreError) as caught, errors("there", change=change):
                connection.exec_driver_sql(statement).fetchall()
            error = caught.value
            told[statement] = error.message
            if "annaexample" in f"{error.message} {error.hint} {error.report()}":
                leaked.append(statement)
    engine.dispose()
    assert leaked == []
    expected = REFUSED_BY_POSTGRES | FAULTS
    wrong = {each: told[each] for each, words in expected.items() if words not in told[each]}
    assert wrong == {}


def test_a_change_that_neo4j_refuses_names_the_constraint_and_no_value(farm, neo4j_url, tmp_path):
    server = farm.shared("neo4j")
    with neo4j_driver(server) as driver:
        driver.execute_query("CREATE CONSTRAINT one FOR (n:P) REQUIRE n.email IS UNIQUE")
        driver.execute_query("CREATE (:P {email: $e})", e=SECRET)
        driver.execute_query("UNWIND range(1, 3) AS i CREATE (:Q {email: $e})", e=SECRET)
    files = {
        "V1__a.cypher": f"CREATE (:P {{email: '{SECRET}'}});",
        "V2__b.cypher": "MATCH (n:P) RETURN n.email + 1 = date(n.email) AS x;",
        "V3__c.cypher": "CREATE CONSTRAINT q IF NOT EXISTS FOR (n:Q) REQUIRE n.email IS UNIQUE;",
    }
    seen = []
    for name, content in files.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name.replace(name[1], "1", 1)).write_text(content)
        blueprint = Blueprint("values", "for tests", cypher=folder)
        result, machine, text = outputs(
            BootstrapOrchestrator([Neo4jBootstrapper(neo4j_url, blueprint)])
        )
        assert result.exit_code in {1, 6}, machine
        assert SECRET not in machine, machine
        assert SECRET in text or "parsed to a Date" in text, text
        seen.append(result.stores[0].error.message)
    assert "`email` = …" in seen[0]
    assert "share email" in seen[2]


#: Statements that a server refuses while it has a row in its hands, and what is told of that
#: everywhere.
REFUSED_BY_NEO4J = {
    "MATCH (n:P) RETURN date(n.email)": "invalid date, time, or datetime format",
    "MATCH (n:P) RETURN duration(n.email)": "SyntaxError",
    "MATCH (n:P) RETURN localtime(n.email)": "SyntaxError",
    "MATCH (n:P) RETURN datetime({timezone: n.email})": "SyntaxError",
    "MATCH (n:P) RETURN date.truncate(n.email, date())": "ExecutionFailed",
    "MATCH (n:P) RETURN duration.between(n.email, date())": "ProcedureCallFailed",
    "MATCH (n:P) RETURN toInteger(n.tags)": "TypeError",
    "MATCH (n:P) RETURN n.email.x": "invalid value type",
    "MATCH (n:P) WHERE n.email RETURN n": "invalid value type",
    "MATCH (n:P) SET n.m = {a: n.email}": "invalid value type",
    "MATCH (n:P) RETURN point({x: n.email, y: 1})": "ArgumentError",
    "MATCH (n:P) RETURN n.email =~ ('[' + n.email)": "SemanticError",
    "MATCH (n:P) LOAD CSV FROM n.email AS row RETURN row": "ExternalResourceFailed",
    "MATCH (n:P) CALL db.awaitIndex(n.email, 1)": "IndexNotFound",
    "MATCH (n:P) CALL db.index.fulltext.queryNodes(n.email, 'x') YIELD score RETURN score": (
        "Procedure"
    ),
    "MATCH (n:P) SET n:$(n.email + '\\u0000')": "TokenNameError",
    "CREATE (:P {email: 'anna' + '@example'})": "with label `P` and property `email` = …",
    "CREATE CONSTRAINT q FOR (n:Q) REQUIRE n.email IS UNIQUE": (
        "Unable to create Constraint( name='q'"
    ),
}


@pytest.mark.parametrize("neo4j_url", ["5.26", "2026.08"], indirect=True)
def test_no_message_of_neo4j_shows_a_value_of_a_row(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    address, auth = f"bolt://{url.hosts}", (url.username, url.password)
    told = {}
    with (
        neo4j.GraphDatabase.driver(address, auth=auth, notifications_min_severity="OFF") as driver,
        driver.session() as session,
    ):
        session.run("CREATE CONSTRAINT one FOR (n:P) REQUIRE n.email IS UNIQUE").consume()
        session.run("CREATE (:P {email: $e, tags: [$e]})", e=SECRET).consume()
        session.run("UNWIND [1, 2] AS i CREATE (:Q {email: $e})", e=SECRET).consume()
        for statement in REFUSED_BY_NEO4J:
            with pytest.raises(neo4j.exceptions.Neo4jError) as caught:
                session.run(statement).consume()
            assert SECRET in caught.value.message, statement
            for change in (Change("V1__a.cypher", "cypher"), None):
                error = translated(caught.value, address, "V1__a.cypher, statement 1", change)
                assert SECRET in error.detail, statement
                assert SECRET not in f"{error.message} {error.hint} {error.report()}"
            told[statement] = error.message
    lacking = [s for s, words in REFUSED_BY_NEO4J.items() if words not in told[s]]
    assert not lacking, told


@pytest.mark.parametrize(
    ("code", "text", "left"),
    [
        (
            "ClientError.Schema.ConstraintValidationFailed",
            "Node(1) already exists with label `P` and property `email` = 'a = b, c'",
            "Node(1) already exists with label `P` and property `email` = …",
        ),
        (
            "ClientError.Schema.ConstraintValidationFailed",
            "Node(7) already exists with label `P` and properties `a` = 1, `b` = 'x'",
            "Node(7) already exists with label `P` and properties `a` = …",
        ),
        ("ClientError.Schema.ConstraintValidationFailed", "Node(1) is 'anna'", ""),
        ("ClientError.Statement.SyntaxError", 'Text cannot be parsed to a Date\n"anna"\n ^', ""),
        (
            "ClientError.Statement.SyntaxError",
            'Variable `x` not defined (line 1, column 8 (offset: 7))\n"RETURN x"\n        ^',
            "Variable `x` not defined (line 1, column 8 (offset: 7))",
        ),
        ("ClientError.Statement.ArithmeticError", "/ by zero", "/ by zero"),
        ("ClientError.Statement.ArithmeticError", "7 and anna do not add up", ""),
        ("ClientError.Future.Unknown", "anna", ""),
    ],
)
def test_of_a_message_of_neo4j_only_what_is_known_to_have_no_value_is_told(code, text, left):
    assert safe_words(code, text) == left


def test_of_a_gql_status_the_words_of_the_standard_are_told():
    assert (
        status_words("error: data exception - invalid value type. The value anna")
        == "data exception - invalid value type"
    )
    assert status_words("error: Anna") == ""


def test_a_foreign_lock_and_record_in_redis_are_told_without_their_values(redis_url):
    import redis

    from is_db_bootstrap import RedisBootstrapper
    from is_db_bootstrap.blueprint.load import load_blueprint

    with redis.Redis.from_url(redis_url) as client:
        client.set("is-db-bootstrap:lock:novel_genesis", SECRET)
        store = RedisBootstrapper(redis_url, load_blueprint("novel_genesis"))
        assert SECRET not in store.status().lock.who
        client.set("is-db-bootstrap:conventions:novel_genesis", json.dumps([SECRET]))
    result, machine, _ = outputs(BootstrapOrchestrator([store]))
    assert result.exit_code == 6
    assert SECRET not in machine


def test_an_address_that_psycopg_refuses_is_told_without_its_password():
    word = "hunter2-hunter2"
    url = StoreUrl(
        "postgres", "postgresql", "127.0.0.1", "db", "u", word, query=(("nosuch", word),)
    )
    from is_db_bootstrap.stores.postgres.connection import connect

    with pytest.raises(ConfigurationError) as caught:
        connect(url, 2.0)
    assert word not in f"{caught.value} {caught.value.__cause__}"


def test_a_value_that_psycopg_cannot_read_is_kept_apart_too(postgres_url):
    server = postgres_url.rpartition("/")[0] + "/postgres"
    with (
        pytest.raises(StoreConflict) as caught,
        psycopg.connect(server, autocommit=True) as connection,
        errors("there", "a table"),
    ):
        connection.execute("SELECT date '12345-01-01'").fetchone()
    assert "12345" not in caught.value.message
    assert "12345" in caught.value.detail


def test_a_statement_outside_of_a_change_keeps_values_apart_too(postgres_url):
    server = postgres_url.rpartition("/")[0] + "/postgres"
    with (
        pytest.raises(StoreConflict) as caught,
        psycopg.connect(server, autocommit=True) as connection,
        errors("there", "a table"),
    ):
        connection.execute(
            "CREATE TEMP TABLE t (email text UNIQUE); INSERT INTO t VALUES ('a@x'), ('a@x')"
        )
    assert "a@x" not in caught.value.message
    assert "a@x" in caught.value.detail
    assert "a@x" in str(caught.value)
