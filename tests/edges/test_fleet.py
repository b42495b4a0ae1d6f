"""`apply --targets` on real databases.

Who is touched, what is told, and what a later call leaves out.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg
import pytest

from servers import PASSWORD, milvus_client

pytestmark = [pytest.mark.postgres, pytest.mark.acceptance]
ROOT = Path(__file__).parents[2]
BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint

BLUEPRINT = Blueprint("mine", "for tests", migrations=Path(__file__).parent / "migrations")
"""
REVISION = '''
"""One table."""
import os, time
from alembic import op

revision = "m_0001"
down_revision = None


def upgrade():
    database = op.get_bind().exec_driver_sql("SELECT current_database()").scalar()
{body}
    op.execute("CREATE TABLE seen (id int)")


def downgrade():
    pass
'''


@pytest.fixture
def names(farm):
    server = farm.shared("postgres")
    prefix = f"fleet_{uuid.uuid4().hex[:8]}"
    made = [f"{prefix}_{n}" for n in range(6)]
    yield made
    with psycopg.connect(f"{server.url}/postgres", autocommit=True) as connection:
        for name in made:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def fleet(farm, tmp_path, names):
    """`fleet(targets, "--option", body="…")`: exit code, document and stderr of the call."""
    server = farm.shared("postgres")
    (tmp_path / "mine.py").write_text(BLUEPRINT)
    (tmp_path / "migrations").mkdir()

    def start(*options, body="    pass", before=(), **environ):
        (tmp_path / "migrations" / "m_0001_step.py").write_text(REVISION.format(body=body))
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("POSTGRES_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_"))
        }
        env |= {"POSTGRES_URL": server.url, "PYTHONDONTWRITEBYTECODE": "1"} | environ
        command = [
            *before,
            sys.executable,
            "-m",
            "is_db_bootstrap",
            "apply",
            "-b",
            "mine:BLUEPRINT",
            "--targets",
            "-",
            "-o",
            "json",
            *options,
        ]
        return subprocess.Popen(
            command, cwd=tmp_path, env=env, stdin=-1, stdout=-1, stderr=-1, text=True
        )

    def run(targets, *options, **kwargs):
        process = start(*options, **kwargs)
        out, err = process.communicate(text_of(targets), timeout=100)
        assert PASSWORD not in out + err
        return process.returncode, json.loads(out) if out else None, err

    run.start = start
    return run


def text_of(targets):
    return "".join((t if isinstance(t, str) else json.dumps(t)) + "\n" for t in targets)


def tenants(names):
    return [{"name": f"tenant {n[-1]}", "postgres": {"database": n}} for n in names]


def outcomes(document):
    return {t["name"]: t["outcome"] for t in document["targets"]}


def has_table(farm, name):
    with psycopg.connect(f"{farm.shared('postgres').url}/{name}") as connection:
        return connection.execute("SELECT to_regclass('seen')").fetchone()[0] is not None


def test_every_target_is_brought_to_the_blueprint_and_has_its_own_result(fleet, names, farm):
    code, document, err = fleet(tenants(names), "--jobs", "3", "-v")
    assert (code, document["exit_code"], document["outcome"]) == (0, 0, "changed"), err
    assert list(outcomes(document).items()) == [(f"tenant {n}", "changed") for n in range(6)]
    assert document["targets"][3]["run"]["stores"][0]["target"].endswith(f"/{names[3]}")
    assert all(has_table(farm, name) for name in names)
    assert err.count(": changed: 2 changes") == 6
    code, document, err = fleet(tenants(names))
    assert (code, set(outcomes(document).values()), err) == (0, {"unchanged"}, "")


def test_schemas_of_one_database_are_targets_too(fleet, names):
    targets = [
        {"name": s, "postgres": {"database": names[0], "schema": s}} for s in ("a", "b", "c")
    ]
    code, document, err = fleet(targets, "--jobs", "3")
    assert (code, set(outcomes(document).values())) == (0, {"changed"}), err


