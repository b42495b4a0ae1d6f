"""What the documentation says is true of the code."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
from jsonschema import Draft202012Validator

from is_db_bootstrap import errors, results
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.cli import group
from is_db_bootstrap.cli._endings import BY_SIGNAL, ENDING_SIGNALS, UNWRITTEN
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.names import STORE_ORDER
from is_db_bootstrap.results import Drift, LockHolder, Mode, Outcome, Status
from is_db_bootstrap.rungs import RungResult
from is_db_bootstrap.settings import SCHEMES, Settings, StoreUrl, Timing
from is_db_bootstrap.settings.sources import plain_variables
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.testing import InMemoryBootstrapper

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")
ENV_EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
SCHEMA = json.loads((ROOT / "docs/reference/result.schema.json").read_text(encoding="utf-8"))


def fenced(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


# --- links


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_resolves(page):
    text = re.sub(
        r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if fragment:
            assert fragment in {
                anchor(h)
                for h in re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            }, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_sends_its_reader_to_a_number(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"\b(?:[Ss]ection|see) \d+(?:\.\d+)*\b(?! s\b)(?=[\s.,;:|)])", text)


def test_each_test_that_the_page_on_reliability_names_exists():
    named = set(
        re.findall(r"\btest_\w+(?:\.py)?", (ROOT / "docs/reliability.md").read_text("utf-8"))
    )
    assert len(named) > 50
    files = list((ROOT / "tests").rglob("test_*.py"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    tests = {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}
    assert named - tests - {path.name for path in files} == set()


def test_every_page_can_be_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        todo += [
            (page.parent / t).resolve()
            for t in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8"))
        ]
    assert [str(p.relative_to(ROOT)) for p in PAGES if p not in seen] == []


# --- commands


def commands(group=group, prefix=()):
    """Every command of the command line with its path of names."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield (*prefix, name), command


COMMANDS = dict(commands())


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_a_line(path):
    command = COMMANDS[path]
    assert command.help
    assert all(getattr(p, "help", None) for p in command.params if isinstance(p, click.Option)), (
        "an option without help"
    )
    assert re.search(rf"^\| `is-db-bootstrap {' '.join(path)}[` ]", CLI, re.MULTILINE)
    assert f"\nis-db-bootstrap {path[0]}" in README


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_option_is_documented(path):
    for parameter in COMMANDS[path].params:
        words = (
            parameter.opts
            if isinstance(parameter, click.Option)
            else [parameter.make_metavar(click.Context(COMMANDS[path]))]
        )
        for word in words:
            assert re.search(rf"[` ]{re.escape(word)}[` ]", CLI), (
                f"{word} of {' '.join(path)} is not in cli.md"
            )


def test_no_option_is_documented_that_does_not_exist():
    known = {
        o
        for c in COMMANDS.values()
        for p in c.params
        if isinstance(p, click.Option)
        for o in p.opts
    } | {
        "--help",
        "-h",
        "--version",
    }
    assert (
        set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", re.sub(r"```.*?```", "", CLI, flags=re.DOTALL)))
        - known
        == set()
    )


def documented_calls():
    for page in PAGES:
        for block in fenced(page.read_text(encoding="utf-8"), "(?:bash|console)"):
            whole_lines = re.sub(r"\\\n\s*", "", block)  # a call may go on behind a backslash
            for line in whole_lines.splitlines():
                words = (
                    shlex.split(line.removeprefix("$ "), comments=True)
                    if line.startswith(("is-db-bootstrap", "$ is-db-bootstrap"))
                    else []
                )
                if words:
                    yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words)}")


@pytest.mark.parametrize("words", list(documented_calls()))
def test_every_documented_call_is_one_that_the_command_takes(words, tmp_path):
    """Parsed to the end, but not executed: `--help` after everything else."""
    before_redirect = words[: words.index(">")] if ">" in words else words
    call = [sys.executable, "-m", "is_db_bootstrap", *before_redirect, "--help"]
    done = subprocess.run(
        call, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "target", ["run", "test", "lint", "format", "down", "clean", "requirements", "help"]
)
def test_make_knows(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, check=True, timeout=60)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_readme_has_a_completion_line_for(shell):
    [line] = [line for line in fenced(README, "bash")[-1].splitlines() if f"# {shell}" in line]
    assert line in CLI
    environ = os.environ | {"_IS_DB_BOOTSTRAP_COMPLETE": f"{shell}_source"}
    script = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert f"_IS_DB_BOOTSTRAP_COMPLETE={shell}_complete" in script.stdout


