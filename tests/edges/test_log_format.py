"""`--log-format json` and `--result-file`: what a collector of logs and a next step of CI read."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import jsonschema
import psycopg
import pytest

from commands import run_here
from is_db_bootstrap.cli import _result_file
from pages import ROOT

pytestmark = pytest.mark.postgres
SCHEMA = json.loads((ROOT / "docs/reference/result.schema.json").read_text(encoding="utf-8"))
FAILURE = json.loads((ROOT / "docs/reference/failure.schema.json").read_text(encoding="utf-8"))
FIELDS = {"time", "level", "run_id", "event", "message"}
REVISION = '''"""Prints, and leaves half a line."""
import os
import sys
from alembic import op

revision = "loud_1"
down_revision = None


def upgrade():
    print("a revision prints this")
    sys.stderr.write("\\nis-db-bootstrap: warning: and this\\nhalf a line \\u202e")
    op.execute("CREATE TABLE IF NOT EXISTS loud (id int)")


def downgrade():
    op.execute("DROP TABLE loud")
'''
BLUEPRINT = """
from pathlib import Path

from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("loud", "prints", migrations=Path(__file__).parent / "migrations")
"""


@pytest.fixture
def folder(tmp_path):
    """The folder of a blueprint whose revision prints."""
    folder = tmp_path / "loud"
    (folder / "migrations").mkdir(parents=True)
    (folder / "blueprint.py").write_text(BLUEPRINT, encoding="utf-8")
    (folder / "migrations" / "loud_1.py").write_text(REVISION, encoding="utf-8")
    return tmp_path


def call(folder, url, *words):
    """One call as a process: exit code, stdout, and the records on stderr, each of them read."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "POSTGRES_URL": url}
    done = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", *words],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, [json.loads(line) for line in done.stderr.splitlines()]


def test_each_line_on_stderr_is_a_record_with_the_id_of_the_run(folder, postgres_url):
    words = ("-b", "loud", "-o", "json", "--log-format", "json", "--only", "postgres")
    code, out, records = call(folder, postgres_url, "apply", *words)
    assert code == 0
    result = json.loads(out)
    assert all(record.keys() >= FIELDS for record in records)
    assert {record["run_id"] for record in records} == {result["run_id"]}
    messages = {record["message"]: record["level"] for record in records}
    assert messages["a revision prints this"] == "info"
    assert messages["and this"] == "warning"
    assert messages["half a line \u202e"] == "info"
    changes = [record for record in records if record["event"] == "change"]
    change = next(record["change"] for record in changes if record["change"]["name"] == "loud_1")
    assert (change["kind"], change["outcome"]) == ("revision", "changed")
    assert records[-1]["event"] == "finished" or records[-1]["message"].startswith("half")
    ended = next(record for record in records if record["event"] == "finished")
    assert (ended["outcome"], ended["exit_code"]) == ("changed", 0)