def down(name):
    return {"name": name, "postgres": {"url": "postgresql://127.0.0.1:1/x"}}


def test_a_target_that_is_down_ends_the_fleet_after_those_that_run(fleet, names):
    targets = [down("dead"), *tenants(names)]
    code, document, err = fleet(targets, "--jobs", "1", "--timeout", "4")
    assert code == document["exit_code"] == 4
    assert outcomes(document) == {"dead": "failed", **{f"tenant {n}": "skipped" for n in range(6)}}
    assert "dead: failed: postgres: " in err


def test_others_go_on_when_asked_to_and_only_what_failed_is_resumed(fleet, names, farm, tmp_path):
    targets = [*tenants(names[:3]), down("dead"), *tenants(names[3:])]
    # Long enough for a busy machine: the timeout bounds the plan of the living targets too.
    options = ("--timeout", "4", "--continue-on-error", "--resume", "outcomes.jsonl")
    code, document, _ = fleet(targets, *options)
    assert (code, outcomes(document)["dead"]) == (4, "failed")
    assert [o for name, o in outcomes(document).items() if name != "dead"] == ["changed"] * 6
    with (tmp_path / "outcomes.jsonl").open("a") as file:
        file.write('{"target": "tenant')  # a killed process may leave half a line
    code, document, _ = fleet(targets, *options)
    assert (code, outcomes(document)) == (4, {"dead": "failed"})
    targets[3] = {"name": "dead", "postgres": {"database": names[0], "schema": "alive"}}
    code, document, _ = fleet(targets, *options)
    assert (code, outcomes(document)) == (0, {"dead": "changed"})
    code, document, _ = fleet(targets, *options)
    assert (code, document["targets"], document["outcome"]) == (0, [], "unchanged")
    moved = [
        {"name": "tenant 0", "postgres": f"{farm.shared('postgres').url}/{names[0]}?port=1"},
        *targets[1:],
    ]
    code, document, _ = fleet(moved, *options, "--timeout", "1")
    assert (code, outcomes(document)) == (4, {"tenant 0": "failed"})
    code, document, _ = fleet(
        targets, *options, body="    print()"
    )  # other revisions: nothing is done any more
    assert len(document["targets"]) == 7


def test_a_broken_line_keeps_all_from_starting_unless_told_to_go_on(fleet, names, farm):
    targets = [*tenants(names[:2]), "{oops"]
    code, document, err = fleet(targets)
    assert (code, outcomes(document)) == (
        2,
        {"tenant 0": "skipped", "tenant 1": "skipped", "line 3": "failed"},
    )
    assert "line 3: failed: line 3: This is no JSON" in err
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        has_table(farm, names[0])
    code, document, _ = fleet(targets, "--continue-on-error")
    assert (code, outcomes(document)) == (
        2,
        {"tenant 0": "changed", "tenant 1": "changed", "line 3": "failed"},
    )


def test_a_worker_that_dies_fails_its_target_only(fleet, names):
    body = f'    if database == "{names[2]}": os.kill(os.getpid(), 9)'
    code, document, _ = fleet(tenants(names), "--continue-on-error", "--jobs", "2", body=body)
    assert code == 128 + 9  # as a process that was killed: a later try may mend it
    assert outcomes(document) == {
        f"tenant {n}": "failed" if n == 2 else "changed" for n in range(6)
    }
    assert document["targets"][2]["message"] == "The worker process of this target ended with -9."
    code, document, _ = fleet(tenants(names))
    assert (code, outcomes(document)["tenant 2"]) == (0, "changed")