# --- settings


def read_settings():
    """Every environment variable that is read: declared ones, and those that the source names."""
    names = set(plain_variables())
    names |= {
        f"{s.upper()}_{part}" for s in STORE_ORDER for part in ("URL", "PASSWORD", "KEY_PASSWORD")
    }
    names |= {s.name for b in map(load_blueprint, blueprint_names()) for s in b.settings}
    names |= {f"IS_DB_BOOTSTRAP_{s.upper()}_IMAGE" for s in STORE_ORDER}
    # What containers.py names besides is read inside of containers.
    source = "".join(
        p.read_text(encoding="utf-8")
        for p in (ROOT / "src").rglob("*.py")
        if p.name != "containers.py"
    )
    names |= set(
        re.findall(
            r'"((?:IS_DB_BOOTSTRAP|DB|DATABASE|POSTGRES|NEO4J|MILVUS|REDIS)_[A-Z_]+)"', source
        )
    )
    # These are hidden from a client while it is imported, and read by nobody.
    return names - {name for kind in KINDS.values() for name in kind.import_variables}


def test_the_settings_page_names_exactly_what_is_read():
    documented = set(re.findall(r"`((?:IS_DB_BOOTSTRAP|[A-Z]\w+)_[A-Z0-9_]+)`", SETTINGS))
    assert documented == read_settings()


def test_the_env_example_names_exactly_what_is_read():
    assert set(re.findall(r"^# ([A-Z0-9_]+)=", ENV_EXAMPLE, re.MULTILINE)) == read_settings()


def test_nothing_in_the_env_example_is_active():
    assert [line for line in ENV_EXAMPLE.splitlines() if line and not line.startswith("#")] == []


#: Defaults that follow from another setting: the words of the page, and the number that follows
#: from the other default.
FOLLOWING = {"heartbeat_s": ("a sixth of `lease_s`", Timing().heartbeat())}


@pytest.mark.parametrize("field", fields(Timing), ids=lambda f: f.name)
def test_every_default_is_the_documented_one(field):
    variable = f"IS_DB_BOOTSTRAP_{field.name.removesuffix('_s').upper()}"
    words, number = FOLLOWING.get(field.name) or (f"{field.default:g}", field.default)
    assert f"| `{variable}` | `{field.name}` | {words} |" in SETTINGS
    assert f"\n# {variable}={number:g}\n" in ENV_EXAMPLE
    assert (
        getattr(Settings.load(Blueprint("story", ""), environ={variable: "3"}).timing, field.name)
        == 3
    )


@pytest.mark.parametrize("store", STORE_ORDER)
def test_every_scheme_is_documented(store):
    [row] = [
        line
        for line in SETTINGS.splitlines()
        if line.startswith("|")
        and line.count(f"`{store.upper()}_URL`")
        and "`" + SCHEMES[store][0] + "`" in line
    ]
    assert set(SCHEMES[store]) <= set(re.findall(r"`([^`]*)`", row))


def test_the_settings_of_blueprints_have_their_documented_defaults():
    for blueprint in map(load_blueprint, blueprint_names()):
        for setting in blueprint.settings:
            [row] = [
                line for line in SETTINGS.splitlines() if line.startswith(f"| `{setting.name}` ")
            ]
            assert f"`{setting.default}`" in row
            assert all(f"`{choice}`" in row for choice in setting.choices)
            assert f"\n# {setting.name}={setting.default}\n" in ENV_EXAMPLE


def test_the_documented_toml_file_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *others, text = fenced(SETTINGS, "toml")
    for other in others:
        Path("is-db-bootstrap.toml").write_text(other)
        Settings.load(Blueprint("story", ""), environ={})
    text = re.sub(r"^(password|ca)_file.*\n", "", text, flags=re.MULTILINE)
    Path("is-db-bootstrap.toml").write_text(text)
    settings = Settings.load(Blueprint("story", ""), environ={})
    assert (settings.schema, settings.timing.timeout_s, set(settings.stores)) == (
        "story",
        300,
        set(STORE_ORDER),
    )


# --- exit codes and errors


def error_classes(base=errors.BootstrapError):
    """The error and all that are derived from it."""
    yield base
    for derived in base.__subclasses__():
        if derived.__module__ == errors.__name__:
            yield from error_classes(derived)


def all_exit_codes():
    """Every code with which a command may end, by what our source says."""
    of_errors = {kind.exit_code for kind in error_classes()}
    of_signals = {BY_SIGNAL + number for number in ENDING_SIGNALS}
    return {0, UNWRITTEN} | of_errors | of_signals


