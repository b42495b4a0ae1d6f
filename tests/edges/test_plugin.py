"""The pytest plugin, as a developer meets it: pytest as a process in a project of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from is_db_bootstrap import local
from is_db_bootstrap.scaffold import create_folder
from is_db_bootstrap.settings import StoreUrl
from servers import PASSWORD

pytestmark = pytest.mark.acceptance
_ADDRESSES = ("POSTGRES_", "NEO4J_", "MILVUS_", "REDIS_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_")
ROOT = Path(__file__).parents[2]
PAGE = "docs/how-to/test.md"
INI = (
    "[pytest]\nis_db_blueprint = novel_genesis\nasyncio_mode = auto\n"
    "asyncio_default_fixture_loop_scope = function\n"
)


@pytest.fixture(scope="module")
def data(farm):
    """Where the servers of these sessions are; they run on between the tests of this module."""
    folder = farm.folder / "plugin"
    folder.mkdir()
    yield folder
    for each in (folder / "testing" / "local").glob("*"):
        local.down(each, durable=False)


def start_pytest(folder, data, *options, **environ):
    """Pytest as a process on the tests in `folder`."""
    env = {k: v for k, v in os.environ.items() if not k.startswith((*_ADDRESSES, "PYTEST"))}
    # A job in the background, as CI may run us, ignores SIGINT and would hand that down.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "pytest"]
    return subprocess.Popen(
        [*command, "-p", "no:cacheprovider", "--keep-servers", *options],
        cwd=folder,
        env=env | {"IS_DB_BOOTSTRAP_DATA": str(data)} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def project(tmp_path, data):
    """`project("def test_…", "--option", NAME=value)`: exit code and output of pytest on these
    tests, in a folder of their own.
    """
    (tmp_path / "pytest.ini").write_text(INI)

    def start(tests, *options, **environ):
        (tmp_path / "test_it.py").write_text(tests)
        return start_pytest(tmp_path, data, *options, **environ)

    def run(tests, *options, **environ):
        process = start(tests, *options, **environ)
        shown = process.communicate(timeout=200)[0]
        return process.returncode, shown

    run.start = start
    run.folder = tmp_path
    return run


def documented(page, language, word):
    """The first block of `language` on a page that has `word` in it."""
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return next(block for block in blocks if word in block)


#: Files of tests that one session runs, each with the number of tests that pass.
TOGETHER = {
    "readme": (documented("README.md", "python", "def test_a_novel_is_everywhere"), 1),
    "page": (documented(PAGE, "python", "def test_a_novel_is_everywhere"), 1),
    "sqlalchemy": (
        documented(PAGE, "python", "def session")
        + """
from sqlalchemy import text

def test_it(session):
    session.execute(text("CREATE TABLE mine (id int)"))
    session.commit()

def test_next(session):
    assert session.execute(text("SELECT to_regclass('mine')")).scalar() is None
""",
        2,
    ),
    "unittest": (documented(PAGE, "python", "import unittest"), 1),
    "fixtures": (
        """
import neo4j as n, pymilvus, redis as r, sqlalchemy

def test_types(postgres, neo4j, milvus, redis):
    assert isinstance(postgres, sqlalchemy.Engine) and isinstance(neo4j, n.Driver)
    assert isinstance(milvus, pymilvus.MilvusClient) and isinstance(redis, r.Redis)

async def test_async(async_postgres, async_neo4j, async_milvus, async_redis, postgres):
    async with async_postgres.begin() as c:
        await c.exec_driver_sql("CREATE TABLE seen (id int)")
    with postgres.begin() as c:
        assert c.exec_driver_sql("SELECT count(*) FROM seen").scalar() == 0
    await async_redis.set("a", 1)
    assert (await async_neo4j.execute_query("RETURN 1 AS one")).records[0]["one"] == 1
    assert await async_milvus.list_collections() == ["novel_embeddings_v1"]
""",
        2,
    ),
    "blueprints": (
        """
import pytest

@pytest.mark.blueprint("context_service")
def test_marked(postgres):
    with postgres.begin() as c:
        c.exec_driver_sql("SELECT allowed_tool_ids FROM agents")

