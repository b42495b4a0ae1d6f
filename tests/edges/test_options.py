"""An option is obeyed, or the command does not offer it. All commands are walked here, so that a
new one cannot forget the options that mean the same everywhere.
"""

from __future__ import annotations

import json
import os
import shutil
import sys

import jsonschema
import pytest
from test_endings import (  # noqa: F401 - fixtures
    CALLS,
    COMMANDS,
    NOBODY,
    ON_A_SERVER,
    address_of,
    database,
    kept,
    put_back,
    store_of,
    takes,
    template,
)

from commands import run_here
from is_db_bootstrap import migrate
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.nearest import nearest
from pages import ROOT

pytestmark = pytest.mark.postgres
FAILURE = json.loads((ROOT / "docs/reference/failure.schema.json").read_text(encoding="utf-8"))
#: The commands that print nothing but an answer that was asked for, and so are never quiet.
ONLY_ANSWERS = {
    ("blueprints",),
    ("blueprints", "show"),
    ("migrate", "history"),
    ("migrate", "ini"),
    ("migrate", "sql"),
}
#: The stack of `local` tells what it does, and leaves nothing in a container.
OF_STACK = {path for path in COMMANDS if path[0] == "local"}
#: The commands that make a run, or read a blueprint for one.
RUNS = {
    *((name,) for name in ("adopt", "apply", "doctor", "grants", "plan", "repair", "selftest")),
    *((name,) for name in ("setup", "status", "verify", "wait")),
}
#: The commands besides them that work on a store.
WORKS = {
    ("revision",),
    ("unlock",),
    *(("migrate", name) for name in ("accept", "check", "current", "downgrade", "init")),
    *(("migrate", name) for name in ("stamp", "upgrade")),
}
#: Each option that means the same everywhere, and the commands that do not offer it.
NOT_OFFERED = {
    # `show` has --format.
    "--output": {("blueprints", "show"), ("local", "down"), ("local", "reset")},
    "--quiet": ONLY_ANSWERS | OF_STACK,
    "--termination-log": {("blueprints",), ("blueprints", "show"), ("migrate", "ini")} | OF_STACK,
    "--result-file": COMMANDS.keys() - RUNS - WORKS,
    "--log-format": COMMANDS.keys() - RUNS - WORKS,
}
#: What is called with each option, and the word by which its refusal names it.
REFUSED = {
    "--blueprint": ("no_such_blueprint", "no_such_blueprint"),
    "--config": ("no_such_file.toml", "no_such_file.toml"),
    "--env-file": ("no_such_file.env", "no_such_file.env"),
    "--data-dir": ("somewhere", "--local"),
    "--timeout": ("soon", "soon"),
    "--phase-timeout": ("-1", "-1"),
    "--apply-timeout": ("soon", "soon"),
    "--output": ("xml", "xml"),
    "--log-format": ("xml", "xml"),
    "--result-file": ("no_such_folder/result.json", "no_such_folder"),
    "--postgres-url": ("http://there", "--postgres-url"),
    "--neo4j-url": ("http://there", "--neo4j-url"),
    "--milvus-url": ("redis://there", "--milvus-url"),
    "--redis-url": ("http://there", "--redis-url"),
    "--only": ("mysql", "mysql"),
    "--skip": ("mysql", "mysql"),
}
#: What a command needs beside the options that it is tried with.
NEEDED = {
    ("new",): ("--from-stores", "made"),
    ("revision",): ("-m", "more"),
    ("migrate", "accept"): ("--all",),
    ("migrate", "stamp"): ("head", "--yes"),
    ("unlock",): ("redis", "--yes"),
}
WALKED = [path for path in COMMANDS if path[0] not in {"local", "blueprints"}]


def environment(path, url):
    return {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "IS_DB_BOOTSTRAP_CONNECT_TIMEOUT": "20",
        f"{store_of(path).upper()}_URL": url,
    }


