import json

import pytest

from is_db_bootstrap import __version__, app
from is_db_bootstrap.cli import main
from is_db_bootstrap.errors import AccessDenied, StoreConflict
from is_db_bootstrap.testing import InMemoryBootstrapper

BLUEPRINT = """
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, KeyPattern

B = Blueprint(
    "story",
    "for tests",
    collections=(Collection("c_v1", (Field("id", "INT64", primary=True),)),),
    keys=(KeyPattern("k", "k:{x}", "string", 60, "app", "x"),),
)
"""


class Shell:
    """The command in this process, over stores in memory that outlive a call."""

    def __init__(self, capsys):
        self.capsys = capsys
        self.stores = {name: InMemoryBootstrapper(name, ["a", "b"]) for name in ("milvus", "redis")}
        self.built = []

    def build(self, store, url, blueprint, settings, **_):
        self.built.append((store, str(url), blueprint.name, settings.timing.timeout_s))
        return self.stores[store]

    def __call__(self, *args):
        with pytest.raises(SystemExit) as end:
            main(list(args))
        out, err = self.capsys.readouterr()
        return end.value.code, out, err


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    (tmp_path / "story_for_cli.py").write_text(BLUEPRINT)
    (tmp_path / "is-db-bootstrap.toml").write_text('blueprint = "story_for_cli:B"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in (
        "POSTGRES_URL",
        "DATABASE_URL",
        "DB_HOST",
        "NEO4J_URL",
        "IS_DB_BOOTSTRAP_BLUEPRINT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MILVUS_URL", "http://me:s3cret@vectors")
    monkeypatch.setenv("REDIS_URL", "redis://cache")
    shell = Shell(capsys)
    monkeypatch.setattr(app, "bootstrapper", shell.build)
    return shell


def outcomes(document):
    return {s["store"]: s["outcome"] for s in json.loads(document)["stores"]}


def test_without_a_command_it_applies(shell):
    code, out, _ = shell()
    assert code == 0
    assert "story: apply changed" in out
    assert shell.stores["redis"].applied == ["a", "b"]


@pytest.mark.parametrize("options", [["--quiet"], ["--only", "redis"]])
def test_an_option_before_a_command_is_told_where_it_goes(shell, options):
    code, _, err = shell(*options, "plan")
    assert code == 2
    assert "Options come after the command: is-db-bootstrap plan" in err


def test_options_need_no_command_before_them(shell):
    assert outcomes(shell("--only", "redis", "-o", "json")[1]) == {"redis": "changed"}


def test_a_second_run_changes_nothing(shell):
    shell()
    assert outcomes(shell("apply", "-o", "json")[1]) == {
        "milvus": "unchanged",
        "redis": "unchanged",
    }


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["aply"], "aply"),
        (["apply", "--nope"], "--nope"),
        (["--only", "mysql"], "mysql"),
        (["--only", "neo4j"], "neo4j"),
        (["--only", "redis", "--skip", "redis"], "no store"),
        (["-b", "unheard_of"], "unheard_of"),
        (["-b", "unheard_of:B"], "unheard_of"),
        (["--timeout", "soon"], "soon"),
        (["--timeout", "-1"], "-1"),
        (["-o", "xml"], "xml"),
        (["--redis-url", "http://cache"], "--redis-url"),
        (["--env-file", "nowhere"], "nowhere"),
        (["--config", "nowhere.toml"], "nowhere.toml"),
        (["local"], "Usage"),
        (["local", "sideways"], "sideways"),
        (["migrate", "sideways"], "sideways"),
    ],
    ids=" ".join,
)
def test_misuse_is_exit_2_and_says_what(shell, args, named):
    code, out, err = shell(*args)
    assert code == 2
    assert named in out + err
    assert "Traceback" not in err
    assert shell.stores["redis"].calls == []


def test_a_missing_address_is_exit_2_and_names_the_variable(shell, monkeypatch):
    monkeypatch.delenv("REDIS_URL")
    code, out, err = shell()
    assert (code, out) == (2, "")
    assert "REDIS_URL" in err
    assert shell.stores["milvus"].calls == []


def test_local_beside_an_address_is_exit_2_and_names_it(shell):
    code, _, err = shell("--local")
    assert code == 2
    assert "REDIS_URL" in err


@pytest.mark.parametrize(
    ("args", "left"),
    [
        (["--only", "milvus"], ["milvus"]),
        (["--skip", "milvus"], ["redis"]),
        (["--only", "redis", "--only", "milvus"], ["milvus", "redis"]),
    ],
)
def test_only_and_skip_choose_stores(shell, args, left):
    assert list(outcomes(shell("wait", "-o", "json", *args)[1])) == left


@pytest.mark.parametrize("command", ["apply", "plan", "verify", "wait", "status"])
def test_json_is_one_document_on_stdout(shell, command):
    _, out, _ = shell(command, "--output", "json", "--verbose")
    document = json.loads(out)
    assert (document["mode"], document["blueprint"], document["schema_version"]) == (
        command,
        "story",
        1,
    )


