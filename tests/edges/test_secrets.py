"""Passwords through every command and every way to fail: none of them is written anywhere.

Most runs are in this process, because a start of the command takes longer than its run. A sample
runs as processes, whose command lines and children are looked at.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import time
import traceback
import uuid
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import click
import neo4j
import psutil
import psycopg
import pytest
import redis

from commands import run_here
from is_db_bootstrap import local
from is_db_bootstrap.app import bootstrapper
from is_db_bootstrap.blueprint import Blueprint, Setting
from is_db_bootstrap.blueprint.describe import describe
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.cli import group, main
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.settings import Settings, StoreUrl
from is_db_bootstrap.settings.sources import plain_variables
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from secret_words import Search, passwords
from stops import sentences_with_two_stops

SCHEME = {"postgres": "postgresql", "neo4j": "bolt", "milvus": "http", "redis": "redis"}
#: In a variable of the caller's environment, where no server has any business.
CLOUD_KEY = "AKIA" + uuid.uuid4().hex
COUNT = 4
SEED = 20261129


@pytest.fixture(scope="module")
def stack():
    """Four local servers, started by a process that has a secret in its environment."""
    before = dict(os.environ)
    os.environ["AWS_SECRET_ACCESS_KEY"] = CLOUD_KEY
    try:
        with local.ephemeral_stack() as running:
            yield running
    finally:
        os.environ.clear()
        os.environ.update(before)


class Echo(socketserver.BaseRequestHandler):
    """A server of lines that sends back what it does not understand, as many do."""

    def handle(self):
        with contextlib.suppress(OSError):
            while data := self.request.recv(4096):
                for line in data.splitlines():
                    self.request.sendall(b"-ERR unknown: " + line + b"\r\n")


class Http(BaseHTTPRequestHandler):
    def do_GET(self):
        """Repeat what was asked, with its headers."""
        body = f"{self.path} {self.headers}".encode()
        with contextlib.suppress(OSError):
            self.send_response(404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_):
        """Nothing."""


class Brief(Http):
    """Hangs up soon when no line comes, so that a client needs not wait for its own time limit."""

    timeout = 0.2


class _Threads(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """A client that has gone is no error."""

    allow_reuse_address = True


@pytest.fixture(scope="module")
def strangers():
    """The ports of two HTTP servers, of a server that repeats each line, and of nobody."""
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), Http),
        _Threads(("127.0.0.1", 0), Echo),
        ThreadingHTTPServer(("127.0.0.1", 0), Brief),
    ]
    for each in servers:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    yield {
        "http": servers[0].server_address[1],
        "echo": servers[1].server_address[1],
        "brief": servers[2].server_address[1],
        "nobody": port,
    }
    for each in servers:
        each.shutdown()
        each.server_close()


class Fuzz:
    """Runs the command with one password and looks at everything that comes out."""

    def __init__(self, stack, folder):
        self.folder = folder
        self.search = Search()
        self.runs = 0
        self.codes: dict[tuple[str, str], set[int]] = {}
        self.ports = {s.store: StoreUrl.parse(s.store, s.url).port(0) for s in stack.servers}
        self.now = {s.store: StoreUrl.parse(s.store, s.url).password for s in stack.servers}
        self.secret = ""
        #: Files of the test itself that hold the password.
        self.own: set[Path] = set()

    def use(self, password):
        """Give the three servers that have passwords this one."""
        with psycopg.connect(
            self.address("postgres", self.now["postgres"]) + "/postgres", autocommit=True
        ) as connection:
            connection.execute(psycopg.sql.SQL("ALTER ROLE postgres PASSWORD {}").format(password))
        auth = ("neo4j", self.now["neo4j"])
        with neo4j.GraphDatabase.driver(
            f"bolt://127.0.0.1:{self.ports['neo4j']}", auth=auth
        ) as driver:
            driver.execute_query(
                "ALTER USER neo4j SET PASSWORD $p CHANGE NOT REQUIRED",
                p=password,
                database_="system",
            )
        with redis.Redis(port=self.ports["redis"], password=self.now["redis"]) as client:
            client.config_set("requirepass", password)
        self.now = dict.fromkeys(STORE_ORDER, password)
        self.secret = password

    def address(self, store, password=None, *, port=None, raw=False):
        user = {"postgres": "postgres", "neo4j": "neo4j", "milvus": "root", "redis": ""}[store]
        shown = "" if password is None else ":" + (password if raw else quote(password, safe=""))
        return f"{SCHEME[store]}://{user}{shown}@127.0.0.1:{port or self.ports[store]}"

    def environ(self, form, password=None, stores=STORE_ORDER, **ports):
        """The environment that names all stores, the password in one of its forms."""
        password = self.secret if password is None else password
        secret = self.folder / "secret"
        secret.write_text(password + "\n", encoding="utf-8")
        toml = self.folder / "is-db-bootstrap.toml"
        toml.unlink(missing_ok=True)
        self.own |= {secret, toml}
        env, tables = {}, []
        for store in stores:
            name, port = store.upper(), ports.get(store)
            bare, full = self.address(store, port=port), self.address(store, password, port=port)
            if form in {"url", "raw"}:
                raw = form == "raw" and not has_escape(password)
                env[f"{name}_URL"] = self.address(store, password, port=port, raw=raw)
            elif form == "variable":
                env |= {f"{name}_URL": bare, f"{name}_PASSWORD": password}
            elif form == "file":
                env |= {f"{name}_URL": bare, f"{name}_PASSWORD_FILE": str(secret)}
            elif form == "toml-url":
                tables.append(f"[{store}]\nurl = {json.dumps(full)}\n")
            elif form == "toml":
                tables.append(
                    f"[{store}]\nurl = {json.dumps(bare)}\n"
                    f"password = {json.dumps(password, ensure_ascii=False)}\n"
                )
            else:
                tables.append(
                    f"[{store}]\nurl = {json.dumps(bare)}\n"
                    f"password_file = {json.dumps(str(secret))}\n"
                )
        if tables:
            toml.write_text("".join(tables), encoding="utf-8")
        return env

    def __call__(self, *args, env, path, expected=None):
        """One run in this process; its exit code."""
        out, err = io.StringIO(), io.StringIO()
        before, code = dict(os.environ), None
        os.environ.clear()
        patience = "1" if path in {"nobody", "http", "echo", "brief"} else "20"
        os.environ.update(plain_environment() | {"IS_DB_BOOTSTRAP_CONNECT_TIMEOUT": patience} | env)
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                contextlib.chdir(self.folder),
            ):
                main([str(a) for a in args])
        except SystemExit as end:
            code = end.code
        except BaseException:  # noqa: BLE001 - a bug's traceback is a text as others are
            err.write(traceback.format_exc())
        finally:
            os.environ.clear()
            os.environ.update(before)
        self.runs += 1
        self.codes.setdefault((args[0], path), set()).add(code)
        assert not sentences_with_two_stops(err.getvalue()), err.getvalue()
        self.look(f"{out.getvalue()}\n{err.getvalue()}", " ".join(map(str, args))[:60], path)
        assert "Traceback" not in err.getvalue(), err.getvalue()
        assert expected is None or code in expected, (
            args,
            path,
            code,
            out.getvalue(),
            err.getvalue(),
        )
        return out.getvalue()

    def look(self, text, *where):
        assert self.search.leaks(text, self.secret) == [], (where, text)

    def look_at_files(self):
        """Every file that was written, with its name."""
        seen = 0
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.own:
                self.look(path.name + path.read_bytes().decode("utf-8", "replace"), path)
                seen += 1
        return seen


def has_escape(text):
    """Whether a % in it is read as an escape when it stands in an address."""
    return any(
        text[i + 1 : i + 3].isalnum()
        and all(c in "0123456789abcdefABCDEF" for c in text[i + 1 : i + 3])
        for i, c in enumerate(text)
        if c == "%"
    )


def plain_environment():
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "IS_DB_BOOTSTRAP_CACHE", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if k in kept} | {
        "IS_DB_BOOTSTRAP_BLUEPRINT": "shop",
    }


FORMS = ("url", "raw", "variable", "file", "toml-url", "toml", "toml-file")
LOG = ("--termination-log", "termination.json")
#: Every command on its way to 0, but for those that the fleet's and the local stack's tests have.
READING = (
    ("plan", *LOG),
    ("plan", "-o", "json", "-v"),
    ("plan", "-o", "markdown", "-v"),
    ("status", "-o", "json", *LOG),
    ("status", "-v"),
    ("wait", "-v"),
    ("doctor", "-v", *LOG),
    ("doctor", "-o", "json"),
    ("verify", "--strict", "-o", "json"),
    ("verify", "--strict", "-o", "junit"),
    ("repair", "--yes", "-o", "json"),
    ("migrate", "current"),
    ("migrate", "check"),
    ("migrate", "history", "-b", "shop"),
    ("migrate", "sql"),
    ("migrate", "upgrade"),
    ("migrate", "init"),
    ("migrate", "stamp", "head", "--yes"),
    ("migrate", "accept", "--all"),
    ("unlock", "postgres", "--yes"),
    ("adopt", "--yes", *LOG),
    ("adopt", "-o", "json", "-v"),
    ("check", "-b", "shop"),
    ("grants",),
    ("grants", "-o", "json"),
    ("blueprints",),
    ("blueprints", "show", "shop"),
    ("blueprints", "show", "shop", "-f", "json"),
    ("local", "status", "--data-dir", "none"),
    ("local", "down", "--data-dir", "none"),
    ("migrate", "ini"),
)
#: Those on the keys, and on the versions of a collection: back, and to the declared one again.
OF_ONE_STORE = (
    ("redis", "fix-ttl", "--yes"),
    ("redis", "audit"),
    ("redis", "audit", "-o", "json"),
    ("vector", "rollback"),
    ("vector", "status"),
    ("vector", "status", "-o", "json"),
    ("vector", "upgrade"),
    ("vector", "prune", "--yes"),
)
#: Those that take longer; one password each.
WRITING = (
    ("selftest", "-o", "json"),
    ("setup", "--yes"),
    ("migrate", "downgrade", "base", "--yes"),
    ("revision", "--empty", "-m", "more"),
)
FAILING = (
    "adopt",
    "apply",
    "plan",
    "verify",
    "status",
    "wait",
    "doctor",
    "selftest",
    "setup",
    "repair",
)


@pytest.fixture(scope="module")
def fuzz(stack, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    made = Fuzz(stack, folder)
    made.secret = next(passwords(1, SEED))
    made("new", "shop", env={}, path="ok", expected={0})
    return made


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(COUNT))
def test_no_part_of_a_password_comes_out_of_any_command(fuzz, strangers, number):
    password = list(passwords(COUNT, SEED))[number]
    rng = random.Random(number)
    fuzz.use(password)
    # All is well.
    fuzz("apply", "-v", *LOG, env=fuzz.environ(FORMS[number]), path="ok", expected={0})
    for index, command in enumerate(READING):
        env = fuzz.environ(FORMS[(index + number) % len(FORMS)])
        fuzz(*command, env=env, path="ok", expected={0, 3} if command[0] == "verify" else {0})
    _earlier_version(fuzz)
    with redis.Redis(port=fuzz.ports["redis"], password=password) as client:
        client.set("shop:session:endless", "x")
    for index, command in enumerate(OF_ONE_STORE):
        env = fuzz.environ(FORMS[(index + number) % len(FORMS)])
        fuzz(*command, env=env, path="ok", expected={0})
    with redis.Redis(port=fuzz.ports["redis"], password=password) as client:
        assert client.ttl("shop:session:endless") > 0
    fuzz(*WRITING[number], env=fuzz.environ(rng.choice(FORMS)), path="ok", expected={0})
    flags = [part for s in STORE_ORDER for part in (f"--{s}-url", fuzz.address(s, password))]
    fuzz("apply", "-o", "json", *flags, env={}, path="ok", expected={0})
    # It is not.
    pending = ("--only", "redis", "--redis-url", fuzz.address("redis", password) + "/6")
    fuzz("plan", "--exit-code", *pending, *LOG, env={}, path="pending", expected={3})
    for store in STORE_ORDER:
        _fail(fuzz, store, strangers, rng)
    for sub in dict.fromkeys(command[:2] for command in OF_ONE_STORE):
        _fail_on_one(fuzz, sub, strangers, rng)
    _held(fuzz)
    _conflict(fuzz)
    assert fuzz.look_at_files() > 10
    assert stat.S_IMODE((fuzz.folder / "termination.json").stat().st_mode) == 0o600
    _look_at_servers(fuzz)
    sys.stdout.write(
        f"password {number}: {fuzz.runs} runs of {len(fuzz.codes)} pairs of a command and an end, "
        f"{fuzz.search.texts} texts of {fuzz.search.characters} characters\n"
    )


def _fail(fuzz, store, strangers, rng):
    """Wrong password, nobody there, another server there, no address at all, for one store."""
    short = ("--only", store, "--timeout", "0.2")
    for path in ("wrong password", "nobody", "http", "echo"):
        command, form = rng.choice(FAILING), rng.choice(FORMS)
        output = ("-o", rng.choice(("json", "text"))) if command != "setup" else ("--yes",)
        if path == "wrong password":
            wrong = fuzz.secret + "x"
            env = fuzz.environ(form, password=wrong, stores=[store])
            codes = {1, 5} if store != "milvus" else None  # Milvus Lite asks for none
        else:
            env = fuzz.environ(form, stores=[store], **{store: strangers[path]})
            codes = {1, 2, 4, 5, 6}
        fuzz(command, *short, *output, *LOG, env=env, path=path, expected=codes)
    for text in malformed(SCHEME[store], fuzz.secret):
        command = rng.choice(FAILING)
        fuzz(command, *short, f"--{store}-url", text, *LOG, env={}, path="malformed", expected={2})
    fuzz.environ("url")  # no TOML file is left for the next
    (fuzz.folder / "is-db-bootstrap.toml").unlink(missing_ok=True)
    fuzz("plan", fuzz.address(store, fuzz.secret), env={}, path="usage", expected={2})
    fuzz(fuzz.address(store, fuzz.secret, raw=True), env={}, path="usage", expected={2})
    if store == "postgres":
        for text in malformed(SCHEME[store], fuzz.secret):
            tried = ("plan", "--only", store, "--try", text)
            fuzz(*tried, env={}, path="malformed", expected={2})
        for sub in (
            ("current",),
            ("check",),
            ("upgrade",),
            ("init",),
            ("downgrade",),
            ("stamp", "head", "--yes"),
            ("accept", "--all"),
        ):
            for path in ("nobody", "http" if sub == ("current",) else "brief"):
                env = fuzz.environ(rng.choice(FORMS), stores=[store], postgres=strangers[path])
                fuzz("migrate", *sub, "--timeout", "0.2", env=env, path=path, expected={1, 2})
        for other in ("mysql+pymysql", "mariadb+pymysql"):
            for text in (
                f"{other}://me:{quote(fuzz.secret)}@127.0.0.1:{strangers['nobody']}/x",
                f"{other}://me:{fuzz.secret}",
            ):
                command = ("migrate", "current", "--url", text, "-b", "agentic_projects")
                fuzz(*command, env={}, path="another engine", expected={1, 2})


def _fail_on_one(fuzz, sub, strangers, rng):
    """The same for a command on one store alone."""
    store = {"vector": "milvus", "redis": "redis"}[sub[0]]
    args = (*sub, *(() if sub[1] in {"audit", "status", "rollback", "upgrade"} else ("--yes",)))
    for path in ("nobody", rng.choice(("http", "echo"))):
        env = fuzz.environ(rng.choice(FORMS), stores=[store], **{store: strangers[path]})
        output = ("-o", rng.choice(("json", "text")))
        fuzz(*args, *output, env=env, path=path, expected={1, 2, 4, 5, 6})
    if store == "redis":  # Milvus Lite asks for none
        env = fuzz.environ(rng.choice(FORMS), password=fuzz.secret + "x", stores=[store])
        fuzz(*args, env=env, path="wrong password", expected={1, 5})
    (fuzz.folder / "is-db-bootstrap.toml").unlink(missing_ok=True)
    for text in malformed(SCHEME[store], fuzz.secret):
        fuzz(*args, f"--{store}-url", text, env={}, path="malformed", expected={2})


def _earlier_version(fuzz):
    """An empty version of the collection before the declared one."""
    [declared] = load_blueprint(str(fuzz.folder / "shop")).collections
    earlier = replace(declared, name="shop_notes_v0", alias="")
    blueprint = Blueprint("earlier", "for tests", collections=(earlier,))
    store = MilvusBootstrapper(fuzz.address("milvus"), blueprint)
    BootstrapOrchestrator([store]).run().raise_for_failure()
    store.close()


def malformed(scheme, word):
    yield f"{scheme}:/me:{word}@host"
    yield f"nope://me:{word}@host/db"
    yield f"{scheme}://me:{word}@ho st/db"
    yield f"{scheme}://me:{word}@host:{word.replace('@', '')}/db"
    yield f"{scheme}://host:{word.replace('@', '')}/db"
    yield f"{scheme}://me:{word}@host:99999/db"
    yield f"{scheme}://host/db?password=x&{word}"


def _held(fuzz):
    """The lock of another run is met; what it says of itself is looked at where a run sees it."""
    blueprint = load_blueprint(str(fuzz.folder / "shop"))
    settings = Settings.load(blueprint, environ=fuzz.environ("url"))
    url = replace(settings.need("postgres"), database=f"held_{uuid.uuid4().hex[:8]}")
    store = bootstrapper("postgres", url, blueprint, settings)
    store.create_database()
    lock = store.try_lock("is-db-bootstrap test on here")
    try:
        for output in ("text", "json"):
            args = (
                "--only",
                "postgres",
                "--timeout",
                "0.3",
                "-o",
                output,
                "--postgres-url",
                url.reveal(),
                *LOG,
            )
            fuzz("apply", *args, env={}, path="lock held", expected={7})
        seen = fuzz(
            "status",
            "--only",
            "postgres",
            "--postgres-url",
            url.reveal(),
            env={},
            path="lock held",
            expected={0},
        )
        assert "locked by" in seen
    finally:
        lock.release()
        store.close()


def _conflict(fuzz):
    """Something else is where our record of Redis belongs."""
    with redis.Redis(port=fuzz.ports["redis"], password=fuzz.secret, db=5) as client:
        client.set("is-db-bootstrap:conventions:shop", "not ours: anna@x")
    address = fuzz.address("redis", fuzz.secret) + "/5"
    for output in ("text", "json"):
        fuzz(
            "apply",
            "--only",
            "redis",
            "-o",
            output,
            "--redis-url",
            address,
            *LOG,
            env={},
            path="conflict",
            expected={6},
        )


def _look_at_servers(fuzz):
    """What the stores themselves were told: names of sessions, queries, comments, records."""
    with psycopg.connect(
        fuzz.address("postgres", fuzz.secret) + "/shop", autocommit=True
    ) as connection:
        rows = connection.execute(
            "SELECT application_name, query FROM pg_stat_activity"
            " UNION ALL SELECT 'comment', description FROM pg_description"
            " WHERE objsubid = 0 AND objoid > 16000"
        ).fetchall()
    fuzz.look(repr(rows), "pg_stat_activity")
    auth = ("neo4j", fuzz.secret)
    with neo4j.GraphDatabase.driver(f"bolt://127.0.0.1:{fuzz.ports['neo4j']}", auth=auth) as driver:
        fuzz.look(
            repr(driver.execute_query("MATCH (n) RETURN properties(n) AS p").records), "nodes"
        )
    with redis.Redis(port=fuzz.ports["redis"], password=fuzz.secret) as client:
        fuzz.look(repr([(key, client.dump(key)) for key in client.scan_iter()]), "keys")


def _watch(process, found):
    """The command lines of a process and all that it starts, until it ends."""
    with contextlib.suppress(psutil.Error):
        root = psutil.Process(process.pid)
        while process.poll() is None:
            for each in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found.add(" ".join(each.cmdline()))
            time.sleep(0.01)


def test_a_fleet_shows_no_password_in_its_processes_ledger_and_reports(fuzz):
    [password] = list(passwords(1, SEED + 1))
    fuzz.use(password)
    targets = [
        {"name": "good", "redis": {"database": "1"}},
        {
            "name": "own",
            "redis": {"url": fuzz.address("redis"), "password": password, "database": "2"},
        },
        {"name": "wrong", "redis": {"url": fuzz.address("redis", password + "x") + "/3"}},
        {
            "name": "raw",
            "redis": fuzz.address("redis", password, raw=not has_escape(password)) + "/4",
        },
        {"name": "broken", "redis": f"redis://me:{password}@ho st"},
    ]
    text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in targets)
    for output in ("text", "json"):
        ledger = fuzz.folder / f"ledger-{output}"
        command = [
            "is-db-bootstrap",
            "apply",
            "--only",
            "redis",
            "--targets",
            "-",
            "--continue-on-error",
            "--jobs",
            "2",
            "--resume",
            str(ledger),
            "-v",
            "-o",
            output,
            *LOG,
        ]
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            cwd=fuzz.folder,
            text=True,
            encoding="utf-8",
            env=plain_environment() | fuzz.environ("file"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        seen: set[str] = set()
        watcher = threading.Thread(target=_watch, args=(process, seen))
        watcher.start()
        out, err = process.communicate(text, timeout=120)
        watcher.join()
        assert process.returncode != 0
        assert "good" in out + err
        assert seen, "no process was seen"
        fuzz.look(f"{out}\n{err}\n{seen}", "fleet", output)
        assert stat.S_IMODE(ledger.stat().st_mode) == 0o600
        assert {json.loads(line)["target"] for line in ledger.read_text().splitlines()} >= {
            "good",
            "own",
            "raw",
            "wrong",
        }
    fuzz.look_at_files()


def test_processes_have_no_password_in_their_command_lines(fuzz):
    [password] = list(passwords(1, SEED + 2))
    fuzz.use(password)
    for command in (("apply",), ("status", "-o", "json")):
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("is-db-bootstrap")), *command],
            cwd=fuzz.folder,
            text=True,
            env=plain_environment() | fuzz.environ("variable"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        seen: set[str] = set()
        watcher = threading.Thread(target=_watch, args=(process, seen))
        watcher.start()
        shown = process.communicate(timeout=120)[0]
        watcher.join()
        assert process.returncode == 0, shown
        fuzz.look(f"{shown}\n{seen}", command)


def test_local_servers_get_neither_our_environment_nor_a_password_on_their_command_line(stack):
    given = json.loads((stack.data_dir / "passwords.json").read_text())
    assert set(given) == {"postgres", "neo4j", "redis"}
    looked_at = 0
    for server in stack.servers:
        root = psutil.Process(server.pid)
        for each in (root, *root.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                told = f"{each.cmdline()} {each.environ()}"
                assert CLOUD_KEY not in told, server.store
                assert "AWS_SECRET_ACCESS_KEY" not in told, server.store
                assert not [name for name, word in given.items() if word in told], server.store
                looked_at += 1
    assert looked_at >= 4


def test_files_and_folders_of_a_local_stack_are_their_owners(stack):
    open_to_others = []
    for path in [stack.data_dir, *stack.data_dir.rglob("*")]:
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(path.stat().st_mode)
            allowed = 0o711 if path == stack.data_dir and os.geteuid() == 0 else 0o700
            inside = stack.data_dir not in {path.parent, path}  # nobody else gets there
            if mode & ~allowed and not inside:
                open_to_others.append((str(path), oct(mode)))
    assert [row for row in open_to_others if not row[0].endswith("/lock")] == []
    for server in stack.servers:
        assert stat.S_IMODE(server.log.stat().st_mode) == 0o600
        assert stat.S_IMODE(server.log.parent.stat().st_mode) == 0o700


def every_command(command=None, path=()):
    """The path of each command, and its parameters."""
    command = group if command is None else command
    context = click.Context(command)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))
    if path:
        yield path, command.params


#: Commands that are run with passwords in another place than `READING`, `WRITING` and `FAILING`.
ELSEWHERE = {
    ("new",): "the fixture `fuzz`",
    ("local", "reset"): "test_local_stores.py; it shows no address",
    ("local", "up"): "the fixture `stack`",
}


def test_every_command_is_run_with_passwords():
    run = [*READING, *OF_ONE_STORE, *WRITING, *[(name,) for name in FAILING], *ELSEWHERE]
    paths = {path for path, _ in every_command()}
    missing = [path for path in paths if not any(each[: len(path)] == path for each in run)]
    assert missing == []


def misplaced(address):
    """An address in the place of each value that is none, on every command and without one."""
    yield (address,)
    for option in ("--blueprint", "--config", "-b"):
        yield (option, address)
    for path, params in every_command():
        yield (*path, address)
        for param in params:
            if isinstance(param, click.Argument):
                yield (*path, "--", address)
            elif not param.is_flag and not param.name.endswith("url"):
                for name in param.opts:
                    glued = f"{name}={address}" if name.startswith("--") else f"{name}{address}"
                    yield (*path, name, address)
                    yield (*path, glued)


@pytest.mark.parametrize("variable", [*plain_variables()])
def test_an_address_in_another_variable_is_refused_and_not_repeated(tmp_path, variable):
    password = next(passwords(1, SEED + 7))
    log = tmp_path / "log.json"
    for address in (f"postgresql://me:{password}@host/db", f"redis:/me:{password}@host"):
        given = plain_environment() | {"IS_DB_BOOTSTRAP_BLUEPRINT": "novel_genesis"}
        environ = given | {variable: address}
        args = ("plan", "--only", "postgres", "-o", "json", "--termination-log", log)
        code, out, err = run_here(args, tmp_path, environ)
        told = f"{out} {err} {log.read_text()}"
        assert code == 2, told
        assert f"{variable} is an address" in err
        assert Search().leaks(told, password) == [], told


def test_an_address_in_another_place_of_a_file_is_refused_and_not_repeated(tmp_path):
    password = next(passwords(1, SEED + 8))
    value = json.dumps(f"postgresql://me:{password}@host/db", ensure_ascii=False)
    lines = [f"blueprint = {value}", f"[timing]\ntimeout_s = {value}"]
    for store in STORE_ORDER:
        keys = ["username", "password_file", "ca_file"]
        keys += ["schema"] if store == "postgres" else []
        lines += [f"[{store}]\n{key} = {value}" for key in keys]
    for line in lines:
        (tmp_path / "is-db-bootstrap.toml").write_text(line, encoding="utf-8")
        environ = plain_environment() | {"IS_DB_BOOTSTRAP_BLUEPRINT": "novel_genesis"}
        if line.startswith("blueprint"):
            del environ["IS_DB_BOOTSTRAP_BLUEPRINT"]
        code, out, err = run_here(("plan",), tmp_path, environ)
        assert code == 2, err
        assert "is an address" in err
        assert Search().leaks(out + err, password) == [], err


@pytest.mark.parametrize("name", ["BROKER_URL", "BROKER_URI", "BROKER_DSN"])
def test_a_setting_of_a_blueprint_that_is_named_as_an_address_takes_one_and_hides_it(
    tmp_path, name
):
    def fail(_blueprint, values):
        raise ValueError(f"no broker at {values[name]}")

    def blueprint(**said):
        setting = Setting(name, value, "the broker", pattern="amqp:.*")
        return Blueprint("shop", "A trial.", settings=(setting,), **said)

    password = next(passwords(1, SEED + 10))
    value = f"amqp://shop:{password}@mq:5672/"
    file = tmp_path / "is-db-bootstrap.toml"
    file.write_text(
        f"[settings]\n{name} = {json.dumps(value, ensure_ascii=False)}\n", encoding="utf-8"
    )
    of_file = Settings.load(blueprint(), environ={}, file=file)
    found = Settings.load(blueprint(), environ={name: value})
    assert found.values == of_file.values == {name: value}
    seen = []
    keep = blueprint(configure=lambda declared, values: seen.append(values[name]) or declared)
    keep.resolve(found.values)
    assert seen == [value]
    told = [repr(found), json.dumps(describe(keep), ensure_ascii=False)]
    for declared, given in (
        (blueprint(configure=fail), found.values),
        (keep, {name: value.replace("amqp", "http")}),
    ):
        with pytest.raises(ConfigurationError, match=r"://\*\*\*") as caught:
            declared.resolve(given)
        told.append("".join(traceback.format_exception(caught.value)))
    assert Search().leaks("\n".join(told), password) == []


def test_an_address_in_a_setting_that_is_not_named_as_one_is_refused():
    declared = Blueprint("shop", "A trial.", settings=(Setting("BROKER", "x", "the broker"),))
    with pytest.raises(ConfigurationError, match=r"BROKER is an address \(amqp://\*\*\*\)"):
        Settings.load(declared, environ={"BROKER": "amqp://shop:hunter22@mq:5672/"})


@pytest.mark.parametrize("number", range(3))
def test_an_address_in_the_place_of_another_value_is_refused_and_not_repeated(tmp_path, number):
    password = list(passwords(3, SEED + 5))[number]
    search, calls = Search(), 0
    for form in (
        f"postgresql://me:{password}@host/db",
        f"redis:/me:{password}@host",
        f"postgresql://host/db?user=me&password={password}",
        f"mysql+pymysql://me:{password}",
    ):
        for args in misplaced(form):
            code, out, err = run_here(args, tmp_path, plain_environment())
            told = out + err
            assert code == 2, (args, told)
            assert search.leaks(told, password) == [], (args, told)
            assert list(tmp_path.rglob("*")) == [], args
            calls += 1
    assert calls > 600
    sys.stdout.write(f"password {number}: {calls} calls, {search.characters} characters\n")


def test_a_blueprint_that_is_called_like_an_address_is_not_repeated():
    """The fixtures, the functions of `migrate` and `access` load one by its name too."""
    password = next(passwords(1, SEED + 9))
    for name in (f"postgresql://me:{password}@host/db", Path(f"redis://me:{password}@host")):
        with pytest.raises(ConfigurationError, match="is an address") as caught:
            load_blueprint(name)
        told = "".join(traceback.format_exception(caught.value))
        assert Search().leaks(told, password) == []


def test_a_bug_is_shown_without_the_addresses_of_the_command_line(tmp_path, monkeypatch):
    """A traceback repeats values too."""
    password = next(passwords(1, SEED + 6))
    address = f"postgresql://me:{quote(password, safe='')}@host/db"

    def fail(*_args, **_given):
        raise RuntimeError(f"cannot take {address!r} nor {Path(address)}")

    monkeypatch.setattr("is_db_bootstrap.app.orchestrator", fail)
    args = ("plan", "-b", "novel_genesis", "--only", "postgres", "--postgres-url", address)
    code, _, told = run_here(args, tmp_path, plain_environment())
    assert code == 1
    assert "Traceback" in told
    assert "cannot take 'postgresql://***' nor postgresql://***" in told
    assert Search().leaks(told, password) == []


def test_the_password_of_a_maven_mirror_is_sent_and_not_shown(tmp_path):
    import base64
    import hashlib

    from is_db_bootstrap.errors import BootstrapError
    from is_db_bootstrap.local.download import Artifact, fetch

    asked, content = [], b"a jar"

    class Mirror(Http):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            if "good" not in self.path:
                super().do_GET()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place, digest = f"127.0.0.1:{server.server_address[1]}", hashlib.sha256(content).hexdigest()
    search, runs = Search(), 0
    nobody = "127.0.0.1:9/x"  # its retries take seconds, so it is asked once
    for word in passwords(10, SEED + 3):
        expected = "Basic " + base64.b64encode(f"me:{word}".encode()).decode()
        for shown in (quote(word, safe=""), word if not has_escape(word) else quote(word)):
            for address, name in (
                (f"http://me:{shown}@{place}/maven2/", "good"),
                (f"http://me:{shown}@{place}/maven2", "bad"),
                (f"http://me:{shown}@{nobody}", "bad"),
                (f"http://me:{shown}@ho st/x", "bad"),
            ):
                asked.clear()
                folder = tmp_path / uuid.uuid4().hex
                lines: list[str] = []
                with pytest.MonkeyPatch.context() as patch:
                    patch.setenv("IS_DB_BOOTSTRAP_MAVEN_URL", address)
                    try:
                        fetch(
                            "neo4j",
                            "test",
                            [Artifact(digest, len(content), "org", name, "1")],
                            folder,
                            lines.append,
                        )
                    except BootstrapError as exc:
                        assert name == "bad"
                        lines.append("".join(traceback.format_exception(exc)))
                    else:
                        assert (name, (folder / "good-1.jar").read_bytes()) == ("good", content)
                runs += 1
                nobody = "127.0.0.1:99999/x" if nobody in address else nobody
                assert set(asked) <= {expected}
                assert asked or "maven2" not in address
                assert search.leaks("\n".join(lines), word) == [], lines
    server.shutdown()
    server.server_close()
    assert runs == 80


def test_a_server_that_repeats_a_command_in_its_error_does_not_give_the_password_away(
    make_server, tmp_path
):
    """Redis does so for a command that was renamed away, AUTH too."""
    server = make_server("redis", "7")
    server.stop()
    conf = server.home / "redis.conf"
    lines = conf.read_text()
    server.configure = lambda: conf.write_text(f'{lines}rename-command AUTH ""\n')
    server.start()
    store = StoreUrl.parse("redis", server.url)
    for word in passwords(5, SEED + 4):
        url = replace(store, password=word, username="me")
        client = bootstrapper("redis", url, load_blueprint("novel_genesis"), Settings({}))
        deadline = time.monotonic() + 60
        while True:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - any error, with all its causes
                client.ping(2.0)
            if "does not answer" not in str(caught.value) or time.monotonic() > deadline:
                break
        told = "".join(traceback.format_exception(caught.value))
        assert "unknown command" in told
        assert Search().leaks(told, word) == []