def test_a_revision_that_is_refused_is_told_with_its_target(fleet, names):
    body = f'    if database == "{names[1]}": op.execute("SELECT no_such_function()")'
    code, document, err = fleet(tenants(names), "--continue-on-error", body=body)
    assert (code, outcomes(document)["tenant 1"]) == (1, "failed")
    assert "tenant 1: failed: postgres: " in err
    assert "no_such_function" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_what_runs_and_begins_nothing(fleet, names, number, code):
    process = fleet.start(
        "--jobs", "2", "-v", body=f"    time.sleep(0 if database in {names[:2]!r} else 2)"
    )
    process.stdin.write(text_of(tenants(names)))
    process.stdin.close()
    assert "blueprint mine:BLUEPRINT" in process.stderr.readline()
    for _ in range(2):
        assert "changed" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(number)
    document = json.loads(process.stdout.read())
    process.stdout.close()
    assert process.wait(timeout=30) == code == document["exit_code"]
    found = outcomes(document)
    assert document["outcome"] == "interrupted"
    assert [found[f"tenant {n}"] for n in (0, 1, 4, 5)] == [
        "changed",
        "changed",
        "skipped",
        "skipped",
    ]
    process.stderr.close()


def test_no_worker_outlives_a_killed_fleet(fleet, names):
    process = fleet.start("--jobs", "2", "-v", body="    time.sleep(2)")
    process.stdin.write(text_of(tenants(names)))
    process.stdin.close()
    import psutil

    deadline = time.monotonic() + 60
    while len(workers := psutil.Process(process.pid).children()) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=15)
    assert alive == []
    process.stdout.close()
    process.stderr.close()


def test_shards_of_an_indexed_job_are_all_targets_once(fleet, names):
    seen = []
    for index in range(4):
        code, document, err = fleet(tenants(names), "--shard", "4", JOB_COMPLETION_INDEX=str(index))
        assert code == 0, err
        seen += outcomes(document)
    assert sorted(seen) == [f"tenant {n}" for n in range(6)]
    code, _, err = fleet(tenants(names), "--shard", "4", JOB_COMPLETION_INDEX="4")
    assert (code, "Shard 4 of 4 does not exist" in err) == (2, True)


def test_options_of_a_fleet_need_targets(fleet):
    done = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", "--jobs", "2", "--shard", "1/2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--jobs and --shard without --targets" in done.stderr


@pytest.mark.redis
@pytest.mark.milvus
def test_key_spaces_and_collections_of_tenants(tmp_path, redis_url, milvus_url):
    client = milvus_client(milvus_url)
    databases = [f"fleet_{uuid.uuid4().hex[:8]}_{n}" for n in range(2)]
    for name in databases:
        client.create_database(name)
    (tmp_path / "targets").write_text(
        text_of(
            [
                {"name": f"t{n}", "redis": {"database": str(n + 1)}, "milvus": {"database": name}}
                for n, name in enumerate([*databases, "missing"])
            ]
        )
    )
    env = os.environ | {"REDIS_URL": redis_url, "MILVUS_URL": milvus_url}
    command = [
        sys.executable,
        "-m",
        "is_db_bootstrap",
        "--only",
        "redis",
        "--only",
        "milvus",
        "--targets",
        "targets",
        "--continue-on-error",
        "-o",
        "json",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=100
    )
    assert outcomes(json.loads(done.stdout)) == {
        "t0": "changed",
        "t1": "changed",
        "t2": "failed",
    }, done.stderr
    assert (done.returncode, "t2: failed: milvus: http://" in done.stderr) == (2, True)
    for name in databases:
        inside = milvus_client(milvus_url, db_name=name)
        assert inside.list_collections() == ["novel_embeddings_v1"]
        inside.drop_alias("novel_embeddings")
        inside.drop_collection("novel_embeddings_v1")
        inside.close()
        client.drop_database(name)
    client.close()


def test_what_was_asked_otherwise_is_not_done_before(fleet, names):
    targets, resume = tenants(names[:1]), ("--resume", "outcomes.jsonl")
    assert outcomes(fleet(targets, *resume, "--no-verify")[1]) == {"tenant 0": "changed"}
    assert outcomes(fleet(targets, *resume, "--no-verify")[1]) == {}
    assert outcomes(fleet(targets, *resume)[1]) == {"tenant 0": "changed"}
    assert outcomes(fleet(targets, *resume, "--mode", "verify")[1]) == {"tenant 0": "unchanged"}
    moved = [{"name": "tenant 0", "postgres": {"database": names[1]}}]
    assert outcomes(fleet(moved, *resume)[1]) == {"tenant 0": "changed"}


