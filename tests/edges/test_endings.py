"""How every command ends whose output cannot be written, or that gets a signal. A new command has
to say here how it is called.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace
from urllib.parse import urlsplit

import click
import psycopg
import pytest
import redis

from is_db_bootstrap import migrate
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.cli import group
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.scaffold import create_folder
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from mute import MuteProxy, always
from servers import clone, drop_database, empty_milvus, milvus_client
from stops import sentences_with_two_stops

pytestmark = pytest.mark.postgres
BLUEPRINT = ("-b", "agentic_projects")
#: A blueprint with keys and a collection in its second version: the fixture `kept`.
KEPT = ("-b", "kept:BLUEPRINT")
UNWRITTEN = 9

#: The arguments of every command.
CALLS = {
    ("adopt",): (*BLUEPRINT, "--yes"),
    ("apply",): BLUEPRINT,
    ("blueprints",): (),
    ("blueprints", "show"): ("novel_genesis",),
    ("check",): BLUEPRINT,
    ("doctor",): BLUEPRINT,
    ("grants",): BLUEPRINT,
    ("local", "down"): ("--data-dir", "none"),
    ("local", "reset"): None,  # test_local_stores.py, where there is something to remove
    ("local", "status"): ("--data-dir", "none", "-o", "json"),
    ("local", "up"): None,  # test_local.py, where a stack runs
    ("migrate", "accept"): (*BLUEPRINT, "--all"),
    ("migrate", "check"): BLUEPRINT,
    ("migrate", "current"): BLUEPRINT,
    ("migrate", "downgrade"): (*BLUEPRINT, "--yes"),
    ("migrate", "history"): BLUEPRINT,
    ("migrate", "ini"): (),
    ("migrate", "init"): BLUEPRINT,
    ("migrate", "sql"): BLUEPRINT,
    ("migrate", "stamp"): (*BLUEPRINT, "head", "--yes"),
    ("migrate", "upgrade"): BLUEPRINT,
    ("new",): ("made", "--from-stores", "--stores", "redis"),
    ("plan",): BLUEPRINT,
    ("redis", "audit"): KEPT,
    ("redis", "fix-ttl"): (*KEPT, "--yes"),
    ("repair",): (*BLUEPRINT, "--yes"),
    ("revision",): ("-b", "template", "--empty", "-m", "step"),
    ("selftest",): BLUEPRINT,
    ("setup",): (*BLUEPRINT, "--yes"),
    ("status",): BLUEPRINT,
    ("unlock",): (*KEPT, "redis", "--yes"),
    ("vector", "prune"): (*KEPT, "--yes"),
    ("vector", "rollback"): KEPT,
    ("vector", "status"): KEPT,
    ("vector", "upgrade"): KEPT,
    ("verify",): BLUEPRINT,
    ("wait",): BLUEPRINT,
}
#: The store that a command is tried with, where it is not PostgreSQL.
STORES = {"new": "redis", "redis": "redis", "unlock": "redis", "vector": "milvus"}
#: Where nobody is.
NOBODY = {
    "postgres": "postgresql://someone@127.0.0.1:1/nowhere",
    "milvus": "http://127.0.0.1:1",
    "redis": "redis://127.0.0.1:1/0",
}
#: Commands that take an address, but ask no server here.
OFFLINE = {("grants",), ("migrate", "sql"), ("revision",)}

#: What is done to the output: the shell's words, and the encoding.
ENDS = {
    "stdout closed": (">&-", ""),
    "stdout full": (">/dev/full", ""),
    "reader gone": ("", ""),
    "all closed": ("<&- >&- 2>&-", ""),
    "stderr closed": ("2>&-", "ascii"),
    "stderr full": ("2>/dev/full", "latin-1"),
}
#: What a failure is tried with, and each command but those below.
FEWER = ("stdout full", "all closed", "stderr closed")
#: Commands that are tried with every end: one that asks no store, one that runs, one of a group.
WITH_EVERY_END = {("blueprints",), ("apply",), ("migrate", "current")}
#: Where Python is asked to complain of more, of the commands with every end.
DEVELOPING = {"stdout full": ("-X", "dev", "-W", "ignore")}
STDOUT_LOST = {"stdout closed", "stdout full", "reader gone", "all closed"}


def commands(group=group, prefix=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*prefix, name), command


COMMANDS = dict(commands())


def takes(path, option):
    return any(option in parameter.opts for parameter in COMMANDS[path].params)


def store_of(path):
    return STORES.get(path[0], "postgres")


ON_A_SERVER = [
    path
    for path in COMMANDS
    if path not in OFFLINE
    and any(takes(path, option) for option in ("--timeout", "--milvus-url", "--redis-url"))
]


def test_every_command_is_tried_here():
    assert set(CALLS) == set(COMMANDS)


@pytest.fixture(scope="module")
def database(farm):
    """The address of a database at the head of the blueprint."""
    server = farm.shared("postgres")
    url = clone(farm, server, "agentic_projects")
    yield url
    drop_database(server, url.rpartition("/")[2])


@pytest.fixture(scope="module")
def address_of(farm, database):
    """`address_of(path)`: the address that a command is given."""

    def address_of(path):
        store = store_of(path)
        return database if store == "postgres" else farm.shared(store).url

    return address_of


KEPT_MODULE = """
from dataclasses import replace
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern

FIRST = Collection(
    "kept_v1",
    fields=(
        Field("id", "VARCHAR", primary=True, max_length=40),
        Field("v", "FLOAT_VECTOR", dim=4),
    ),
    indexes=(Index("v", "FLAT", "L2"),),
    alias="kept",
)
EARLIER = Blueprint("kept", "for tests", collections=(FIRST,))
BLUEPRINT = Blueprint(
    "kept",
    "for tests",
    collections=(replace(FIRST, name="kept_v2"),),
    keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),),
)
"""


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A module beside the folders of the calls."""
    (tmp_path / "kept.py").write_text(KEPT_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("kept", None)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a blueprint of one's own in it."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        create_folder("template", ["postgres"])
    return folder


class Call:
    """One call of the command in a folder of its own, with an end of its own."""

    def __init__(self, folder, path, *args, url, end="", template=None, before=()):
        folder.mkdir()
        if template:
            shutil.copytree(template, folder, dirs_exist_ok=True)
        words, encoding = ENDS.get(end, ("", ""))
        self.log = folder / "log" if takes(path, "--termination-log") else None
        options = ["--termination-log", "log"] if self.log else []
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(
                ("POSTGRES_", "MILVUS_", "REDIS_", "DB_", "DATABASE_URL", "PYTHONIO")
            )
        }
        env |= {
            f"{store_of(path).upper()}_URL": url,
            "IS_DB_BOOTSTRAP_GRACE": "0.1",
            "PYTHONPATH": f"{folder}:{folder.parent}",
        }
        env |= {"PYTHONIOENCODING": encoding} if encoding else {}
        shell = ["bash", "-c", f'exec "$@" {words}', "-"]
        developing = DEVELOPING.get(end, ()) if path in WITH_EVERY_END else ()
        python = [*before, sys.executable, *developing, "-m", "is_db_bootstrap"]
        read, write = os.pipe()
        os.close(read)
        self.process = subprocess.Popen(
            [*shell, *python, *path, *args, *options],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=write if end == "reader gone" else subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(write)

    def ended(self):
        """Exit code, stdout, stderr; there is no traceback, and the termination log has the same
        exit code.
        """
        out, err = self.process.communicate(timeout=100)
        text = err.decode()
        assert "Traceback" not in text, text
        assert "Exception ignored" not in text, text
        assert not sentences_with_two_stops(text), text
        if self.log:
            assert json.loads(self.log.read_text())["exit_code"] == self.process.returncode
        return self.process.returncode, out or b"", text


def put_back(path, url):
    """Bring the database where the command has something to do."""
    if path == ("migrate", "upgrade"):
        migrate.downgrade("agentic_projects", 1, drop_rows=True, url=url)
    elif path[0] in {"migrate", "apply"}:
        migrate.upgrade("agentic_projects", url=url)
    elif store_of(path) == "redis":
        with redis.Redis.from_url(url) as client:
            client.flushall()
            client.set("cart:1", "x", ex=None if path[0] == "redis" and path[1] != "audit" else 50)
    elif store_of(path) == "milvus":
        put_versions_back(path, url)


def put_versions_back(path, url):
    """Two versions of the collection. The alias leads to the second, or it is not upgraded yet."""
    empty_milvus(SimpleNamespace(url=url))
    for name in ("kept:EARLIER", "kept:BLUEPRINT"):
        store = MilvusBootstrapper(url, load_blueprint(name))
        BootstrapOrchestrator([store]).run()
        store.close()
    client = milvus_client(url)
    assert client.describe_alias("kept")["collection_name"] == "kept_v1"
    if path == ("vector", "upgrade"):
        client.insert("kept_v1", [{"id": "a", "v": [1.0, 2.0, 3.0, 4.0]}])
    else:
        client.alter_alias("kept_v2", "kept")
    client.close()


@pytest.mark.parametrize(
    "path", [path for path in COMMANDS if CALLS.get(path) is not None], ids=" ".join
)
@pytest.mark.usefixtures("kept")
def test_a_command_whose_output_is_lost_says_so_and_ends_with_its_code_or_9(
    path, database, address_of, template, tmp_path
):
    def call(name):
        put_back(path, address_of(path))
        own = template if path == ("revision",) else None
        return Call(
            tmp_path / name.replace(" ", "-"),
            path,
            *CALLS[path],
            url=address_of(path),
            end=name,
            template=own,
        ).ended()

    code, out, err = call("as it is")
    assert code == 0, err
    for end in ENDS if path in WITH_EVERY_END else FEWER:
        code, found, err = call(end)
        lost = bool(out) and end in STDOUT_LOST
        assert code == (UNWRITTEN if lost else 0), (end, err)
        if lost and end != "all closed":
            assert "standard output could not be written" in err
            assert "The work itself ended with 0." in err
        if end not in STDOUT_LOST:
            assert bool(found) == bool(out), end
            found.decode(ENDS[end][1] or "utf-8")
    migrate.upgrade("agentic_projects", url=database)


@pytest.mark.parametrize("path", ON_A_SERVER, ids=" ".join)
@pytest.mark.usefixtures("kept")
def test_a_command_that_fails_ends_with_the_code_of_its_failure_whatever_becomes_of_its_output(
    path, tmp_path, monkeypatch
):
    store = store_of(path)
    nobody = NOBODY[store]
    monkeypatch.setenv("IS_DB_BOOTSTRAP_CONNECT_TIMEOUT", "1")
    has_report = takes(path, "--timeout")
    options = [*CALLS[path], *(["--timeout", "0.1"] if has_report else [])]
    code, _, err = Call(tmp_path / "as-it-is", path, *options, url=nobody).ended()
    assert code == (1 if path[0] in {"migrate", "setup"} else 4), err
    calls = {
        end: Call(tmp_path / end.replace(" ", "-"), path, *options, url=nobody, end=end)
        for end in FEWER
    }
    for end, call in calls.items():
        found, _, err = call.ended()
        assert found == code, (end, err)
        if end in STDOUT_LOST - {"all closed"}:
            assert "127.0.0.1:1" in err, end
    if takes(path, "--output") and path[0] not in {"setup", "migrate", "new"}:
        quiet = ["-q"] if has_report else []
        code, out, err = Call(
            tmp_path / "json", path, *options, "-o", "json", *quiet, url=nobody
        ).ended()
        assert code == 4
        [line] = err.splitlines()
        assert line.startswith(f"is-db-bootstrap: {store}: ")
        assert json.loads(out)["exit_code"] == code
        if has_report and store == "postgres":
            assert line.endswith("Is the server running, and is the address right?")


def test_a_document_is_json_in_every_encoding(tmp_path, database):
    show = (("blueprints", "show"), "novel_genesis", "-f", "json")
    plain = Call(tmp_path / "plain", *show, url=database).ended()[1]
    for end, (_, encoding) in ENDS.items():
        if encoding:
            _, out, _ = Call(tmp_path / encoding, *show, url=database, end=end).ended()
            assert json.loads(out.decode(encoding)) == json.loads(plain.decode())


# --- signals


@contextmanager
def standstill(url):
    """Nobody can look at the version table meanwhile; yields what waits until so many sessions do,
    and what is left of them.
    """
    name = url.rpartition("/")[2]
    with (
        psycopg.connect(url) as holder,
        psycopg.connect(url, autocommit=True) as watcher,
        holder.transaction(),
    ):
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")

        def others():
            query = (
                "SELECT pid, wait_event_type FROM pg_stat_activity"
                " WHERE datname = %s AND backend_type = 'client backend' AND pid NOT IN (%s, "
                "pg_backend_pid())"
            )
            return watcher.execute(query, [name, holder.info.backend_pid]).fetchall()

        yield others


def until(look, what, seconds=60):
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def assert_interrupted(out, code):
    """Stdout has one document, which says what the exit code says."""
    document = json.loads(out)
    assert (document["outcome"], document["exit_code"]) == ("interrupted", code)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def waits_for_a_lock(path):
    return path != ("wait",) and store_of(path) == "postgres"


@pytest.mark.parametrize(
    "path", [path for path in ON_A_SERVER if waits_for_a_lock(path)], ids=" ".join
)
def test_a_signal_ends_a_command_and_leaves_no_session(path, database, tmp_path):
    put_back(path, database)
    with standstill(database) as others:
        calls = {
            n: Call(tmp_path / n.name, path, *CALLS[path], "-o", "json", url=database)
            for n in SIGNALS
        }
        until(lambda: sum(event == "Lock" for _, event in others()) >= len(calls), "no call waits")
        for number, call in calls.items():
            call.process.send_signal(number)
        for number, call in calls.items():
            code, out, err = call.ended()
            assert code == 128 + number, err
            assert_interrupted(out, code)
        until(lambda: others() == [], "a session is left", seconds=10)
    migrate.upgrade("agentic_projects", url=database)


@pytest.mark.parametrize(
    "path", [path for path in ON_A_SERVER if store_of(path) != "postgres"], ids=" ".join
)
@pytest.mark.usefixtures("kept")
def test_a_signal_ends_a_command_whose_server_is_mute(path, address_of, tmp_path):
    server = urlsplit(address_of(path))
    proxy = MuteProxy(server.port, always)
    url = server._replace(netloc=f"127.0.0.1:{proxy.port}").geturl()
    calls = {n: Call(tmp_path / n.name, path, *CALLS[path], "-o", "json", url=url) for n in SIGNALS}
    until(lambda: proxy.connections >= len(calls), "no call waits")
    assert all(call.process.poll() is None for call in calls.values())
    for number, call in calls.items():
        call.process.send_signal(number)
    for number, call in calls.items():
        code, out, err = call.ended()
        assert code == 128 + number, err
        assert_interrupted(out, code)
        assert not (tmp_path / number.name / "made").exists()
    proxy.close()


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
def test_a_signal_ends_a_wait(number, database, tmp_path):
    call = Call(
        tmp_path / "wait", ("wait",), *BLUEPRINT, url="postgresql://someone@127.0.0.1:1/nowhere"
    )
    assert b"Trying again" in call.process.stderr.readline()
    call.process.send_signal(number)
    assert call.ended()[0] == 128 + number


def test_a_command_under_nohup_outlives_its_terminal(database, tmp_path):
    with standstill(database) as others:
        call = Call(tmp_path / "nohup", ("apply",), *BLUEPRINT, url=database, before=("nohup",))
        until(lambda: any(event == "Lock" for _, event in others()), "it does not wait")
        call.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert call.process.poll() is None
    assert call.ended()[0] == 0


# --- a revision that hangs, in a single run

HANGING = '''
"""One table, later."""
import subprocess, time
from alembic import op

revision = "h_0001"
down_revision = None


def upgrade():
    {hang}
    op.execute("CREATE TABLE late (id int)")


def downgrade():
    pass
'''
OWN = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("hanging", "for tests", migrations=Path(__file__).parent / "migrations")
"""
MARKER = f"87654.{os.getpid()}"


@pytest.fixture
def hanging(tmp_path, monkeypatch, postgres_url):
    """`hanging("code")`: a module with a blueprint whose only revision hangs so, on a database of
    its own.
    """
    monkeypatch.syspath_prepend(tmp_path)

    def write(hang):
        (tmp_path / "migrations").mkdir(exist_ok=True)
        (tmp_path / "migrations" / "h_0001_late.py").write_text(HANGING.format(hang=hang))
        (tmp_path / "hanging_one.py").write_text(OWN)
        return postgres_url

    yield write
    sys.modules.pop("hanging_one", None)


def left_on(url):
    """Sessions of the database, and whether the revision's table is there."""
    server, _, name = url.rpartition("/")
    with psycopg.connect(url) as connection:
        late = connection.execute("SELECT to_regclass('late')").fetchone()[0]
    with psycopg.connect(f"{server}/postgres") as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s", [name]
        ).fetchall()
    return [row[0] for row in rows], late