def test_every_exit_code_is_documented():
    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert documented == all_exit_codes()


@pytest.mark.parametrize(
    ("name", "impossible"), [("result.schema.json", set()), ("failure.schema.json", {0})]
)
def test_a_schema_takes_each_exit_code_and_no_other(name, impossible):
    schema = json.loads((ROOT / "docs/reference" / name).read_text(encoding="utf-8"))
    codes = schema["properties"]["exit_code"]["enum"]
    assert codes == sorted(all_exit_codes() - impossible)


def test_every_error_is_documented():
    kinds = list(error_classes())
    assert set(SCHEMA["$defs"]["error"]["properties"]["kind"]["enum"]) == {k.kind for k in kinds}
    api = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    assert all(k.__name__ in api for k in kinds if k is not errors.Interrupted)


def test_every_outcome_is_documented():
    page = (
        (ROOT / "docs/reference/result.md")
        .read_text(encoding="utf-8")
        .partition("## Many targets")[0]
    )
    assert re.findall(r"^\| `(\w+)` \| (?!names|null)", page, re.MULTILINE)[-len(Outcome) :] == [
        o.value for o in Outcome
    ]


# --- the result document


def validate(result):
    document = json.loads(json.dumps(result.to_dict()))
    Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
        document
    )
    return document


def run(*stores, mode=Mode.APPLY, **extra):
    retry = RetryPolicy(deadline_s=0.05, initial_s=0.01, maximum_s=0.02)
    return BootstrapOrchestrator(stores, blueprint="story", retry=retry, **extra).run(mode)


def raising(error):
    def call(*_):
        raise error

    return call


def test_the_schema_is_a_schema_and_strict():
    Draft202012Validator.check_schema(SCHEMA)
    objects = [SCHEMA, *(d for d in SCHEMA["$defs"].values() if d.get("type") == "object")]
    for each in objects:
        assert each["additionalProperties"] is False
        assert set(each["required"]) == set(each["properties"])


def test_the_schema_has_the_fields_of_the_classes():
    classes = {
        "store": results.StoreResult,
        "server": results.ServerInfo,
        "status": Status,
        "lock": LockHolder,
        "change": results.ChangeResult,
        "drift": Drift,
        "danger": results.Danger,
        "error": results.ErrorReport,
        "rung": RungResult,
        "fact": results.Fact,
        "privilege": results.Privilege,
        "diagnosis": results.Diagnosis,
        "machine": results.Machine,
    }
    for name, kind in classes.items():
        again = set(getattr(kind, "JSON_NAMES", {}))
        assert set(SCHEMA["$defs"][name]["properties"]) == again | {
            f.name for f in fields(kind)
        } - {"exception", "finding", "is_awaited"}
    assert set(SCHEMA["properties"]) == {f.name for f in fields(results.BootstrapResult)}
    assert SCHEMA["properties"]["schema_version"]["const"] == results.SCHEMA_VERSION
    assert set(SCHEMA["properties"]["mode"]["enum"]) == set(Mode)
    assert set(SCHEMA["$defs"]["runOutcome"]["enum"]) == set(Outcome)


@pytest.mark.parametrize("mode", Mode)
def test_the_result_of_every_mode_validates(mode):
    document = validate(
        run(
            InMemoryBootstrapper("postgres", ["a"]),
            InMemoryBootstrapper("redis", ["b"], applied=["b"]),
            mode=mode,
        )
    )
    assert document["mode"] == mode


def test_a_locked_store_and_a_failed_run_validate():
    locked = InMemoryBootstrapper("redis", ["a"])
    locked.lock_owner = "another run"
    assert validate(run(locked))["stores"][0]["error"]["kind"] == "lock_timeout"
    assert (
        validate(run(locked, mode=Mode.STATUS))["stores"][0]["status"]["lock"]["who"]
        == "another run"
    )
    assert (
        validate(
            run(InMemoryBootstrapper(unavailable=10**6), InMemoryBootstrapper("milvus", ["x"]))
        )["exit_code"]
        == 4
    )


def test_a_drifted_and_an_interrupted_run_validate():
    drifted = InMemoryBootstrapper("redis", ["a"], applied=["a"])
    drifted.verify = lambda: [Drift("a", "item", "differs", "1", "2")]
    assert validate(run(drifted))["stores"][0]["drifts"][0]["expected"] == "1"
    store = InMemoryBootstrapper("redis", ["a", "b"])
    orchestrator = BootstrapOrchestrator([store], retry=RetryPolicy(deadline_s=1))
    store.on_apply = lambda _: orchestrator.interrupt(143)
    assert validate(orchestrator.run())["exit_code"] == 143