@pytest.fixture
def call(tmp_path, address_of, template):  # noqa: F811 - fixtures
    """`call(path, "-q")`: the command with its usual arguments: exit code, stdout, stderr."""

    def call(path, *options, url=None, args=None):
        folder = tmp_path / f"call{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        if path == ("revision",):
            shutil.copytree(template, folder, dirs_exist_ok=True)
        args = CALLS[path] if args is None else args
        environ = environment(path, url or address_of(path))
        try:
            return run_here((*path, *args, *options), folder, environ)
        finally:
            for name in [name for name in sys.modules if name.split(".")[0] == "template"]:
                del sys.modules[name]

    return call


@pytest.fixture
def restore(address_of, database):  # noqa: F811 - fixtures
    """`restore(path)`: the store of a command is brought to where the command has work to do."""
    yield lambda path: put_back(path, address_of(path))
    migrate.upgrade("agentic_projects", url=database)


@pytest.mark.parametrize("option", NOT_OFFERED)
def test_a_command_offers_what_means_the_same_everywhere(option):
    assert {path for path in COMMANDS if not takes(path, option)} == NOT_OFFERED[option]


@pytest.mark.parametrize("option", NOT_OFFERED)
def test_an_option_that_is_not_offered_is_refused(option, tmp_path):
    for path in NOT_OFFERED[option]:
        value = {
            "--output": ["json"],
            "--termination-log": ["log"],
            "--result-file": ["result"],
            "--log-format": ["json"],
        }.get(option, [])
        code, out, err = run_here((*path, "=".join([option, *value])), tmp_path, {})
        assert (code, out) == (2, ""), path
        assert "No such option" in err, path


@pytest.mark.parametrize("path", [path for path in WALKED if CALLS[path] is not None], ids=" ".join)
@pytest.mark.usefixtures("kept")
def test_a_command_that_does_well_answers_as_it_was_asked(path, call, restore, tmp_path):
    log = tmp_path / "termination.log"
    logged = ["--termination-log", log] if takes(path, "--termination-log") else []
    restore(path)
    code, out, err = call(path, "-o", "json", *logged)
    assert code == 0, err
    found = json.loads(out)
    assert found.get("exit_code", 0) == 0
    assert "error" not in found
    if logged:
        assert json.loads(log.read_text())["exit_code"] == 0
        assert len(log.read_bytes()) <= 4096
    if takes(path, "--quiet"):
        restore(path)
        assert call(path, "--quiet") == (0, "", "")


@pytest.mark.parametrize("path", ON_A_SERVER, ids=" ".join)
@pytest.mark.usefixtures("kept")
def test_a_command_that_fails_answers_as_it_was_asked(path, call, monkeypatch, tmp_path):
    nobody = NOBODY[store_of(path)]
    log = tmp_path / "termination.log"
    soon = ["--timeout", "0.1"] if takes(path, "--timeout") else []
    options = ["-o", "json", "--termination-log", log, *soon]
    code, out, err = call(path, *options, url=nobody)
    assert code in {1, 4}
    found, logged = json.loads(out), json.loads(log.read_text())
    assert found["exit_code"] == logged["exit_code"] == code
    assert found["outcome"] == logged["outcome"] == "failed"
    assert "127.0.0.1:1" in out
    assert "127.0.0.1" in log.read_text()
    code, out, err = call(path, "--quiet", *soon, url=nobody)
    assert code in {1, 4}
    assert "127.0.0.1" in out + err


@pytest.mark.parametrize("path", WALKED, ids=" ".join)
def test_each_option_of_a_command_is_read_and_its_refusal_is_answered_as_asked(path, tmp_path):
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "REDIS_URL": "redis://there"}
    log = tmp_path / "termination.log"
    logged = ["--termination-log", log] if takes(path, "--termination-log") else []
    words = ["-o", "json", *logged, *NEEDED.get(path, ())]
    for option, (value, named) in REFUSED.items():
        if not takes(path, option):
            continue
        is_format = option in {"--output", "--log-format"}
        asked = [word for word in words if not is_format or word not in {"-o", "json"}]
        code, out, err = run_here((*path, option, value, *asked), tmp_path, environ)
        assert code == 2, (option, out, err)
        assert named in err, option
        assert "Traceback" not in err
        if not is_format:
            found = json.loads(out)
            assert (found["exit_code"], found["outcome"]) == (2, "failed"), option
            assert named in found["error"]["message"] + found["error"]["hint"], option
            assert found["command"] == " ".join(path)
            jsonschema.validate(found, FAILURE)
        if logged and not is_format:
            found = json.loads(log.read_text())
            assert (found["exit_code"], found["outcome"]) == (2, "failed"), option
            log.unlink()