@pytest.mark.parametrize(
    "hang",
    [
        "time.sleep(600)",
        f"subprocess.run(['sleep', '{MARKER}'])",
        "op.execute('SELECT pg_sleep(600)')",
    ],
    ids=["in Python", "in a child process", "in SQL"],
)
@pytest.mark.parametrize("path", [("apply",), ("migrate", "init"), ("setup",)], ids=" ".join)
def test_a_revision_that_hangs_past_its_time_ends_with_the_command(
    hanging, tmp_path, monkeypatch, hang, path
):
    import psutil

    url = hanging(hang)
    monkeypatch.setenv("IS_DB_BOOTSTRAP_APPLY_TIMEOUT", "1")
    yes = ["--yes"] if path == ("setup",) else []
    call = Call(tmp_path / "run", path, "-b", "hanging_one:BLUEPRINT", *yes, url=url)
    code, out, err = call.ended()
    assert code == (4 if path == ("apply",) else 1), err
    assert "did not end within 1 s" in out.decode() + err
    assert not [p for p in psutil.process_iter(["cmdline"]) if MARKER in (p.info["cmdline"] or ())]
    until(lambda: left_on(url) == ([], None), "a session is left", seconds=10)


def test_a_program_whose_run_left_a_revision_behind_is_told_so_and_by_the_next_run_too(
    hanging, monkeypatch
):
    import threading

    from is_db_bootstrap.app import orchestrator
    from is_db_bootstrap.settings import Settings

    release = threading.Event()
    monkeypatch.setattr(time, "wait_for_the_test", release.wait, raising=False)
    url = hanging("time.wait_for_the_test(100)")
    blueprint = load_blueprint("hanging_one:BLUEPRINT")
    environ = {
        "POSTGRES_URL": url,
        "IS_DB_BOOTSTRAP_GRACE": "0.1",
        "IS_DB_BOOTSTRAP_APPLY_TIMEOUT": "1",
    }
    settings = Settings.load(blueprint, environ=environ)
    engine = orchestrator(blueprint, settings)
    try:
        [found] = engine.run().stores
        assert engine.unfinished == ("postgres",)
        assert any(
            "A thread of the process that ran this is still in the call" in note
            for note in found.notes
        )
        assert left_on(url) == ([], None)
        with psycopg.connect(
            url
        ) as connection:  # the lock of the run was given back, because its session is gone
            assert connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            ).fetchone() == (0,)
        again = orchestrator(blueprint, settings).run()
        assert again.exit_code == 4
        assert "still hangs in this process" in again.stores[0].error.message
        assert again.duration_s < 30
    finally:
        release.set()
    until(
        lambda: not [t for t in threading.enumerate() if t.name == "is-db-bootstrap-step"],
        "it hangs still",
    )
    assert left_on(url) == ([], None)
    assert orchestrator(blueprint, settings).run().exit_code == 0
