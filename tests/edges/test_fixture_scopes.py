"""Fixtures of a module and of a session, under pytest-asyncio and anyio, on chosen versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from is_db_bootstrap import local
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.local.versions import available_versions, find_version
from is_db_bootstrap.testing.choice import chosen_versions, source
from is_db_bootstrap.testing.containers import image_of_version

pytestmark = [pytest.mark.acceptance, pytest.mark.redis]
_ADDRESSES = ("POSTGRES_", "NEO4J_", "MILVUS_", "REDIS_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_")
INI = "[pytest]\nis_db_blueprint = novel_genesis\n"


@pytest.fixture(scope="module")
def data(farm):
    """Where the servers of these sessions are; they run on between the tests of this module."""
    folder = farm.folder / "scopes"
    folder.mkdir()
    yield folder
    for each in (folder / "testing" / "local").glob("*"):
        local.down(each, durable=False)


@pytest.fixture
def project(tmp_path, data):
    """`project({"test_a": "…"}, "--option", NAME=value)`: outcomes by test, and the output."""

    def run(files, *options, ini=INI, **environ):
        (tmp_path / "pytest.ini").write_text(ini)
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(text)
        env = {k: v for k, v in os.environ.items() if not k.startswith((*_ADDRESSES, "PYTEST"))}
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-vv"]
        done = subprocess.run(
            [*command, "--keep-servers", *options],
            cwd=tmp_path,
            env=env | {"IS_DB_BOOTSTRAP_DATA": str(data)} | environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        shown = done.stdout + done.stderr
        return done.returncode, shown

    run.folder = tmp_path
    return run


def passed(shown):
    [total] = re.findall(r"^=+ (\d+) passed[^,]*=+$", shown, re.MULTILINE) or [shown]
    return total


# --- scopes

WIDER = {
    "test_first": """
def test_writes(module_redis, session_redis, redis):
    for client in (module_redis, session_redis, redis):
        client.set("here", "first")
    numbers = {c.connection_pool.connection_kwargs["db"] for c in (module_redis, session_redis, redis)}
    assert len(numbers) == 3

def test_finds_it(module_redis, session_redis, redis):
    assert module_redis.get("here") == session_redis.get("here") == b"first"
    assert redis.get("here") is None
""",
    "test_second": """
def test_another_module(module_redis, session_redis):
    assert module_redis.get("here") is None
    assert session_redis.get("here") == b"first"
""",
}


def test_a_module_and_a_session_have_stores_beside_those_of_a_test(project):
    code, shown = project(WIDER)
    assert code == 0, shown
    assert passed(shown) == "3"


@pytest.mark.postgres
@pytest.mark.neo4j
@pytest.mark.milvus
def test_each_store_can_be_had_for_a_module(project):
    tests = """
def test_writes(module_stores, postgres, neo4j):
    with module_stores.postgres.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE kept (id int)")
    module_stores.neo4j.execute_query("CREATE (:Kept)")
    assert module_stores.milvus.list_collections() == ["novel_embeddings_v1"]
    assert postgres.url.database != module_stores.postgres.url.database
    assert neo4j.execute_query("MATCH (n:Kept) RETURN n").records == []

def test_finds_it(module_postgres, module_neo4j, module_milvus):
    with module_postgres.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM kept").scalar() == 0
    assert len(module_neo4j.execute_query("MATCH (n:Kept) RETURN n").records) == 1
    assert module_milvus.list_collections() == ["novel_embeddings_v1"]
"""
    code, shown = project({"test_it": tests})
    assert code == 0, shown


def test_a_module_has_the_blueprint_of_its_marker(project):
    tests = """
import pytest
pytestmark = pytest.mark.blueprint("context_service")

def test_it(module_stores):
    assert module_stores.blueprint.name == "context_service"
"""
    code, shown = project({"test_it": tests})
    assert code == 0, shown


def test_the_only_place_of_a_given_server_is_not_waited_for_in_vain(project, redis_url):
    tests = """
def test_of_two_scopes(module_redis, redis): pass
def test_of_one(module_redis): assert module_redis.ping()
"""
    code, shown = project(
        {"test_it": tests}, "--stores-from", "env", "--timeout=60", REDIS_URL=redis_url
    )
    assert code == 1
    assert "has one clean store only, and fixtures of another scope" in shown
    assert "PASSED test_it.py::test_of_one" in shown


# --- plugins for asyncio

LOOP_TESTS = """
import asyncio
import pytest

{mark}
async def test_async(async_redis, redis):
    asyncio.get_running_loop()
    await async_redis.set("a", 1)
    assert redis.get("a") == b"1"