def test_every_error_validates():
    change = results.Change("a", "item")
    for kind in (
        errors.AccessDenied,
        errors.StoreConflict,
        errors.StoreReset,
        errors.ConfigurationError,
    ):
        store = InMemoryBootstrapper("redis", ["a"])
        store.plan = raising(
            kind("redis", "No.") if kind is not errors.ConfigurationError else kind("No.")
        )
        assert validate(run(store))["exit_code"] == kind.exit_code
    store = InMemoryBootstrapper(
        "redis", ["a"], on_apply=raising(errors.ChangeFailed("redis", "No.", change=change))
    )
    assert validate(run(store))["stores"][0]["changes"][0]["outcome"] == "failed"


def test_the_documented_document_validates():
    page = (ROOT / "docs/reference/result.md").read_text(encoding="utf-8")
    text, failure = fenced(page, "json")
    schema = (ROOT / "docs/reference/failure.schema.json").read_text(encoding="utf-8")
    Draft202012Validator(json.loads(schema)).validate(json.loads(failure))
    Draft202012Validator(SCHEMA).validate(json.loads(text))


@pytest.mark.acceptance
@pytest.mark.parametrize(
    "store", [pytest.param(s, marks=getattr(pytest.mark, s)) for s in STORE_ORDER]
)
def test_the_documents_of_real_runs_validate(store, request):
    address = request.getfixturevalue(f"{store}_url")
    environ = {
        k: v for k, v in os.environ.items() if k != "DATABASE_URL" and not k.startswith("DB_")
    } | {f"{store.upper()}_URL": address}
    for command, outcome in (
        ("plan", "planned"),
        ("apply", "changed"),
        ("apply", "unchanged"),
        ("verify", "unchanged"),
        ("status", "unchanged"),
    ):
        call = [
            sys.executable,
            "-m",
            "is_db_bootstrap",
            command,
            "--only",
            store,
            "--output",
            "json",
        ]
        done = subprocess.run(
            call, env=environ, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        document = json.loads(done.stdout)
        Draft202012Validator(SCHEMA).validate(document)
        assert document["outcome"] == outcome, command
        assert document["stores"][0]["store"] == store


# --- the examples


def python_examples():
    for page in PAGES:
        for number, block in enumerate(fenced(page.read_text(encoding="utf-8"), "python")):
            yield pytest.param(block, id=f"{page.name}-{number}")


@pytest.mark.parametrize("block", list(python_examples()))
def test_every_python_example_compiles_and_its_imports_exist(block):
    compile(block, "example", "exec")
    imports = "\n".join(re.findall(r"^(?:from|import) .*$", block, re.MULTILINE))
    exec(imports, {})


@pytest.mark.parametrize("word", ["initContainers", "/data"])
def test_the_kubernetes_examples_are_short_and_of_documented_variables(word):
    """`tests/packaging/kubernetes` runs them."""
    [text] = [block for block in fenced(README, "yaml") if word in block]
    assert len(text.splitlines()) < 20
    assert set(re.findall(r"(?:name: |^ +)([A-Z0-9_]+)[,:]", text, re.MULTILINE)) <= read_settings()


@pytest.mark.postgres
@pytest.mark.redis
def test_the_python_example_of_the_readme_runs(postgres_url, redis_url, capsys):
    [example] = [text for text in fenced(README, "python") if "BootstrapOrchestrator" in text]
    addresses = {
        "postgresql://app@localhost/novel_genesis": postgres_url,
        "redis://localhost": redis_url,
    }
    for documented, real in addresses.items():
        assert documented in example
        example = example.replace(documented, real)
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith(
        "changed ['" + StoreUrl.parse("postgres", postgres_url).database
    )


def test_every_path_of_the_tasks_page_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Where to change what", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    for row in rows:
        paths = [text for text in re.findall(r"`([^`]+)`", row) if "/" in text]
        assert paths, row
        missing = [path for path in paths if not (ROOT / path).exists()]
        assert missing == [], row


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: path.name)
def test_no_line_of_text_has_more_than_100_columns(path):
    """Tables and code may."""
    text = re.sub(r"^\s*```.*?^\s*```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    kept = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "<", "#"))]
    assert [line for line in kept if len(line) > 100] == []
