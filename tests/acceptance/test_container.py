"""What an init container or a Job meets: others that start at the same time, and a log for whoever
asks why it ended.
"""

from __future__ import annotations

import json

import psycopg
import pytest
from acceptance.conftest import finish, until

pytestmark = [pytest.mark.acceptance, pytest.mark.postgres]
MINE = ("--blueprint", "mine:BLUEPRINT", "--only", "postgres")


def is_locked(url):
    try:
        with psycopg.connect(url) as connection:
            return connection.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
            ).fetchone()[0]
    except psycopg.OperationalError:
        return False


def slow(on_postgres):
    """A run that holds the lock for three seconds; it holds it now."""
    on_postgres.own_blueprint(["CREATE TABLE a ()", "SELECT pg_sleep(3)", "CREATE TABLE c ()"])
    process = on_postgres.start("--mode", "init", *MINE)
    until(lambda: is_locked(on_postgres.environ["POSTGRES_URL"]))
    return process


def test_followers_wait_for_the_one_that_applies_longer_than_their_timeout_and_verify(on_postgres):
    first = slow(on_postgres)
    followers = [on_postgres.start("--mode", "init", "--timeout", "1", *MINE) for _ in range(3)]
    code, document, err = finish(first)
    assert (code, document["outcome"]) == (0, "changed"), err
    for process in followers:
        code, document, err = finish(process)
        assert (code, document["outcome"], document["stores"][0]["changes"]) == (
            0,
            "unchanged",
            [],
        ), err
        assert document["stores"][0]["duration_s"] > 0


def test_a_job_waits_for_its_timeout_only(on_postgres):
    first = slow(on_postgres)
    document = on_postgres.json("--mode", "job", "--timeout", "1", *MINE)
    assert document["exit_code"] == 7
    assert "holds it" in document["stores"][0]["error"]["message"]
    assert finish(first)[0] == 0


def test_a_follower_takes_over_from_one_that_was_killed(on_postgres):
    first = slow(on_postgres)
    follower = on_postgres.start("--mode", "init", "--timeout", "1", *MINE)
    first.kill()
    first.communicate()
    code, document, err = finish(follower)
    assert (code, document["outcome"]) == (0, "changed"), err
    assert document["stores"][0]["changes"][-1]["name"] == "m_0003"


def test_mode_verify_changes_nothing(on_postgres):
    on_postgres.own_blueprint(["CREATE TABLE a ()"])
    assert on_postgres.json(*MINE)["exit_code"] == 0
    on_postgres.own_blueprint(["CREATE TABLE a ()", "CREATE TABLE b ()"])
    document = on_postgres.json("--mode", "verify", *MINE)
    assert (document["exit_code"], document["mode"]) == (3, "verify")


def test_the_termination_log_says_how_a_run_ended(on_postgres, tmp_path):
    log = tmp_path / "log"
    on_postgres.own_blueprint(["CREATE TABEL a ()"])
    document = on_postgres.json(*MINE, "--termination-log", str(log))
    left = json.loads(log.read_text())
    assert (
        (left["exit_code"], left["run_id"])
        == (document["exit_code"], document["run_id"])
        == (1, document["run_id"])
    )
    assert "TABEL" in left["stores"][0]["error"]["message"]


def test_the_termination_log_says_why_a_run_did_not_begin(on_postgres, tmp_path):
    on_postgres.own_blueprint(["CREATE TABLE a ()"])
    log = tmp_path / "log"
    nobody = {
        "POSTGRES_URL": "postgresql://127.0.0.1:1/x",
        "POSTGRES_PASSWORD_FILE": "/run/secrets/none",
    }
    done = on_postgres(*MINE, "--termination-log", str(log), **nobody)
    assert done.returncode == 2
    left = json.loads(log.read_text())
    assert (left["exit_code"], left["error"]["kind"]) == (2, "configuration")
    assert "POSTGRES_PASSWORD_FILE" in left["error"]["message"]
    done = on_postgres("--blueprint", "nobody", "--termination-log", str(log))
    assert "nobody" in json.loads(log.read_text())["error"]["message"]


def test_an_empty_password_file_is_told(on_postgres, tmp_path):
    (tmp_path / "password").write_text("\n")
    done = on_postgres(
        "--only",
        "postgres",
        POSTGRES_URL="postgresql://127.0.0.1:1/x",
        POSTGRES_PASSWORD_FILE=str(tmp_path / "password"),
    )
    assert done.returncode == 2
    assert "POSTGRES_PASSWORD_FILE" in done.stderr
    assert "is empty" in done.stderr


def test_a_termination_log_that_cannot_be_written_changes_no_exit_code(on_postgres, tmp_path):
    on_postgres.own_blueprint(["CREATE TABLE a ()"])
    done = on_postgres(*MINE, "--termination-log", str(tmp_path / "no" / "log"))
    assert done.returncode == 0
    assert "cannot be written" in done.stderr