{mark}
async def test_next(async_redis):
    assert await async_redis.get("a") is None

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
WITH = {
    "asyncio strict": ("@pytest.mark.asyncio", ("-o", "asyncio_mode=strict")),
    "asyncio auto": ("", ("-o", "asyncio_mode=auto")),
    "anyio strict": ("@pytest.mark.anyio", ("-p", "no:asyncio")),
    "anyio auto": ("", ("-p", "no:asyncio", "-o", "anyio_mode=auto")),
    "anyio beside asyncio": ("@pytest.mark.anyio", ("-o", "asyncio_mode=strict")),
}


@pytest.mark.parametrize("name", WITH)
def test_a_test_of_asyncio_has_clients_of_its_loop(project, name):
    mark, options = WITH[name]
    code, shown = project({"test_it": LOOP_TESTS.format(mark=mark)}, *options)
    assert code == 0, shown
    assert passed(shown) == "2"


def test_trio_is_refused_by_name(project):
    tests = LOOP_TESTS.format(mark="@pytest.mark.anyio").replace('"asyncio"\n', '"trio"\n')
    code, shown = project({"test_it": tests}, "-p", "no:asyncio")
    assert code == 1
    assert "async_redis: the client of redis runs on asyncio, and not on trio." in shown


# --- versions

SHOWN = """
def test_redis(redis): print("redis", redis.info("server")["redis_version"])
def test_postgres(postgres):
    with postgres.begin() as connection:
        print("postgres", connection.exec_driver_sql("SHOW server_version").scalar())
"""


@pytest.mark.postgres
def test_the_server_has_the_version_that_was_chosen(project):
    chosen = max(available_versions("redis"))
    ini = f"{INI}is_db_store_versions =\n    postgres=15\n    redis={chosen}\n"
    code, shown = project({"test_it": SHOWN}, "--store-version", "postgres=17", ini=ini)
    assert code == 0, shown
    assert re.search(r"^postgres 17\.", shown, re.MULTILINE)
    assert re.search(rf"^redis {re.escape(chosen)}", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("redis=1", "redis 1 cannot be had as a local server. Here there is 6"),
        ("milvus=2.6", "milvus 2.6 cannot be had as a local server. Here there is lite."),
        ("oracle=23", "'oracle=23' is no version of a store."),
    ],
)
def test_a_version_that_cannot_be_had_is_told_in_one_line(project, option, said):
    tests = f"def test_it({'milvus' if 'milvus' in option else 'redis'}): pass\n"
    code, shown = project({"test_it": tests}, "--store-version", option)
    assert code == 1
    assert f"no clean store: {said}" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("store", "wanted", "found"),
    [
        ("postgres", "17", "17.9.0"),
        ("postgres", "18.4", "18.4.0"),
        ("neo4j", "2026", "2026.08.1"),
        ("neo4j", "5.26", "5.26.30"),
        ("milvus", "lite", "lite"),
    ],
)
def test_a_part_of_a_version_finds_the_newest(store, wanted, found):
    assert find_version(store, wanted)[1] == found


def test_a_version_is_a_number_and_not_the_beginning_of_one():
    with pytest.raises(ConfigurationError, match="postgres 1 cannot be had"):
        find_version("postgres", "1")


def test_the_version_of_given_servers_cannot_be_chosen():
    with pytest.raises(ConfigurationError, match="the servers are given"):
        source("env", versions=chosen_versions(["postgres=17"]))


@pytest.mark.parametrize(
    ("store", "image"),
    [
        ("postgres", "postgres:9"),
        ("neo4j", "neo4j:9-community"),
        ("milvus", "milvusdb/milvus:v9"),
        ("redis", "redis:9"),
    ],
)
def test_a_container_has_the_official_image_of_the_version(store, image):
    assert image_of_version(store, "9") == image


# --- the blueprint's name

NAMED = "def test_it(is_db_blueprint): print('took', is_db_blueprint)\n"


@pytest.mark.parametrize(
    ("ini", "environ", "toml", "taken"),
    [
        ("mplp", "helpdesk", "shop", "helpdesk"),
        ("mplp", "", "shop", "mplp"),
        ("", "", "helpdesk", "helpdesk"),
    ],
    ids=["variable", "ini", "project file"],
)
def test_the_blueprint_is_named_in_the_order_of_the_command(project, ini, environ, toml, taken):
    (project.folder / "is-db-bootstrap.toml").write_text(f'blueprint = "{toml}"\n')
    text = f"[pytest]\nis_db_blueprint = {ini}\n"
    variables = {"IS_DB_BOOTSTRAP_BLUEPRINT": environ} if environ else {}
    code, shown = project({"test_it": NAMED}, ini=text, **variables)
    assert code == 0, shown
    assert f"took {taken}\n" in shown


def test_an_installed_name_wins_over_a_folder_of_that_name(project):
    (project.folder / "mplp").mkdir()
    (project.folder / "own").mkdir()
    for name, taken in {"mplp": "mplp", "own": str(project.folder / "own")}.items():
        code, shown = project({"test_it": NAMED}, ini=f"[pytest]\nis_db_blueprint = {name}\n")
        assert code == 0, shown
        assert f"took {taken}\n" in shown