class TestOverridden:
    @pytest.fixture
    def is_db_blueprint(self):
        return "agentic_projects"

    def test_it(self, postgres):
        with postgres.begin() as c:
            c.exec_driver_sql("SELECT affected_files FROM modifications")

def test_ini(postgres):
    with postgres.begin() as c:
        c.exec_driver_sql("SELECT 1 FROM domain_events")
""",
        3,
    ),
    "environment": (
        """
import os, psycopg
from is_db_bootstrap import Settings
from is_db_bootstrap.blueprints.novel_genesis import BLUEPRINT

def test_it(is_db_settings, postgres):
    is_db_settings.set_environ(postgres="DATABASE_URL")
    assert "POSTGRES_URL" not in os.environ
    assert os.environ["REDIS_URL"].startswith("redis://")
    with psycopg.connect(os.environ["DATABASE_URL"]) as c:
        c.execute("SELECT 1 FROM domain_events")
    read = Settings.load(BLUEPRINT).need("postgres")
    assert str(read) == str(is_db_settings.settings.need("postgres"))

def test_after():
    assert os.environ["POSTGRES_URL"] == "postgresql://staging/app"
""",
        2,
    ),
}


@pytest.fixture(scope="module")
def together(tmp_path_factory, data):
    """What the session of all files of `TOGETHER` shows."""
    folder = tmp_path_factory.mktemp("together")
    ini = documented(PAGE, "ini", "is_db_blueprint")
    (folder / "pytest.ini").write_text(ini + INI.partition("novel_genesis\n")[2])
    for name, (text, _) in TOGETHER.items():
        (folder / f"test_{name}.py").write_text(text)
    process = start_pytest(folder, data, "-rA", POSTGRES_URL="postgresql://staging/app")
    return process.communicate(timeout=280)[0]


@pytest.mark.parametrize("name", ["readme", "page"])
def test_the_documented_test_has_all_stores(together, name):
    assert len(TOGETHER[name][0].splitlines()) < 20
    assert_passed(together, name)


def test_the_documented_session_of_sqlalchemy_is_on_the_tests_database(together):
    assert_passed(together, "sqlalchemy")


def test_the_documented_unittest_runs(together):
    assert_passed(together, "unittest")


def test_each_fixture_is_the_client_that_it_says(together):
    assert_passed(together, "fixtures")


def test_the_blueprint_is_chosen_by_marker_or_fixture(together):
    assert_passed(together, "blueprints")


def test_an_application_reads_where_the_stores_are_from_the_environment(together):
    assert_passed(together, "environment")


def assert_passed(shown, name):
    ends = re.findall(rf"^(PASSED|FAILED|ERROR) test_{name}\.py", shown, re.MULTILINE)
    assert ends == ["PASSED"] * TOGETHER[name][1], shown


def test_workers_of_xdist_have_stores_of_their_own(project):
    code, shown = project(
        "import pytest, time\n@pytest.mark.parametrize('n', range(8))\ndef "
        "test_mine(postgres, redis, milvus, n):\n"
        "    redis.set('n', n)\n    time.sleep(0.2)\n    assert int(redis.get('n')) == n\n    "
        "assert redis.dbsize() == 3\n",
        "-n",
        "2",
    )
    assert code == 0, shown
    assert "8 passed" in shown


def test_without_a_blueprint_the_ini_option_is_named(project):
    (project.folder / "pytest.ini").write_text("[pytest]\n")
    code, shown = project("def test_it(postgres): pass\n")
    assert code == 1
    assert "No blueprint: set is_db_blueprint in the ini file" in shown


def test_a_store_that_the_blueprint_has_not_is_told_in_one_line(project):
    code, shown = project(
        "import pytest\npytestmark = pytest.mark.blueprint('context_service')\ndef "
        "test_it(redis): pass\n",
        "--tb=short",
    )
    assert code == 1
    assert "no clean store: context_service declares nothing for redis. It has postgres." in shown
    assert "Traceback" not in shown


def test_a_blueprint_that_fails_is_told_in_one_line_for_each_test(project):
    create_folder("broken", ("postgres",), project.folder)
    [revision] = (project.folder / "broken" / "migrations").glob("*.py")
    text = revision.read_text()
    at = text.index("def upgrade")
    body = text.index("\n", at) + 1
    revision.write_text(text[:body] + '    op.execute("SELECT no_such_function()")\n' + text[body:])
    (project.folder / "pytest.ini").write_text("[pytest]\nis_db_blueprint = broken\n")
    code, shown = project(
        "def test_one(postgres): pass\ndef test_two(postgres): pass\n", "--ignore=broken"
    )
    assert code == 1
    lines = [line for line in shown.splitlines() if line.startswith("no clean store: ")]
    assert len(lines) == 2
    assert all("no_such_function" in line for line in lines)
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("store", "end"),
    [
        ("redis", "redis.shutdown(nosave=True)"),
        ("postgres", "os.kill(pid, 3)"),
    ],
)
def test_a_server_that_ends_in_the_middle_is_told_in_one_line_for_each_test(
    project, make_server, store, end
):
    server = make_server(store, password=PASSWORD if store == "postgres" else "")
    code, shown = project(
        f"import os\nfrom contextlib import suppress\npid = {server.pid}\n"
        f"def test_ends_it({store}):\n    with suppress(Exception): {end}\n"
        f"import pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_after({store}, n): "
        "pass\n",
        "--stores-from",
        "env",
        **{f"{store.upper()}_URL": server.url},
    )
    assert code == 1, shown
    lines = [line for line in shown.splitlines() if line.startswith("no clean store: ")]
    assert len(lines) >= 4, shown  # two may have been made ahead
    assert all(f"{store}: " in line for line in lines)
    assert "Traceback" not in shown
    assert "INTERNALERROR" not in shown


def test_exported_addresses_are_not_used_unless_asked_for(project, redis_url, farm):
    staging = redis.Redis.from_url(redis_url)
    staging.set("customer:1", "x")
    tests = "def test_it(redis):\n    redis.flushall()\n"
    assert project(tests, REDIS_URL=redis_url)[0] == 0
    code, shown = project(tests, "--stores-from", "env", REDIS_URL=redis_url)
    assert code == 1
    assert "no clean store: redis: logical database 0 at" in shown
    assert "is not empty and was not made by a test run, so it is left alone" in shown
    assert staging.keys() == [b"customer:1"]


def test_given_servers_are_used_when_asked_for(project, redis_url):
    code, shown = project(
        "import os\ndef test_it(redis):\n    assert "
        "f\":{redis.connection_pool.connection_kwargs['port']}/\" in os.environ['REDIS_URL']\n",
        "--stores-from",
        "env",
        REDIS_URL=redis_url,
    )
    assert code == 0, shown
    assert redis.Redis.from_url(redis_url).keys() == []


def test_a_failing_test_keeps_its_stores_until_the_next_session(project):
    failing = (
        "def test_bad(postgres, redis):\n"
        "    with postgres.begin() as c: c.exec_driver_sql('CREATE TABLE evidence (id int)')\n"
        "    redis.set('evidence', 1)\n    assert False\n"
        "def test_good(redis): assert redis.get('evidence') is None\n"
    )
    code, shown = project(failing, "--keep-stores")
    assert code == 1
    assert "stores kept until the next session" in shown
    assert re.search(r"^POSTGRES_URL=postgresql://postgres:\*\*\*@", shown, re.MULTILINE)
    assert re.search(r"^REDIS_URL=redis://:\*\*\*@", shown, re.MULTILINE)
    [kept] = re.findall(r"^With passwords, for its owner: (\S+)$", shown, re.MULTILINE)
    assert (Path(kept).stat().st_mode & 0o777, Path(kept).parent.stat().st_mode & 0o777) == (
        0o600,
        0o700,
    )
    urls = dict(
        re.findall(r"^(POSTGRES_URL|REDIS_URL)=(\S+)$", Path(kept).read_text(), re.MULTILINE)
    )
    assert not any(
        StoreUrl.parse(s, urls[f"{s.upper()}_URL"]).password in shown for s in ("postgres", "redis")
    )
    with psycopg.connect(urls["POSTGRES_URL"]) as connection:
        assert connection.execute("SELECT to_regclass('evidence')").fetchone() != (None,)
    assert redis.Redis.from_url(urls["REDIS_URL"]).get("evidence") == b"1"
    assert project("def test_next(postgres, redis): pass\n")[0] == 0
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(urls["POSTGRES_URL"])


def test_an_interrupted_session_leaves_no_database(project, data):
    process = project.start(
        "import time\ndef test_it(postgres):\n    print(postgres.url.render_as_string(False), "
        "flush=True)\n    time.sleep(60)\n",
        "-s",
    )
    line = next(line for line in process.stdout if "postgresql+psycopg://" in line)
    url = line[line.index("postgresql+") :].strip().replace("+psycopg", "")
    process.send_signal(signal.SIGINT)
    shown = process.communicate(timeout=60)[0]
    assert process.returncode == 2, shown
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_servers_are_stopped_with_the_last_session(tmp_path, farm):
    folder = farm.folder / "short"
    folder.mkdir()
    code = (
        "from is_db_bootstrap.testing import isolated_stores\n"
        "with isolated_stores('novel_genesis') as stores:\n    stores.redis.set('a', 1)\n"
        "    print(stores.redis.info('server')['process_id'])\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(_ADDRESSES)} | {
        "IS_DB_BOOTSTRAP_DATA": str(folder)
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(done.stdout))


def test_tests_without_stores_load_no_client_and_start_nothing(project):
    code, shown = project(
        "import sys\ndef test_it():\n"
        "    assert not {'sqlalchemy', 'neo4j', 'pymilvus', 'redis', 'docker', 'psycopg'} & "
        "set(sys.modules)\n"
    )
    assert code == 0, shown


# --- containers


def test_without_a_docker_daemon_one_line_says_so(project, tmp_path):
    code, shown = project(
        "def test_it(redis): pass\n",
        "--stores-from",
        "containers",
        DOCKER_HOST=f"unix://{tmp_path}/none.sock",
    )
    assert code == 1
    assert "no clean store: No Docker daemon answers: " in shown
    assert "Start Docker, or leave out --stores-from containers." in shown
    assert "Traceback" not in shown


@pytest.fixture
def docker_client():
    docker = pytest.importorskip("docker")
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as exc:
        pytest.skip(f"no Docker daemon answers: {exc}")
    return client


@pytest.fixture
def image(docker_client, tmp_path):
    """`image("name", program, command)`: an image from nothing but a program of this machine and
    its libraries.
    """

    def build(name, program, command):
        context = tmp_path / "context"
        programs = [program, "/bin/sh"]  # official images have a shell
        linked = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True)
        libraries = re.findall(r"\s(/\S+) \(", linked.stdout)
        for file in {*libraries, *programs}:
            target = context / file.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(Path(file).resolve().read_bytes())
            target.chmod(0o755)
        (context / "Dockerfile").write_text(
            f"FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/bin\nCMD {command}\n"
        )
        docker_client.images.build(path=str(context), tag=name)
        return name

    return build


def test_a_container_is_found_again_and_removed_at_the_end(project, image, docker_client):
    name = image("is-db-bootstrap-test-redis", "/usr/bin/redis-server", '["redis-server"]')
    tests = (
        "def test_it(redis):\n    print('pid', redis.info('server')['run_id'])\n    assert "
        "redis.dbsize() == 2\n"
    )
    options = ("-s", "--stores-from", "containers")
    runs = [project(tests, *options, IS_DB_BOOTSTRAP_REDIS_IMAGE=name) for _ in range(2)]
    assert [code for code, _ in runs] == [0, 0], runs
    assert len({re.search(r"pid (\w+)", shown)[1] for _, shown in runs}) == 1
    from is_db_bootstrap.testing.containers import LABEL

    for container in docker_client.containers.list(filters={"label": LABEL, "ancestor": name}):
        container.remove(force=True)


def test_an_image_that_does_not_start_is_told(project, image):
    name = image("is-db-bootstrap-test-false", "/usr/bin/false", '["false"]')
    code, shown = project(
        "def test_it(redis): pass\n",
        "--stores-from",
        "containers",
        IS_DB_BOOTSTRAP_REDIS_IMAGE=name,
    )
    assert code == 1
    assert (
        f"no clean store: redis: The image {name} does not start" in shown
        or f"The container of {name} ended at once" in shown
    )
    assert "Traceback" not in shown