def test_a_target_that_is_called_as_a_broken_line_does_not_hide_it(fleet, names):
    code, document, _ = fleet(
        [{"name": "line 2", "postgres": {"database": names[0]}}, "{oops"], "--continue-on-error"
    )
    assert code == 2
    assert [(t["name"], t["outcome"]) for t in document["targets"]] == [
        ("line 2", "changed"),
        ("line 2", "failed"),
    ]


def test_a_broken_line_of_another_shard_keeps_this_one_from_beginning(fleet, names, farm):
    targets = [*tenants(names[:1]), "{oops"]
    code, document, _ = fleet(targets, "--shard", "0/2")
    assert (code, outcomes(document)) == (2, {"tenant 0": "skipped", "line 2": "failed"})
    code, document, _ = fleet(targets, "--shard", "0/2", "--continue-on-error")
    assert (code, outcomes(document)) == (0, {"tenant 0": "changed"})


def test_an_empty_shard_is_none(fleet, names):
    code, _, err = fleet(tenants(names[:1]), "--shard", "")
    assert (code, "not of the form INDEX/COUNT" in err) == (2, True)


PROGRAM = """
import os, sys, time
from is_db_bootstrap.cli import main
from is_db_bootstrap.fleet import run

{patch}
if __name__ == "__main__":
    options = ["-b", "mine:BLUEPRINT", "--targets", "targets.jsonl", "--continue-on-error"]
    main(["apply", *options, "-o", "json", *sys.argv[1:]])
"""


@pytest.fixture
def program(fleet, names, tmp_path, farm):
    """The command with a part of it made slow or broken, as a process."""

    def start(patch, *options, body="    pass"):
        fleet.start(body=body).communicate("")  # writes the blueprint
        (tmp_path / "targets.jsonl").write_text(text_of(tenants(names[:3])))
        (tmp_path / "program.py").write_text(PROGRAM.format(patch=patch))
        env = os.environ | {"POSTGRES_URL": farm.shared("postgres").url}
        return subprocess.Popen(
            [sys.executable, "program.py", *options],
            cwd=tmp_path,
            env=env,
            stdout=-1,
            stderr=-1,
            text=True,
        )

    return start


def test_a_worker_that_dies_with_nothing_to_do_costs_no_target(program):
    patch = """
import psutil
from is_db_bootstrap.fleet.workers import Worker
give = Worker.give
def after_its_death(self, target):
    if not os.path.exists("died"):
        open("died", "w").close()
        keeper = psutil.Process(self._process.pid)
        while not keeper.children():
            time.sleep(0.01)
        [process] = keeper.children()
        process.kill()
        while process.is_running():
            time.sleep(0.01)
    return give(self, target)
Worker.give = after_its_death
"""
    out, err = program(patch, "--jobs", "1").communicate(timeout=100)
    assert set(outcomes(json.loads(out)).values()) == {"changed"}, err


