"""Every block of the how-tos and of the page of declarations is run by a test, and `PLACES` says by
which.

A block that has no place there fails `test_every_block_has_its_place`. What is run here is typed as
a reader would, with the installed command.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import textwrap
from dataclasses import replace
from xml.etree import ElementTree as ET

import neo4j
import psycopg
import pytest
import redis
import yaml

import tls_servers
from certificates import Certificates
from commands import answered
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.settings.sources import plain_variables
from pages import ROOT, Reader, blocks, commands
from servers import PASSWORD, drop_database, milvus_client

DECLARATIONS = "docs/reference/declarations.md"
HERE = "packaging/test_page_examples.py"
TEMPLATES = "packaging/test_templates.py"
PLUGIN = "edges/test_plugin.py"
KUBERNETES = "packaging/kubernetes/test_kubernetes.py"
TEAM = "stores/test_team_environment.py"
BASELINE = "stores/test_baseline.py"
WHEEL = "packaging/test_packaging.py"
MIGRATE = f"{WHEEL}::test_the_examples_of_the_migrate_page_run_where_nothing_else_is_installed"
#: Parsed to the end by the command itself, and not executed.
PARSED = "packaging/test_docs.py::test_every_documented_call_is_one_that_the_command_takes"
COMPILED = "packaging/test_docs.py::test_every_python_example_compiles_and_its_imports_exist"
FOLLOWED = (
    "packaging/test_change_a_blueprint.py::"
    "test_the_page_leads_to_a_second_release_that_loses_nothing"
)
LINES = f"{TEAM}::test_the_lines_of_the_page_lead_to_a_first_apply"
TARGETS = f"{TEAM}::test_each_target_of_many_is_reached_by_its_own_address"
MODEL = f"{HERE}::test_the_page_of_a_new_model_is_followed"
AUDIT = f"{HERE}::test_the_page_of_keys_is_followed"
UNLOCKED = f"{HERE}::test_the_page_of_a_lock_is_followed"
EDITED = f"{HERE}::test_the_page_of_an_edited_revision_is_followed"
RIGHTS = "stores/test_redis_rights.py::test_the_documented_rights_are_enough_for_every_command"
LOGS = f"{HERE}::test_the_records_and_the_result_of_the_page_are_read"
DEPLOY = (
    "acceptance/test_before_you_deploy.py::"
    "test_what_the_page_backs_up_it_restores_and_the_next_run_recognises_it"
)
ALEMBIC = f"{HERE}::test_the_lines_of_stock_alembic_are_typed"
CLI = "stores/test_neo4j_migrations_cli.py"
FLEET = "edges/test_fleet.py::test_the_documented_lines_run"
SUMMARY = f"{KUBERNETES}::test_a_wrong_password_is_told_by_the_pod_and_fails_the_job_at_once"
REPLICAS = f"{KUBERNETES}::test_three_replicas_start_at_once_one_applies_and_all_become_ready"
STANDBY = "stores/test_standby.py::test_the_lines_of_standbys_are_typed"
ADOPT = "stores/test_adoption_postgres.py::test_the_lines_of_the_page_are_typed"
ADOPT_NEO4J = "stores/test_adoption_neo4j.py::test_the_line_of_the_page_is_typed"
AFTER = "acceptance/test_first_steps.py::test_the_readme_and_the_page_after_it_are_followed"
#: The kustomization of the page, named by what it runs.
NAMED = f"{KUBERNETES}::test_what_changes_runs_in_a_job_of_another_name"
LOST = f"{HERE}::test_the_page_of_a_lost_store_is_followed"
GRANTS = f"{HERE}::test_the_lines_of_grants_are_typed"
#: The test of each block, in the order of the page.
PLACES = {
    "docs/how-to/adopt.md": [ADOPT, ADOPT, ADOPT_NEO4J],
    DECLARATIONS: [
        f"{HERE}::test_the_collection_of_the_page_is_applied",
        f"{HERE}::test_the_server_takes_one_of_the_two_files",
        f"{HERE}::test_the_server_takes_one_of_the_two_files",
        f"{HERE}::test_a_file_that_is_complete_is_recorded_by_the_statement_of_the_page",
    ],
    "docs/how-to/after-make-run.md": [AFTER] * 7,
    "docs/how-to/before-you-deploy.md": [DEPLOY] * 9,
    "docs/how-to/change-a-blueprint.md": [FOLLOWED] * 18,
    "docs/how-to/change-data-capture.md": [f"{HERE}::test_the_publication_has_the_outbox"],
    "docs/how-to/ci.md": [
        f"{HERE}::test_the_steps_of_ci_are_typed",
        f"{HERE}::test_the_steps_of_ci_are_typed",
        f"{HERE}::test_the_documented_pipelines_use_what_there_is",
        f"{HERE}::test_the_documented_comment_uses_what_the_action_has",
        f"{HERE}::test_the_report_of_tests_is_written",
        f"{HERE}::test_the_documented_pipelines_use_what_there_is",
        f"{HERE}::test_the_documented_pipelines_use_what_there_is",
    ],
    # Images cannot be pulled where this project is built.
    "docs/how-to/compose.md": [
        f"{TEMPLATES}::test_secrets_are_made_once_and_closed_to_others",
        f"{HERE}::test_the_documented_service_names_what_the_compose_file_has",
        f"{TEMPLATES}::test_a_compose_implementation_reads_the_files",
    ],
    "docs/how-to/credentials.md": [f"{HERE}::test_the_lines_of_credentials_are_typed"] * 2,
    "docs/how-to/edited-revision.md": [EDITED, EDITED],
    "docs/how-to/existing-project.md": [
        f"{WHEEL}::test_the_examples_of_the_migrate_page_run_where_nothing_else_is_installed",
        LINES,
        LINES,
        LINES,
        f"{TEAM}::test_without_an_offline_branch_the_settings_name_the_version_table",
        f"{TEAM}::test_an_env_py_that_asks_flask_for_its_application_gets_the_lines_to_write",
        f"{TEAM}::test_an_env_py_that_asks_flask_for_its_application_gets_the_lines_to_write",
        f"{BASELINE}::test_an_empty_database_is_filled_by_a_function_and_goes_on_from_there",
        f"{BASELINE}::test_a_dump_with_rows_fills_an_empty_database",
        f"{BASELINE}::test_a_dump_with_rows_fills_an_empty_database",
        TARGETS,
        TARGETS,
        "stores/test_team_revision.py::test_it_is_what_stock_alembic_writes",
        "stores/test_team_revision.py::test_it_is_what_stock_alembic_writes",
    ],
    "docs/how-to/doctor.md": [f"{HERE}::test_the_lines_of_doctor_are_typed"] * 5,
    "docs/how-to/fleet.md": [FLEET, FLEET, f"{HERE}::test_tenants_of_a_table_are_piped"],
    "docs/how-to/from-running-stores.md": [
        f"{HERE}::test_the_lines_of_running_stores_are_typed",
        f"{HERE}::test_the_lines_of_running_stores_are_typed",
    ],
    "docs/how-to/grants.md": [GRANTS] * 4,
    "docs/how-to/kubernetes.md": [NAMED, REPLICAS, REPLICAS, SUMMARY, SUMMARY, SUMMARY, REPLICAS],
    "docs/how-to/logs.md": [LOGS] * 3,
    "docs/how-to/migrate.md": [
        MIGRATE,
        MIGRATE,
        MIGRATE,
        f"{HERE}::test_the_lines_of_cypher_files_are_typed",
        MIGRATE,
        MIGRATE,
        f"{HERE}::test_a_mark_is_taken_away_by_the_statement_of_the_page",
    ],
    "docs/how-to/new-embedding-model.md": [MODEL] * 5,
    "docs/how-to/read-a-plan.md": [f"{HERE}::test_the_plan_of_the_page_is_printed"] * 7,
    "docs/how-to/redis-keys.md": [AUDIT, AUDIT, RIGHTS, RIGHTS],
    "docs/how-to/repair.md": [f"{HERE}::test_the_page_of_repairs_is_followed"] * 3,
    "docs/how-to/standbys.md": [
        STANDBY,
        f"{STANDBY}_on_a_standby",
        f"{STANDBY}_on_a_standby",
        "stores/test_standby.py::test_two_primaries_at_once_do_not_share_a_run",
        "stores/test_redis_failover.py::test_the_line_of_sentinels_is_typed",
        "stores/test_neo4j_cluster.py::test_the_line_of_routing_is_typed",
    ],
    "docs/how-to/stock-tools.md": [
        ALEMBIC,
        "edges/test_own_blueprint.py::test_stock_alembic_works_on_a_folder",
        f"{CLI}::test_it_lists_and_validates_our_history_of_novel_genesis",
    ],
    "docs/how-to/test.md": [
        f"{WHEEL}::test_the_examples_of_the_migrate_page_run_where_nothing_else_is_installed",
        f"{PLUGIN}::test_the_documented_test_has_all_stores",
        f"{PLUGIN}::test_the_documented_test_has_all_stores",
        f"{PLUGIN}::test_the_documented_unittest_runs",
        f"{PLUGIN}::test_the_documented_session_of_sqlalchemy_is_on_the_tests_database",
        COMPILED,  # Django is not installed here
    ],
    "docs/how-to/tls.md": [
        f"{HERE}::test_the_trial_of_tls_is_typed",
        f"{HERE}::test_the_trial_of_tls_is_typed",
        f"{HERE}::test_the_settings_of_tls_are_read_from_the_file_of_the_page",
        f"{HERE}::test_the_mount_of_a_certificate_has_a_mode_that_is_taken",
    ],
    "docs/how-to/unlock.md": [UNLOCKED] * 3,
    "docs/how-to/when-a-run-fails.md": [PARSED],
    "docs/how-to/when-a-store-was-lost.md": [LOST] * 4,
}
pytestmark = pytest.mark.timeout(900)
PAGES = [
    DECLARATIONS,
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/how-to/*.md"))),
]
ON_POSTGRES = pytest.mark.postgres
ON_NEO4J = pytest.mark.neo4j
ON_MILVUS = pytest.mark.milvus
ON_REDIS = pytest.mark.redis


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_its_place(page):
    found = [f"{block.kind} in {block.section}" for block in blocks(page)]
    places = PLACES.get(page, [])
    assert len(places) == len(found), f"{page} has {found}"
    for place in places:
        file, _, name = place.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text, f"{place} is not there"


def block(page, number):
    return list(blocks(page))[number]


@pytest.fixture
def reader(tmp_path):
    """`reader(POSTGRES_URL=…)`: somebody in an empty folder."""
    return lambda **addresses: Reader(tmp_path, addresses)


@pytest.fixture
def graph(neo4j_url):
    url = StoreUrl.parse("neo4j", neo4j_url)
    with neo4j.GraphDatabase.driver(
        f"bolt://{url.hosts}", auth=(url.username, url.password), notifications_min_severity="OFF"
    ) as driver:
        yield lambda text: [list(row.values()) for row in driver.execute_query(text).records]


def typed(reader, command, expected=0):
    done = reader.type(command)
    assert done.returncode == expected, f"{command}: {done.stdout}{done.stderr}"
    return done


# --- declarations


@ON_MILVUS
def test_the_collection_of_the_page_is_applied(reader, milvus_url):
    one = reader(MILVUS_URL=milvus_url)
    (one.folder / "blueprint.py").write_text(block(DECLARATIONS, 0).text)
    for command in ("check", "apply", "verify --strict"):
        typed(one, f"is-db-bootstrap {command} -b .")


@ON_NEO4J
def test_the_server_takes_one_of_the_two_files(reader, neo4j_url, graph):
    one = reader(NEO4J_URL=neo4j_url)
    (one.folder / "cypher").mkdir()
    (one.folder / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\nBLUEPRINT = Blueprint('cities', 'Cities.')\n"
    )
    for number in (1, 2):
        written = one.write(block(DECLARATIONS, number))
        written.rename(one.folder / "cypher" / written.name)
    for command in ("check", "apply", "verify --strict"):
        typed(one, f"is-db-bootstrap {command} -b .")
    assert graph("SHOW CONSTRAINTS YIELD name, type WHERE name = 'city_id' RETURN type") == [
        ["UNIQUENESS"]
    ]


@ON_NEO4J
def test_a_file_that_is_complete_is_recorded_by_the_statement_of_the_page(reader, neo4j_url, graph):
    one = reader(NEO4J_URL=neo4j_url)
    (one.folder / "cypher").mkdir()
    (one.folder / "blueprint.py").write_text(
        "from is_db_bootstrap.blueprint import Blueprint\nBLUEPRINT = Blueprint('b', 'Numbers.')\n"
    )
    (one.folder / "cypher" / "V2__b.cypher").write_text(
        "UNWIND [2, 1, 0] AS n CALL (n) { CREATE (:N {n: 2 / n}) } IN TRANSACTIONS OF 1 ROW;\n"
    )
    typed(one, "is-db-bootstrap apply -b .", expected=1)
    conflict = typed(one, "is-db-bootstrap apply -b .", expected=6)
    assert "is-db-bootstrap apply --retry V2__b.cypher" in conflict.stdout + conflict.stderr
    graph(block(DECLARATIONS, 3).text)
    typed(one, "is-db-bootstrap apply -b .")
    assert graph("MATCH (n:N) RETURN n.n ORDER BY n.n") == [[1], [2]]


@ON_NEO4J
def test_the_lines_of_cypher_files_are_typed(reader, neo4j_url):
    one = reader(NEO4J_URL=neo4j_url)
    typed(one, "is-db-bootstrap apply -b novel_genesis --only neo4j")
    for line, remark in commands(block("docs/how-to/migrate.md", 3)):
        done = typed(one, f"{line} --yes" if "stamp" in line else line)
        if "current" in line:
            assert done.stdout.strip() == remark


# --- PostgreSQL


@ON_POSTGRES
def test_the_publication_has_the_outbox(migrated):
    with psycopg.connect(migrated("novel_genesis"), autocommit=True) as connection:
        connection.execute(block("docs/how-to/change-data-capture.md", 0).text)
        found = connection.execute("SELECT tablename FROM pg_publication_tables").fetchall()
    assert found == [("event_outbox",)]


@ON_POSTGRES
def test_a_mark_is_taken_away_by_the_statement_of_the_page(migrated):
    with psycopg.connect(migrated("context_service"), autocommit=True) as connection:
        connection.execute(block("docs/how-to/migrate.md", 6).text)
        mark = connection.execute("SELECT obj_description('alembic_version'::regclass)").fetchone()
    assert mark == (None,)


@ON_POSTGRES
def test_the_records_and_the_result_of_the_page_are_read(reader, postgres_url):
    page = "docs/how-to/logs.md"
    one = reader(POSTGRES_URL=postgres_url)
    [(apply, _)] = commands(block(page, 0))
    records = [json.loads(line) for line in typed(one, apply).stderr.splitlines()]
    shown = json.loads(block(page, 1).text)
    changes = [record for record in records if record["event"] == "change"]
    alike = [each for each in changes if each["change"]["kind"] == shown["change"]["kind"]]
    assert set(alike[0]) == set(shown)
    assert set(alike[0]["change"]) >= set(shown["change"])
    assert json.loads((one.folder / "result.json").read_text())["outcome"] == "changed"
    one.follow(block(page, 2))


@ON_POSTGRES
@ON_REDIS
def test_the_page_of_a_lost_store_is_followed(reader, farm, postgres_url, redis_url):
    one = reader(POSTGRES_URL=postgres_url, REDIS_URL=redis_url)
    typed(one, "is-db-bootstrap apply -b helpdesk")
    server, name = farm.shared("postgres"), postgres_url.rpartition("/")[2]
    drop_database(server, name)
    lost, told, ways_out, forgetting = blocks("docs/how-to/when-a-store-was-lost.md")
    for each in (lost, told, ways_out):
        one.follow(each)
    typed(one, "is-db-bootstrap plan -b helpdesk --exit-code")
    for line, _ in commands(forgetting):
        typed(one, line)
    drop_database(server, name)
    typed(one, "is-db-bootstrap apply -b helpdesk")


@ON_POSTGRES
def test_the_lines_of_credentials_are_typed(reader, postgres_url):
    page = "docs/how-to/credentials.md"
    one = reader()
    url = StoreUrl.parse("postgres", postgres_url)
    own = {"postgresql://app@db.example/novel": replace(url, password="").reveal()}
    secret = {"/run/secrets/postgres": str(one.folder / "postgres")}
    [(address, _), (password_file, _)] = commands(block(page, 0))
    [(install, _)] = commands(block(page, 1))
    typed(one, f"printf '%s\\n' '{PASSWORD}' | {replaced(install, secret)}")
    assert stat.S_IMODE((one.folder / "postgres").stat().st_mode) == 0o600
    lines = f"{replaced(address, own)}; {replaced(password_file, secret)}"
    typed(one, f"{lines}; is-db-bootstrap apply -b context_service --only postgres")


@ON_REDIS
def test_the_lines_of_grants_are_typed(reader, farm, postgres_url, redis_url):
    page = "docs/how-to/grants.md"
    server, _, name = postgres_url.rpartition("/")
    one = reader(POSTGRES_URL=postgres_url, REDIS_URL=redis_url)
    redis_server = StoreUrl.parse("redis", redis_url)
    own = {
        '"postgresql://postgres@db.example/postgres"': f"'{server}/postgres'",
        "-h cache.example": f"-h {redis_server.host} -p {redis_server.port(6379)}",
    }
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        session.execute(f'CREATE DATABASE "{name}"')
        session.execute("CREATE ROLE clerk LOGIN")
    roles = ("helpdesk_apply", "helpdesk_verify", "clerk")
    word = "a-word-of-tests"
    users = {
        "POSTGRES_URL": f"postgresql://{{}}:{word}@{server.rpartition('@')[2]}/{name}",
        "REDIS_URL": f"redis://{{}}:{word}@{redis_server.hosts}/0",
    }
    try:
        set_password(server, "clerk", word)
        clerk = reader(POSTGRES_URL=users["POSTGRES_URL"].format("clerk"))
        refused = typed(clerk, "is-db-bootstrap apply -b helpdesk --only postgres", 5)
        told = [line.strip() for line in refused.stdout.splitlines()]
        assert set(block(page, 3).text.splitlines()) <= set(told)
        for number in (0, 1):
            type_lines(one, block(page, number), own)
        with redis.Redis.from_url(redis_url) as client:
            client.execute_command("ACL", "SETUSER", roles[0], f">{word}")
        set_password(server, roles[0], word)
        applier = reader(**{key: value.format(roles[0]) for key, value in users.items()})
        typed(applier, "is-db-bootstrap apply -b helpdesk")
        type_lines(one, block(page, 2), own)
        set_password(server, roles[1], word)
        verifier = reader(**{key: value.format(roles[1]) for key, value in users.items()})
        typed(verifier, "is-db-bootstrap verify -b helpdesk --only postgres")
    finally:
        drop_database(farm.shared("postgres"), name)
        with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
            for role in roles:
                session.execute(f"DROP ROLE IF EXISTS {role}")
        with redis.Redis.from_url(redis_url) as client:
            client.execute_command("ACL", "DELUSER", roles[0])


def type_lines(reader, found, own):
    """Type each line of a block, with the texts of `own` that it has."""
    for line, _ in commands(found):
        typed(reader, replaced(line, {key: own[key] for key in own if key in line}))


def set_password(server, role, word):
    with psycopg.connect(f"{server}/postgres", autocommit=True) as session:
        session.execute(f"ALTER ROLE {role} PASSWORD '{word}'")


@ON_POSTGRES
def test_the_lines_of_doctor_are_typed(reader, postgres_url):
    one = reader(POSTGRES_URL=postgres_url)
    page = "docs/how-to/doctor.md"
    lines = [line for number in (0, 2, 3, 4) for line, _ in commands(block(page, number))]
    for line in lines:
        typed(one, line)
    text = (one.folder / "report.md").read_text()
    assert text.startswith("# is-db-bootstrap doctor")
    assert "## postgres: ready" in text
    shown = block(page, 1).text.splitlines()
    said = re.sub("postgres: (name|port)[^:]*: (yes|no), ", "", " ".join(shown))
    assert "refuses connections, so nothing listens there. Trying again." in said


class TrialCertificates(Certificates):
    """Those that the page makes: `ca`, `server` and `client`."""

    def pem(self, name):
        return super().pem("ca" if name == "ours" else name)


@ON_REDIS
def test_the_trial_of_tls_is_typed(reader, farm):
    page = "docs/how-to/tls.md"
    one = reader()
    for line, _ in commands(block(page, 0)):
        typed(one, line)
    server = tls_servers.start(
        "redis", farm.folder / "tls-of-the-page", TrialCertificates(one.folder), password=""
    )
    own = {"rediss://localhost:6379/0": server.address}
    try:
        lines = "; ".join(line for line, _ in commands(block(page, 1)))
        typed(one, replaced(lines, own))
    finally:
        server.kill()


def test_the_settings_of_tls_are_read_from_the_file_of_the_page(tmp_path):
    certificates = Certificates.make(tmp_path)
    own = {
        "/etc/tls/ca.crt": certificates.pem("ours"),
        "/etc/tls/tls.crt": certificates.pem("client"),
        "/etc/tls/tls.key": certificates.key("client"),
    }
    file = tmp_path / "is-db-bootstrap.toml"
    file.write_text(replaced(block("docs/how-to/tls.md", 2).text, own))
    found = Settings.load(Blueprint("small", ""), environ={}, file=file).stores["postgres"]
    assert (found.ca_file, found.certificate) == (certificates.pem("ours"), certificates.client())


def test_the_mount_of_a_certificate_has_a_mode_that_is_taken(tmp_path):
    spec = yaml.safe_load(block("docs/how-to/tls.md", 3).text)["spec"]
    [container], [volume] = spec["containers"], spec["volumes"]
    assert {each["name"] for each in container["env"]} <= set(plain_variables())
    folder = container["volumeMounts"][0]["mountPath"]
    assert all(each["value"].startswith(f"{folder}/") for each in container["env"])
    # The rule for files of root: nothing for others, and no writing for the group.
    assert volume["secret"]["defaultMode"] & 0o037 == 0


@ON_POSTGRES
def test_the_plan_of_the_page_is_printed(reader, postgres_url):
    page = "docs/how-to/read-a-plan.md"
    scratch = f"{postgres_url.rpartition('/')[0]}/postgres"
    one = reader(POSTGRES_URL=postgres_url, SCRATCH_URL=scratch)
    (one.folder / "migrations").mkdir()
    for number in range(3):
        one.follow(block(page, number))
    for number in (3, 5):
        [(line, _)] = commands(block(page, number))
        done = typed(one, line)
        assert textwrap.indent(block(page, number + 1).text, "  ") in done.stdout
        assert PASSWORD not in done.stdout + done.stderr
    with psycopg.connect(scratch) as connection:
        name = postgres_url.rpartition("/")[2]
        found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchall()
    assert found == []


@ON_POSTGRES
def test_the_lines_of_stock_alembic_are_typed(reader, migrated):
    one = reader()
    url = migrated("novel_genesis")
    lines = [command for command, _ in commands(block("docs/how-to/stock-tools.md", 0))]
    assert lines[0].startswith("export POSTGRES_URL=")
    for line in lines[1:]:
        typed(one, f"export POSTGRES_URL='{url}'; {line}")
    with psycopg.connect(url) as connection:
        [(left,)] = connection.execute("SELECT version_num FROM alembic_version")
    assert left == "ng_0003"


@ON_POSTGRES
@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_tenants_of_a_table_are_piped(reader, postgres_url):
    name = postgres_url.rpartition("/")[2]
    with psycopg.connect(postgres_url.replace(name, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE tenants (id text, slug text)")
        connection.execute("INSERT INTO tenants VALUES (%s, 'acme')", [name[-6:]])
    [(line, _)] = commands(block("docs/how-to/fleet.md", 2))
    line = replaced(line, {"'tenant_'": f"'{name}_'", "psql ": f"psql '{postgres_url}' "})
    try:
        done = typed(
            reader(POSTGRES_URL=postgres_url), f"{line} --only postgres -b context_service -o json"
        )
        assert [each["name"] for each in json.loads(done.stdout)["targets"]] == ["acme"]
    finally:
        with psycopg.connect(postgres_url.replace(name, "postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name}_{name[-6:]}")


def replaced(text, real):
    """The text with what a reader has in the place of what the page shows."""
    for shown, own in real.items():
        assert shown in text, f"{shown} is not in {text}"
        text = text.replace(shown, own)
    return text


# --- Milvus


@ON_POSTGRES
@ON_NEO4J
@ON_MILVUS
@ON_REDIS
def test_the_report_of_tests_is_written(reader, all_stores):
    one = reader(**all_stores)
    [(command, _)] = commands(block("docs/how-to/ci.md", 4))
    typed(one, command, expected=3)
    report = ET.parse(one.folder / "stores.xml").getroot()
    assert [suite.get("name") for suite in report] == list(STORE_ORDER)
    assert int(report.get("failures")) == len(report.findall("*/testcase/failure")) > 0


@ON_MILVUS
def test_the_page_of_a_new_model_is_followed(reader, milvus_url):
    declared, applied, upgraded, passes, back = blocks("docs/how-to/new-embedding-model.md")
    one = reader(MILVUS_URL=milvus_url)
    module = one.folder / "blueprint.py"
    # The first release, and the model that the page takes for given.
    first = declared.text.replace("docs_v2", "docs_v1").replace("dim=1024", "dim=4")
    first = first.replace("large-2", "small-1").replace("reembed=embed_rows,", "")
    module.write_text(first)
    typed(one, "is-db-bootstrap apply -b .")
    client = milvus_client(milvus_url)
    rows = [
        {"id": n, "text": "t", "updated_at": 1_764_450_000 + n, "embedding": [1.0] * 4}
        for n in range(9)
    ]
    client.insert("docs", rows)

    model = (
        "class my_model:\n    @staticmethod\n    def encode(texts):\n"
        "        return [[1.0] * 1024 for _ in texts]\n\n\n"
    )
    module.write_text(model + declared.text)
    (one.folder / "is-db-bootstrap.toml").write_text('blueprint = "."\n')
    rollback, prune = (command for command, _ in commands(back))
    one.follow(applied)
    typed(one, "is-db-bootstrap verify", expected=3)
    one.follow(upgraded)
    typed(one, rollback)
    one.follow(passes)
    typed(one, "is-db-bootstrap verify")
    assert typed(one, prune, expected=2).stderr.count("docs_v1 (9 rows)")
    typed(one, f"{prune} --yes")
    assert client.list_collections() == ["docs_v2"]
    client.close()


# --- Redis


@ON_REDIS
def test_the_page_of_keys_is_followed(reader, redis_url):
    page = "docs/how-to/redis-keys.md"
    [(audit, _), (mend, _)] = (line for n in (0, 1) for line in commands(block(page, n)))
    one = reader(REDIS_URL=redis_url)
    typed(one, "is-db-bootstrap new shop --stores redis")
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.set("shop:session:1", "x")
        typed(one, audit, expected=3)
        folder = str(one.folder / "shop")
        words = [folder if word == "shop" else word for word in mend.split()[1:]]
        code, shown = answered("y", *words, environ={"REDIS_URL": redis_url})
        assert code == 0, shown
        assert 3590 < client.ttl("shop:session:1") <= 3600
    typed(one, audit)


@ON_REDIS
def test_the_page_of_a_lock_is_followed(reader, redis_url):
    lines = [line for each in blocks("docs/how-to/unlock.md") for line, _ in commands(each)]
    status, unlock, named = lines
    one = reader(REDIS_URL=redis_url)
    typed(one, "is-db-bootstrap new shop --stores redis")
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.set("is-db-bootstrap:lock:shop", "somebody's")
        shown = typed(one, status).stdout
        refused = typed(one, f"{unlock} --yes", expected=6).stderr
        who = re.search(r"--holder '(.*)'", refused)[1]
        assert who in shown
        typed(one, f"{named.replace('WHO', who)} --yes")
        assert client.exists("is-db-bootstrap:lock:shop") == 0
    assert "not locked" in typed(one, unlock).stdout


@ON_POSTGRES
def test_the_page_of_an_edited_revision_is_followed(reader, postgres_url):
    lines = [
        line for each in blocks("docs/how-to/edited-revision.md") for line, _ in commands(each)
    ]
    verify, accept = lines
    one = reader(POSTGRES_URL=postgres_url)
    typed(one, "is-db-bootstrap new shop --stores postgres")
    typed(one, "is-db-bootstrap apply -b shop")
    [first] = (one.folder / "shop" / "migrations").glob("*.py")
    first.write_text(first.read_text() + "# edited\n")
    assert accept.removesuffix(" -b shop") in typed(one, verify, expected=3).stdout
    typed(one, accept)


# --- repairs


@ON_POSTGRES
@ON_REDIS
def test_the_page_of_repairs_is_followed(reader, postgres_url, redis_url):
    page = "docs/how-to/repair.md"
    [(verify, _), (mend, _)] = commands(block(page, 0))
    [(again, _)] = commands(block(page, 2))
    environ = {"POSTGRES_URL": postgres_url, "REDIS_URL": redis_url}
    one = reader(**environ)
    typed(one, "is-db-bootstrap new shop --stores postgres,redis")
    typed(one, "is-db-bootstrap apply -b shop")
    folder = str(one.folder / "shop")
    words = [folder if word == "shop" else word for word in mend.split()[1:]]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        index = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexdef NOT LIKE"
        [name, *_rest] = connection.execute(f"{index} '%UNIQUE%'").fetchone()
        for answer, code, is_there in (("n", 1, False), ("y", 0, True)):
            connection.execute(f'DROP INDEX IF EXISTS "{name}"')
            typed(one, verify, expected=3)
            ended, shown = answered(answer, *words, environ=environ)
            assert ended == code, shown
            assert f'CREATE INDEX CONCURRENTLY "{name}" ON' in shown
            found = connection.execute(f"{index} '%UNIQUE%'").fetchone()
            assert (found is not None) == is_there, shown
        connection.execute(f'DROP INDEX "{name}"')
    with redis.Redis.from_url(redis_url) as client:
        client.set("shop:session:1", "x")
        told = typed(one, "is-db-bootstrap repair -b shop", expected=2)
        assert "Say --yes." in told.stderr
        done = json.loads(typed(one, again).stdout)
        assert (done["mode"], done["outcome"]) == ("repair", "changed")
        assert client.ttl("shop:session:1") > 0
    typed(one, verify)


# --- several stores


@pytest.fixture
def all_stores(postgres_url, neo4j_url, milvus_url, redis_url):
    return {
        "POSTGRES_URL": postgres_url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }


@ON_POSTGRES
@ON_NEO4J
@ON_MILVUS
@ON_REDIS
def test_the_steps_of_ci_are_typed(reader, all_stores):
    one = reader(**all_stores)
    for number in (0, 1):
        one.follow(block("docs/how-to/ci.md", number))
    assert json.loads((one.folder / "bootstrap.json").read_text())["outcome"] == "changed"


@ON_MILVUS
@ON_REDIS
def test_the_lines_of_running_stores_are_typed(reader, milvus_url, redis_url):
    one = reader(MILVUS_URL=milvus_url, REDIS_URL=redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.set("cart:1", "x", ex=60)
    page = "docs/how-to/from-running-stores.md"
    real = {"http://127.0.0.1:19530": milvus_url, "redis://127.0.0.1:6379/0": redis_url}
    [(new, _)] = commands(block(page, 0))
    typed(one, f"{replaced(new, real)} --stores milvus,redis")
    one.follow(block(page, 1))


# --- templates


def test_the_documented_pipelines_use_what_there_is():
    step, gitlab, hooks = (yaml.safe_load(block("docs/how-to/ci.md", n).text) for n in (2, 5, 6))
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    assert set(step[0]["with"]) <= set(inputs)
    assert (ROOT / gitlab["include"]).exists()
    template = yaml.safe_load((ROOT / gitlab["include"]).read_text())
    assert gitlab["test"]["extends"] in template
    assert set(gitlab["variables"]) <= set(template["variables"])
    [known] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    [repository] = hooks["repos"]
    assert [hook["id"] for hook in repository["hooks"]] == [known["id"]]


def test_the_documented_comment_uses_what_the_action_has():
    workflow = yaml.safe_load(block("docs/how-to/ci.md", 3).text)
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    [*_, step] = workflow["jobs"]["plan"]["steps"]
    assert {"comment", "command", "plan-arguments"} < set(step["with"]) <= set(inputs)
    assert workflow["permissions"]["pull-requests"] == "write"
    assert "pull-requests: write" in inputs["comment"]["description"]


def test_the_documented_service_names_what_the_compose_file_has():
    page = "docs/how-to/compose.md"
    compose = yaml.safe_load((ROOT / "compose/compose.yaml").read_text())
    [service] = yaml.safe_load(block(page, 1).text)["services"].values()
    assert set(service["depends_on"]) <= set(compose["services"])
    assert set(service["secrets"]) <= set(compose["secrets"])
    lines = [command for n in (0, 2) for command, _ in commands(block(page, n))]
    for path in re.findall(r"compose/[\w.-]+", " ".join(lines)):
        assert (ROOT / path).exists(), path
    assert os.access(ROOT / "compose/make-secrets.sh", os.X_OK)