def test_progress_goes_to_stderr(shell):
    shell.stores["milvus"].unavailable = 1
    _, out, err = shell("-o", "json", "-v")
    json.loads(out)
    assert "milvus: The store is not up yet. Trying again." in err
    assert "redis: item b: changed" in err
    assert "milvus: http://me:***@vectors (from MILVUS_URL)" in err
    assert "s3cret" not in out + err


def test_quiet_says_nothing_but_failures(shell):
    assert shell("--quiet") == (0, "", "")
    shell.stores["redis"].applied.remove("a")
    assert shell("verify", "--quiet")[0] == 3
    assert "redis" in shell("verify", "--quiet")[1]


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["-h"]])
def test_it_says_what_it_is(shell, args):
    code, out, err = shell(*args)
    assert (code, err) == (0, "")
    assert (
        out == f"is-db-bootstrap {__version__}\n" if args == ["--version"] else "Commands:" in out
    )


def test_a_plan_changes_nothing_and_exits_0_or_as_asked_3(shell):
    assert shell("plan")[0] == 0
    assert shell("plan", "--exit-code")[0] == 3
    assert json.loads(shell("plan", "--exit-code", "-o", "json")[1])["exit_code"] == 3
    assert shell.stores["redis"].applied == []
    shell()
    assert shell("plan", "--exit-code")[0] == 0


def test_verify_before_apply_is_exit_3(shell):
    code, out, _ = shell("verify")
    assert code == 3
    assert "drift: item a: is pending" in out


def test_status_shows_record_and_head(shell):
    shell.stores["redis"].applied = ["a"]
    code, out, _ = shell("status")
    assert code == 0
    assert "redis: recorded a, head b, not locked" in out


def test_the_exit_code_is_that_of_the_first_failed_store(shell):
    def refuse(error):
        def ping(_):
            raise error

        return ping

    shell.stores["redis"].ping = refuse(AccessDenied("redis", "Wrong password."))
    assert shell()[0] == 5
    shell.stores["milvus"].ping = refuse(StoreConflict("milvus", "Too old.", hint="Upgrade it."))
    code, out, _ = shell()
    assert code == 6
    assert "conflict: Too old." in out
    assert "next: Upgrade it." in out
    assert "access_denied: Wrong password." in out


def test_waiting_ends_at_the_timeout(shell):
    shell.stores["redis"].unavailable = 10**6
    code, out, err = shell("wait", "--timeout", "0.3", "--skip", "milvus")
    assert code == 4
    assert "next: Start it." in out
    assert err.count("Trying again") == 1


def test_a_bug_stays_a_traceback(shell):
    def broken():
        raise ZeroDivisionError

    shell.stores["redis"].plan = broken
    code, _, err = shell()
    assert code == 1
    assert "Traceback" in err
    assert "ZeroDivisionError" in err


def test_blueprints_are_listed(shell):
    assert "novel_genesis" in shell("blueprints")[1]
    [row] = [
        r for r in json.loads(shell("blueprints", "-o", "json")[1]) if r["name"] == "novel_genesis"
    ]
    assert row["stores"] == ["postgres", "neo4j", "milvus", "redis"]


def test_migrate_ini_prints_a_file(shell):
    from pathlib import Path

    assert "[novel_genesis]" in Path(shell("migrate", "ini")[1].strip()).read_text()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("pl", {"plan"}),
        (
            "",
            {
                "adopt",
                "apply",
                "blueprints",
                "check",
                "doctor",
                "grants",
                "local",
                "migrate",
                "new",
                "plan",
                "redis",
                "repair",
                "revision",
                "selftest",
                "setup",
                "status",
                "unlock",
                "vector",
                "verify",
                "wait",
            },
        ),
        ("--ou", {"--output"}),
        ("--vers", {"--version"}),
        ("apply --only ", {"postgres", "neo4j", "milvus", "redis"}),
        ("--output ", {"text", "json"}),
        ("local ", {"up", "down", "reset", "status"}),
        ("redis ", {"audit", "fix-ttl"}),
        ("vector ", {"prune", "rollback", "status", "upgrade"}),
    ],
)
def test_shells_complete_commands_options_and_values(shell, monkeypatch, typed, completed):
    words = f"is-db-bootstrap {typed}"
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    monkeypatch.setenv("_IS_DB_BOOTSTRAP_COMPLETE", "bash_complete")
    code, out, _ = shell()
    assert code == 0
    assert {line.split(",")[1] for line in out.splitlines()} == completed


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_scripts_are_there_for(shell, monkeypatch, name):
    monkeypatch.setenv("_IS_DB_BOOTSTRAP_COMPLETE", f"{name}_source")
    assert "_IS_DB_BOOTSTRAP_COMPLETE" in shell()[1]


def test_a_retry_is_for_one_run_that_applies(shell):
    for others in (["--mode", "init"], ["--mode", "verify"], ["--targets", "some.toml"]):
        code, _, err = shell("apply", "--retry", "a", *others)
        assert (code, f"so not with {others[0]}" in err) == (2, True), err
    code, out, _ = shell("--retry", "a")
    assert (code, "a is not marked as begun" in out) == (2, True), out
    assert [store.applied for store in shell.stores.values()] == [[], []]
