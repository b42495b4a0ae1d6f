"""The installed command as a user runs it: a process in an empty folder, with addresses in its
environment.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

from wheel import build, install, run, surroundings

SLOW = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint, KeyPattern

HERE = Path(__file__).parent
BLUEPRINT = Blueprint(
    "mine", "for tests", migrations=MIGRATIONS, cypher=CYPHER,
    keys=(KeyPattern("k", "k:{x}", "string", 60, "app", "x"),),
)
"""
REVISION = '''
"""{what}."""
from alembic import op

revision = {name!r}
down_revision = {before!r}


def upgrade():
    op.execute({up!r})


def downgrade():
    pass
'''


@pytest.fixture(scope="session")
def command(tmp_path_factory):
    """The path of the command that the wheel installs."""
    wheel, _ = build(tmp_path_factory.mktemp("dist"))
    return install(wheel, tmp_path_factory.mktemp("installed")) / "is-db-bootstrap"


@pytest.fixture
def four(postgres_url, neo4j_url, milvus_url, redis_url):
    """Addresses of four empty stores, as environment variables."""
    return {
        "POSTGRES_URL": postgres_url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }


class Shell:
    """Runs the command in one folder with one environment."""

    def __init__(self, command, folder, environ):
        self.command, self.folder, self.environ = command, folder, environ

    def __call__(self, *args, **variables):
        return run(
            self.command,
            *args,
            cwd=self.folder,
            check=False,
            timeout=120,
            **{**self.environ, **variables},
        )

    def json(self, *args, **variables):
        """The result document; exit code and document agree."""
        done = self(*args, "--output", "json", **variables)
        assert done.stdout, done.stderr
        document = json.loads(done.stdout)
        assert document["exit_code"] == done.returncode
        return document

    def start(self, *args, **variables):
        """A running process; give it to `finish`."""
        environ = surroundings(**{**self.environ, **variables})
        command = [str(self.command), *args, "--output", "json"]
        return subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=-1, stderr=-1, text=True
        )

    def own_blueprint(self, revisions=(), cypher=None):
        """Write a blueprint of one's own, `mine:BLUEPRINT`: SQL of its revisions, text of its
        Cypher files by name.
        """
        # Python takes bytecode for current whose source has the same size and second.
        self.environ = {**self.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        folders = {"migrations": bool(revisions), "cypher": bool(cypher)}
        text = SLOW
        for name, is_there in folders.items():
            text = text.replace(name.upper(), f'HERE / "{name}"' if is_there else "None")
            if is_there:
                (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "mine.py").write_text(text)
        before = None
        for i, up in enumerate(revisions, 1):
            text = REVISION.format(what=f"Step {i}", name=f"m_{i:04}", before=before, up=up)
            (self.folder / "migrations" / f"m_{i:04}_step.py").write_text(text)
            before = f"m_{i:04}"
        for name, text in (cypher or {}).items():
            (self.folder / "cypher" / name).write_text(text)


@pytest.fixture
def shell(command, tmp_path, four):
    return Shell(command, tmp_path, four)


@pytest.fixture
def on_postgres(command, tmp_path, postgres_url):
    """The command with an address of PostgreSQL alone."""
    return Shell(command, tmp_path, {"POSTGRES_URL": postgres_url})


def finish(process, signum=None, *, timeout=60):
    """End `process`, by `signum` if given: code and result document."""
    if signum is not None:
        process.send_signal(signum)
    out, err = process.communicate(timeout=timeout)
    return (
        process.returncode,
        json.loads(out) if out and signum is not signal.SIGKILL else None,
        err,
    )


def until(look, *, seconds=30):
    """The first true answer of `look`."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found