def test_a_keeper_does_not_wait_for_a_worker_that_has_ended_already(program):
    """The worker ends while its keeper has no turn, as on a busy machine."""
    patch = """
import psutil
from is_db_bootstrap.fleet import keeper, run
from is_db_bootstrap.fleet.workers import Worker
keeper.ending_s = lambda _: 300
run.IDLE_END_S = 300
dismiss = Worker.dismiss
def dismiss_beside_a_stopped_keeper(self):
    stopped = psutil.Process(self._process.pid)
    [process] = stopped.children()
    stopped.suspend()
    dismiss(self)
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    stopped.resume()
Worker.dismiss = dismiss_beside_a_stopped_keeper
"""
    out, err = program(patch, "--jobs", "1").communicate(timeout=100)
    assert set(outcomes(json.loads(out)).values()) == {"changed"}, err


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_signal_while_a_worker_starts_ends_the_fleet(program, jobs):
    patch = """
from is_db_bootstrap.fleet import worker
parent, load = os.getpid(), worker.load_blueprint
def slow(name):
    if os.getpid() != parent:
        print("loading", file=sys.stderr, flush=True)
        time.sleep(1)
    return load(name)
worker.load_blueprint = slow
"""
    process = program(patch, "--jobs", jobs)
    assert "loading" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    document = json.loads(out)
    assert process.returncode == document["exit_code"] == 143, err
    assert set(outcomes(document).values()) <= {"skipped", "interrupted"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latin", "invalid start byte"),
        ("missing", "No such file"),
        (".", "Is a directory"),
        ("", "No such file"),
        ("\udcff", "No such"),
    ],
)
def test_targets_that_cannot_be_read_are_told_in_the_termination_log_too(tmp_path, name, said):
    (tmp_path / "latin").write_bytes(b"\xff\xfe\x00")
    options = [
        "--targets",
        str(tmp_path / name) if name else "",
        "--only",
        "postgres",
        "--termination-log",
        str(tmp_path / "log"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert said in done.stderr
    assert said in json.loads((tmp_path / "log").read_text())["error"]["message"]


def test_outcomes_that_cannot_be_noted_are_told_and_stop_no_target(fleet, names, tmp_path):
    no_file = ("bash", "-c", 'ulimit -f 0; exec "$@"', "-")  # as on a disk that is full
    code, document, err = fleet(tenants(names), "--resume", "outcomes.jsonl", before=no_file)
    assert (code, document["exit_code"], set(outcomes(document).values())) == (2, 2, {"changed"})
    assert "outcomes.jsonl cannot be written: File too large." in document["message"]
    assert err.count("cannot be written") == 1
    assert "Traceback" not in err
    code, document, _ = fleet(tenants(names), "--resume", "outcomes.jsonl")
    assert (code, document["message"], set(outcomes(document).values())) == (0, "", {"unchanged"})


def test_the_exit_code_is_that_of_what_a_later_try_may_mend(fleet, names):
    """So a Job tries again while one target needs no person, although another one does."""
    down = {"name": "down", "postgres": f"postgresql://127.0.0.1:1/{names[0]}"}
    code, document, _ = fleet(
        ["{oops", *tenants(names[1:3]), down], "--continue-on-error", "--timeout", "4"
    )
    assert (code, document["exit_code"]) == (4, 4)
    assert [t["exit_code"] for t in document["targets"]] == [2, 0, 0, 4]


def test_workers_of_a_program_with_threads_are_spawned_and_load_the_blueprint_anew(
    fleet, names, tmp_path, farm
):
    fleet.start().communicate("")  # writes the blueprint
    (tmp_path / "targets.jsonl").write_text(text_of(tenants(names[:3])))
    (tmp_path / "program.py").write_text("""
import threading, time
from is_db_bootstrap.cli import main

if __name__ == "__main__":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    options = ["-b", "mine:BLUEPRINT", "--targets", "targets.jsonl", "--jobs", "2"]
    main(["apply", *options, "-o", "json"])
""")
    env = os.environ | {"POSTGRES_URL": farm.shared("postgres").url}
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert set(outcomes(json.loads(done.stdout)).values()) == {"changed"}


def test_without_verify_it_is_said(fleet, names):
    code, document, _ = fleet(tenants(names[:1]), "--no-verify")
    assert code == 0
    assert "Not verified, as asked." in document["targets"][0]["run"]["stores"][0]["notes"]


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/fleet.md"])
def test_the_documented_lines_run(page, farm, tmp_path, names):
    text = (ROOT / page).read_text()
    lines = next(
        b
        for b in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        if "targets.toml" in b
    )
    assert len(lines.splitlines()) < 20
    if "END" not in lines:
        (tmp_path / "targets.toml").write_text(
            next(b for b in re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        )
    replaced = {
        "other-server": "127.0.0.1",
        '"umbrella"\n': f'"{names[1]}"\n',
        '"acme"\n': f'"{names[0]}"\n',
        "/umbrella": f"/{names[1]}",
    }
    target = tmp_path / "targets.toml"
    server = farm.shared("postgres")
    script = lines.replace(
        "is-db-bootstrap apply", f"{sys.executable} -m is_db_bootstrap apply --only postgres"
    )
    for documented, real in replaced.items():
        script = script.replace(documented, real)
        if target.exists():
            target.write_text(
                target.read_text()
                .replace(documented, real)
                .replace("127.0.0.1/", f"127.0.0.1:{server.port}/")
            )
    env = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("POSTGRES_", "DB_", "DATABASE_URL", "IS_DB_BOOTSTRAP_"))
    }
    env |= {"POSTGRES_URL": server.url, "REDIS_URL": "redis://127.0.0.1:1"}
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "apply of 2 targets: 2 changed" in done.stdout


# --- targets that hang, and workers that die

SWALLOWING = """
        while True:
            try:
                op.execute("SAVEPOINT s")
                op.execute("SELECT pg_sleep(600)")
            except BaseException:
                try:
                    op.get_bind().rollback()
                    op.execute("SELECT 1")
                except BaseException:
                    time.sleep(0.01)
"""
MARKER = f"98765.{os.getpid()}"
HANGS = (
    "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "import socket; ours, theirs = socket.socketpair(); ours.recv(1)",
    'op.execute("SELECT pg_sleep(600); CREATE TABLE late (id int)")',
    f"import subprocess; subprocess.run(['sleep', '{MARKER}'])",
    SWALLOWING,
)
#: Short times, so that a target that hangs costs a test a few seconds.
BRIEF = {"IS_DB_BOOTSTRAP_GRACE": "0.1", "IS_DB_BOOTSTRAP_CONNECT_TIMEOUT": "2"}


def hanging(names, hangs=HANGS):
    """The body of a revision that hangs in the first databases, in each in a way of its own."""
    lines = [
        f'    if database == "{name}":\n        {hang.lstrip()}'
        for name, hang in zip(names, hangs, strict=False)
    ]
    return "\n".join(
        [
            *lines,
            f"    if database in {names[: len(lines)]!r}: op.execute('CREATE TABLE late (id int)')",
        ]
    )


def sessions(farm, name):
    with psycopg.connect(f"{farm.shared('postgres').url}/postgres") as connection:
        rows = connection.execute("SELECT query FROM pg_stat_activity WHERE datname = %s", [name])
        return [row[0] for row in rows]


def tables(farm, name):
    with psycopg.connect(f"{farm.shared('postgres').url}/{name}") as connection:
        return {
            row[0]
            for row in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
        }


def processes_with(word):
    import psutil

    return [p.pid for p in psutil.process_iter(["cmdline"]) if word in (p.info["cmdline"] or ())]


def started(fleet, names, *options, **kwargs):
    process = fleet.start("--continue-on-error", *options, **BRIEF, **kwargs)
    process.stdin.write(text_of(tenants(names)))
    process.stdin.close()
    process.stdin = None
    return process


def test_a_target_that_hangs_costs_no_other_and_nothing_of_it_goes_on_after_its_report(
    fleet, names, farm
):
    import psutil

    process = started(
        fleet, names, "--jobs", "3", "--apply-timeout", "4", "-v", body=hanging(names)
    )
    seen = []
    for line in process.stderr:
        found = re.match(r"tenant (\d): (\w+)", line)
        if not found:
            continue
        seen.append(found[2])
        if found[2] == "failed":
            assert sessions(farm, names[int(found[1])]) == []
            assert "did not end within 4 s" in line
            assert len(psutil.Process(process.pid).children()) <= 3
            assert processes_with(MARKER) == [] or int(found[1]) != 3
    document = json.loads(process.communicate(timeout=60)[0])
    assert (process.returncode, document["exit_code"]) == (4, 4)
    assert [t["outcome"] for t in document["targets"]] == ["failed"] * 5 + ["changed"]
    assert sorted(seen) == ["changed"] + ["failed"] * 5
    assert processes_with(MARKER) == []
    time.sleep(1)
    assert [name for name in names if "late" in tables(farm, name)] == []
    code, document, _ = fleet(tenants(names))
    assert (code, {t["outcome"] for t in document["targets"][:5]}) == (0, {"changed"})


def own_connection(more=""):
    """Python that opens a connection of its own, and works on it longer than a target may."""
    return f"""
import os, psycopg
url = os.environ["POSTGRES_URL"] + "/" + database
work = "SELECT pg_sleep(600); CREATE TABLE late (id int)"
psycopg.connect(url, autocommit=True{more}).execute(work)
"""


IN_A_THREAD = f"""
        import threading
        code = {own_connection(', application_name="mine"')!r}
        threading.Thread(target=exec, args=(code, {{"database": database}}), daemon=True).start()
        op.execute("SELECT pg_sleep(600)")
"""
IN_A_PROCESS = f"""
        import subprocess, sys
        code = f"database = {{database!r}}" + {own_connection()!r}
        subprocess.Popen([sys.executable, "-c", code, "{MARKER}"], start_new_session=True)
        op.execute("SELECT pg_sleep(600)")
"""
A_DAEMON = f"""
        import subprocess
        subprocess.run(["sh", "-c", "setsid sleep {MARKER} &"], env={{}})
        op.execute("SELECT pg_sleep(600)")
"""
A_SESSION_LEADER = f"""
        import subprocess
        subprocess.run(["sleep", "{MARKER}"], start_new_session=True, env={{}})
"""
#: Its client is killed long before the run ends, and the server has not noticed.
A_DEAD_CLIENT = f"""
        import subprocess, sys, time
        own = f"database = {{database!r}}" + {own_connection(', application_name="mine"')!r}
        own = own.replace("psycopg.connect", "client = psycopg.connect").replace(
            ".execute(work)", "; print(client.info.backend_pid, flush=True); client.execute(work)"
        )
        client = subprocess.Popen([sys.executable, "-c", own, "{MARKER}"], stdout=subprocess.PIPE)
        assert client.stdout.readline()
        time.sleep(2.5)
        client.kill()
        client.wait()
        op.execute("SELECT pg_sleep(600)")
"""


def test_what_a_revision_starts_by_itself_has_ended_when_its_target_is_reported(fleet, names, farm):
    hangs = (IN_A_THREAD, IN_A_PROCESS, A_DAEMON, A_SESSION_LEADER, A_DEAD_CLIENT)
    process = started(
        fleet, names[:5], "--jobs", "5", "--apply-timeout", "8", body=hanging(names, hangs)
    )
    reported = []
    for line in process.stderr:
        if found := re.match(r"tenant (\d): failed: postgres: apply did not end", line):
            assert "may go on" not in line
            reported.append(int(found[1]))
            assert sessions(farm, names[int(found[1])]) == []
    assert process.wait(timeout=60) == 4
    process.stdout.close()
    process.stderr.close()
    assert sorted(reported) == [0, 1, 2, 3, 4]
    assert processes_with(MARKER) == []
    assert [name for name in names[:5] if "late" in tables(farm, name)] == []


def test_a_target_whose_version_table_is_locked_fails_and_costs_no_other(fleet, names, farm):
    assert fleet(tenants(names[:2]))[0] == 0
    with psycopg.connect(f"{farm.shared('postgres').url}/{names[0]}") as holder:
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        code, document, err = fleet(
            tenants(names[:2]),
            "--continue-on-error",
            "--jobs",
            "1",
            "--phase-timeout",
            "5",
            **BRIEF,
        )
    assert (code, outcomes(document)) == (4, {"tenant 0": "failed", "tenant 1": "unchanged"}), err
    assert "plan did not end within 5 s" in err


STUCK = 'import re; re.match(r"(a+)+$", "a" * 60 + "b")'  # never lets another thread run


def test_a_worker_whose_interpreter_is_stuck_is_killed_from_outside(fleet, names, farm):
    process = started(
        fleet, names[:3], "--jobs", "1", "--apply-timeout", "6", body=hanging(names, [STUCK])
    )
    out, err = process.communicate(timeout=100)
    document = json.loads(out)
    assert (process.returncode, outcomes(document)) == (
        4,
        {"tenant 0": "failed", "tenant 1": "changed", "tenant 2": "changed"},
    ), err
    assert "said nothing for" in document["targets"][0]["message"]
    assert "in the phase apply" in err
    assert "late" not in tables(farm, names[0])


@pytest.mark.parametrize(
    ("death", "ended"),
    [
        ("os.kill(os.getpid(), 9)", -9),
        ("import ctypes; ctypes.string_at(0)", -11),
        ("import ctypes; ctypes.CDLL(None)._exit(7)", 7),
        (
            "pid = os.fork(); time.sleep(30) if pid == 0 else os.kill(os.getpid(), 9)",
            -9,
        ),  # its child keeps the pipes open
    ],
    ids=["killed", "segfault", "exit", "killed with a child"],
)
def test_a_worker_that_dies_costs_no_other_target_and_leaves_nothing_behind(
    fleet, names, farm, tmp_path, *, death, ended
):
    import psutil

    process = started(fleet, names[:3], "--jobs", "1", body=hanging(names, [death]))
    out, err = process.communicate(timeout=60)
    document = json.loads(out)
    assert outcomes(document) == {
        "tenant 0": "failed",
        "tenant 1": "changed",
        "tenant 2": "changed",
    }, err
    assert (
        document["targets"][0]["message"]
        == f"The worker process of this target ended with {ended}."
    )
    processes = psutil.process_iter(["cwd"])  # not those of other tests on this machine
    assert not [p for p in processes if p.info["cwd"] == str(tmp_path)]
    deadline = time.monotonic() + 60
    while sessions(farm, names[0]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "late" not in tables(farm, names[0])


def test_a_worker_that_hangs_at_import_is_killed_from_outside(program):
    patch = """
from is_db_bootstrap.fleet import worker
parent, load = os.getpid(), worker.load_blueprint
def hanging(name):
    if os.getpid() != parent and not os.path.exists("hung"):
        open("hung", "w").close()
        time.sleep(600)
    return load(name)
worker.load_blueprint = hanging
"""
    os.environ.update(BRIEF)
    try:
        process = program(patch, "--jobs", "1", "--apply-timeout", "6")
    finally:
        for name in BRIEF:
            del os.environ[name]
    out, err = process.communicate(timeout=100)
    assert list(outcomes(json.loads(out)).values()) == ["failed", "changed", "changed"], err
    assert "before its first phase" in json.loads(out)["targets"][0]["message"]


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ([signal.SIGTERM], 143),
        ([signal.SIGHUP], 129),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGKILL], -9),
    ],
    ids=["terminated", "hung up", "interrupted twice", "killed"],
)
def test_the_end_of_a_fleet_is_the_end_of_its_workers_and_of_their_work(
    fleet, names, farm, numbers, code
):
    import psutil

    hangs = [*HANGS[2:4], STUCK] if numbers == [signal.SIGTERM] else HANGS[2:4]
    process = started(fleet, names, "--jobs", "3", body=hanging(names, hangs))
    deadline = time.monotonic() + 60
    while not processes_with(MARKER) or not any(
        "late" in query for query in sessions(farm, names[0])
    ):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.3)
    process.communicate(timeout=60)
    assert process.returncode == code
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert (alive, processes_with(MARKER)) == ([], [])
    deadline = time.monotonic() + 60
    while any(sessions(farm, name) for name in names):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not [name for name in names[:2] if "late" in tables(farm, name)]