@pytest.mark.parametrize("path", [path for path in WALKED if takes(path, "--local")], ids=" ".join)
def test_local_beside_an_address_is_refused_by_every_command(path, tmp_path):
    store = store_of(path)
    environ = {"PATH": os.environ["PATH"], f"{store.upper()}_URL": NOBODY[store]}
    words = ("--local", "--data-dir", "stack", "-b", "novel_genesis", *NEEDED.get(path, ()))
    code, _, err = run_here((*path, *words), tmp_path, environ)
    assert (code, f"{store.upper()}_URL" in err) == (2, True), err
    assert not (tmp_path / "stack").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("apply --quiet --verbose", "--quiet and --verbose"),
        ("setup -q -v", "--quiet and --verbose"),
        ("setup --log-format json", "--log-format json needs --yes"),
        ("apply --mode verify --seed", "--seed has no meaning beside --mode verify"),
        ("apply --mode verify --no-verify", "--no-verify has no meaning"),
        ("apply --mode verify --accept-reset redis", "--accept-reset has no meaning"),
        ("apply --accept-reset redis --targets some.toml", "--accept-reset is for one store"),
        ("plan --accept-reset redis --targets some.toml", "--accept-reset is for one store"),
        ("verify --accept-reset redis", "No such option"),
        ("apply --mode verify --apply-timeout 3", "--apply-timeout has no meaning"),
        ("plan --apply-timeout 3", "No such option"),
        ("verify --apply-timeout 3", "No such option"),
        ("status --apply-timeout 3", "No such option"),
        ("selftest --apply-timeout 3", "No such option"),
        ("wait --phase-timeout 3", "No such option"),
        ("migrate sql --url postgresql://there/x", "No such option"),
        ("migrate sql --local", "No such option"),
        ("new made --timeout 3", "--timeout without --from-stores"),
        ("new made --config some.toml", "--config without --from-stores"),
        ("new made --redis-url redis://there", "--redis-url without --from-stores"),
        ("revision --empty --local", "--local has no meaning beside --empty"),
        ("revision --cypher --url postgresql://there/x", "--url has no meaning beside --cypher"),
        ("revision --cypher --empty", "--empty has no meaning beside --cypher"),
        ("revision --refresh --message more", "--message has no meaning beside --refresh"),
        ("revision --refresh --allow-drops", "--allow-drops has no meaning beside --refresh"),
    ],
)
def test_an_option_that_would_not_be_obeyed_is_refused(words, named, tmp_path):
    code, _, err = run_here(words.split(), tmp_path, {"PATH": os.environ["PATH"]})
    assert (code, named in err) == (2, True), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("aply", "'apply'"),
        ("Verify", "'verify'"),
        ("upgrade", "'migrate upgrade'"),
        ("rollback", "'vector rollback'"),
        ("migrate upgrad", "'migrate upgrade'"),
        ("redis fix-tll", "'redis fix-ttl'"),
        ("local statsu", "'local status'"),
        ("blueprints shw", "'blueprints show'"),
        ("plan --only postgre", "'postgres'"),
        ("plan -o jsn", "'json'"),
        ("apply --mode verfy", "'verify'"),
        ("blueprints show novel_genesis -f mermaidd", "'mermaid'"),
        ("plan -b novel_genesys", "'novel_genesis'"),
        ("new made --stores redsi", "redis"),
        ("new made --from-stores --stores redsi", "redis"),
    ],
)
def test_what_does_not_exist_suggests_the_nearest(words, named, tmp_path):
    code, _, err = run_here(words.split(), tmp_path, {"PATH": os.environ["PATH"]})
    assert (code, f"Did you mean {named}?" in err) == (2, True), err


def test_what_is_like_nothing_lists_what_there_is(tmp_path):
    code, _, err = run_here(["frobnicate"], tmp_path, {})
    assert code == 2
    assert "There are adopt, apply, blueprints" in err
    assert "Did you mean" not in err
    assert nearest("zzz", STORE_ORDER) == ""