def begin(folder, url):
    """An apply that goes on: its process, whose stderr is read record by record."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "POSTGRES_URL": url}
    return subprocess.Popen(
        [sys.executable, "-m", "is_db_bootstrap", "apply", "-b", "loud", "--log-format", "json"],
        cwd=folder,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def next_record(process, event, message=""):
    """The next record of this event, in whose message these words stand."""
    while True:
        record = json.loads(process.stderr.readline())
        if record["event"] == event and message in record["message"]:
            return record


def test_the_holder_of_a_lock_is_told_by_the_id_of_its_run(folder, postgres_url):
    """The id leads from the message of the run that waits to the log of the run that it met."""
    held = REVISION.replace(
        "print(", 'op.execute("SELECT pg_advisory_xact_lock(77)")\n    print(', 1
    )
    (folder / "loud" / "migrations" / "loud_1.py").write_text(held, encoding="utf-8")
    with psycopg.connect(postgres_url, dbname="postgres", autocommit=True) as server:
        name = psycopg.conninfo.conninfo_to_dict(postgres_url)["dbname"]
        server.execute(f'CREATE DATABASE "{name}"')
    with psycopg.connect(postgres_url, autocommit=True) as blocker:
        blocker.execute("SELECT pg_advisory_lock(77)")
        with begin(folder, postgres_url) as first:
            run_id = next_record(first, "change-started", "loud_1")["run_id"]
            with begin(folder, postgres_url) as second:
                waiting = next_record(second, "waiting")
                blocker.execute("SELECT pg_advisory_unlock(77)")
                second.stderr.read()
            first.stderr.read()
    assert run_id in waiting["message"]
    assert waiting["run_id"] != run_id
    assert waiting["level"] == "warning"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_failure_is_one_record_of_the_level_error(folder):
    nobody = "postgresql://me:secret-word@127.0.0.1:1/x"
    words = ("apply", "-b", "loud", "--timeout", "0.1", "--log-format", "json")
    code, out, records = call(folder, nobody, *words)
    assert code == 4
    assert "secret-word" not in out + json.dumps(records)
    failed = [record for record in records if record["event"] == "failed"]
    assert [record["level"] for record in failed] == ["error"]
    quiet = call(folder, nobody, *words, "--quiet")[2]
    assert {record["level"] for record in quiet} <= {"error", "info"}
    assert {record["event"] for record in quiet} == {"failed", "finished"}


def test_a_setup_has_records_of_its_runs_and_each_thing_that_went_wrong_is_an_error(folder):
    words = ("setup", "-b", "loud", "--yes", "--timeout", "0.1", "--log-format", "json", "-ojson")
    unwritten = ("--result-file", "/dev/full", "--termination-log", "/dev/full")
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": "postgresql://127.0.0.1:1/x"}
    code, out, err = run_here((*words, *unwritten), folder, environ)
    records = [json.loads(line) for line in err.splitlines()]
    assert code == 1
    assert {record["run_id"] for record in records} == {json.loads(out)["run_id"]}
    assert [record["event"] for record in records if record["event"] == "phase"]
    messages = [r["message"] for r in records if (r["event"], r["level"]) == ("message", "error")]
    assert ["Step 2" in messages[0], *("/dev/full" in each for each in messages[1:])] == [True] * 3


def test_a_migrate_command_and_an_unlock_have_one_id_and_leave_their_document(
    folder, postgres_url, tmp_path
):
    file = tmp_path / "result.json"
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": postgres_url}
    asked = ("-b", "loud", "--log-format", "json", "--result-file", str(file))

    def ended(*words, code=0):
        found, out, err = run_here((*words, *asked), folder, environ)
        records = [json.loads(line) for line in err.splitlines()]
        document = json.loads(file.read_text())
        assert (found, document["exit_code"]) == (code, code), err
        assert {record["run_id"] for record in records} <= {document["run_id"]}
        return document, out, records

    document, out, records = ended("migrate", "init")
    assert (document["outcome"], document["revisions"], out) == ("changed", ["loud_1"], "loud_1\n")
    assert [r["change"]["name"] for r in records if r["event"] == "change"][-1] == "loud_1"
    assert ended("migrate", "current")[0]["is_head"] is True
    assert ended("unlock", "postgres", "--yes")[0]["outcome"] == "unchanged"
    assert ended("migrate", "stamp", "head", code=2)[0]["outcome"] == "failed"
    with psycopg.connect(postgres_url, autocommit=True) as session:
        session.execute("INSERT INTO loud VALUES (1)")
    document, _, records = ended("migrate", "downgrade", code=2)
    assert document["error"]["hint"] == "Say --yes."
    said = {r["message"]: r["level"] for r in records if r["event"] == "message"}
    assert [level for text, level in said.items() if "no terminal" in text] == ["error"]
    environ["POSTGRES_URL"] = "postgresql://127.0.0.1:1/x"
    document, _, records = ended("migrate", "upgrade", "--timeout", "0.1", code=1)
    [failed] = [record["message"] for record in records if record["event"] == "failed"]
    assert document["error"]["message"] in failed


def test_a_rung_that_is_not_reached_is_a_record_with_its_cause_and_the_next_step(folder):
    words = ("wait", "-b", "loud", "--timeout", "0.1", "--log-format", "json")
    code, _, records = call(folder, "postgresql://127.0.0.1:1/x", *words)
    assert code == 4
    rungs = [record for record in records if record["event"] == "rung"]
    assert [(each["rung"]["rung"], each["rung"]["ok"]) for each in rungs] == [
        ("name", True),
        ("port", False),
    ]
    missed = rungs[1]
    assert (missed["store"], missed["phase"], missed["level"]) == ("postgres", "wait", "warning")
    assert missed["message"].startswith("postgres: port answers: no, postgresql://postgres@127.")
    assert missed["rung"]["hint"].startswith("Is the server running")
    assert missed["rung"]["is_permanent"] is False
    failed = next(record for record in records if record["event"] == "failed")
    assert (failed["error"]["kind"], failed["level"]) == ("unavailable", "error")
    assert failed["error"]["hint"]
    ended = next(record for record in records if record["event"] == "finished")
    assert (ended["level"], ended["exit_code"]) == ("error", 4)


@pytest.mark.parametrize(
    ("words", "level", "said"),
    [
        ("apply -b no_such_blueprint --log-format json", "error", "no_such_blueprint"),
        ("apply --log-format json --only mysql", "error", "mysql"),
    ],
)
def test_a_call_that_is_refused_is_a_record_too(folder, words, level, said):
    code, _, records = call(folder, "postgresql://127.0.0.1:1/x", *words.split())
    assert code == 2
    assert [record["level"] for record in records] == [level]
    assert said in records[0]["message"]


def test_the_targets_of_a_fleet_are_records_with_the_id_of_the_call(folder, postgres_url):
    (folder / "targets.json").write_text(
        json.dumps([{"name": "one", "postgres": {"url": postgres_url}}, {"name": "two"}])
    )
    words = ("plan", "-b", "loud", "--targets", "targets.json", "--log-format", "json")
    dead = "postgresql://127.0.0.1:1/x"
    code, out, records = call(folder, dead, *words, "-o", "json", "--timeout", "2")
    assert code == 4
    result = json.loads(out)
    ids = {target["run"]["run_id"] for target in result["targets"] if target["run"]}
    assert ids == {result["run_id"]} == {record["run_id"] for record in records}
    targets = {r["target"]: r["level"] for r in records if r["event"] == "target"}
    assert targets == {"one": "info", "two": "error"}


@pytest.mark.parametrize("command", ["apply", "plan", "verify", "wait", "status", "selftest"])
def test_the_result_file_is_the_document_of_the_output(folder, postgres_url, command):
    file = folder / "result.json"
    words = ("-b", "loud", "--result-file", str(file))
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": postgres_url}
    if command in {"verify", "selftest"}:
        assert run_here(("apply", "-b", "loud"), folder, environ)[0] == 0
    code, out, err = run_here((command, *words, "-o", "json"), folder, environ)
    assert code == 0, err
    assert json.loads(file.read_text()) == json.loads(out)
    if command != "selftest":
        jsonschema.validate(json.loads(out), SCHEMA)
    code, text, _ = run_here((command, *words), folder, environ)
    assert code == 0
    assert not text.startswith("{")
    assert json.loads(file.read_text())["exit_code"] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["loud", "result.json"]


def test_the_result_file_of_a_call_that_fails_says_how(folder):
    file = folder / "result.json"
    file.write_text("of a run before")
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": "postgresql://127.0.0.1:1/x"}
    call = ("apply", "-b", "loud", "--timeout", "0.1", "--result-file", str(file))
    assert run_here(call, folder, environ)[0] == 4
    found = json.loads(file.read_text())
    jsonschema.validate(found, SCHEMA)
    assert found["exit_code"] == 4
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    refused = ("apply", "-b", "nothing_here", "--result-file", str(file))
    assert run_here(refused, folder, environ)[0] == 2
    found = json.loads(file.read_text())
    jsonschema.validate(found, FAILURE)
    assert (found["exit_code"], found["command"]) == (2, "apply")


def test_a_result_file_that_cannot_be_made_is_refused_before_anything_is_done(folder, postgres_url):
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": postgres_url}
    call = ("apply", "-b", "loud", "--result-file", "no-such-folder/result.json")
    code, _, err = run_here(call, folder, environ)
    assert (code, "no-such-folder" in err) == (2, True)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres_url)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("apply",), "apply changed"),
        (("setup", "--yes"), "loud is set up."),
        (("selftest",), "(exit 9)"),
    ],
)
def test_a_result_file_that_cannot_be_written_costs_the_exit_code_zero(
    folder, postgres_url, words, told
):
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": postgres_url}
    if words == ("selftest",):
        assert run_here(("apply", "-b", "loud"), folder, environ)[0] == 0
    log = folder / "log"
    call = (*words, "-b", "loud", "--result-file", "/dev/full", "--termination-log", str(log))
    code, out, err = run_here(call, folder, environ)
    assert code == 9
    assert "/dev/full cannot be written" in err
    assert "a check of the self-test failed" not in err
    assert told in out
    assert json.loads(log.read_text())["exit_code"] == 9
    code, out, err = run_here((*call, "-o", "json"), folder, environ)
    assert (code, json.loads(out)["exit_code"]) == (9, 9), err


def test_a_result_file_that_is_a_pipe_waits_for_no_reader(folder, monkeypatch):
    monkeypatch.setattr(_result_file, "_PATIENCE_S", 0.2)
    pipe, text = folder / "pipe", "é" * 100_000
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="a named pipe that nobody reads"):
        _result_file._replace(pipe, text)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="nobody has read from it for"):
        _result_file._replace(pipe, text)
    os.close(reader)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text, encoding="utf-8")
        while True:
            with suppress(OSError):  # until the reader has come
                _result_file._replace(pipe, text)
                break
        assert read.result(60) == text


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_result_file_that_is_a_mount_of_its_own_is_written_in_place(folder):
    behind, file = folder / "behind", folder / "result.json"
    behind.write_text("of a run before, and longer than the document of now" * 100)
    file.touch()
    down = "-b loud --postgres-url postgresql://127.0.0.1:1/x --timeout 0.1"
    tool = f"{sys.executable} -m is_db_bootstrap verify {down} --result-file {file}"
    mount = f"mount --bind {behind} {file} || exit 77; exec {tool}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(done.stderr)
    assert "the result file" not in done.stderr
    assert json.loads(behind.read_text())["exit_code"] == done.returncode == 4
    assert not list(folder.glob(".result.json.*"))


@pytest.mark.parametrize("words", [("setup", "--yes"), ("selftest",)])
def test_the_result_file_says_that_stdout_was_lost(folder, postgres_url, words):
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "POSTGRES_URL": postgres_url}
    if words == ("selftest",):
        assert run_here(("apply", "-b", "loud"), folder, environ)[0] == 0
    file = folder / "result.json"
    call = [*words, "-b", "loud", "-o", "json", "--result-file", str(file)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "is_db_bootstrap", *call],
            cwd=folder,
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 9, done.stderr
    assert json.loads(file.read_text())["exit_code"] == 9
