"""Each default of a time is written once, in `settings/timing.py`."""

import ast
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

import is_db_bootstrap
from is_db_bootstrap.cli import group
from is_db_bootstrap.engine import LockPolicy
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.settings.timing import DEFAULT, SETUP_TIMEOUT_S

PACKAGE = Path(is_db_bootstrap.__file__).parent
#: What the engine's policies call the same times.
ALSO_CALLED = {"deadline_s", "initial_s", "maximum_s"}
NAMES = {field.name for field in fields(Timing)} | ALSO_CALLED
#: Times of others than a run: a ticket among test processes, and what the reference systems do.
OTHERS = (PACKAGE / "testing" / "neo4j_turn.py", PACKAGE / "blueprints")
MODULES = [
    path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "settings" / "timing.py"
    and not any(path.is_relative_to(other) for other in OTHERS)
]


def written_defaults(tree):
    """The name, value and line of each default: of a field, a parameter and a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, node.value, node.lineno
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            with_default = [*given.posonlyargs, *given.args][-len(given.defaults) :]
            pairs = [
                *(zip(with_default, given.defaults, strict=True) if given.defaults else ()),
                *zip(given.kwonlyargs, given.kw_defaults, strict=True),
            ]
            for argument, value in pairs:
                yield argument.arg, value, node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_other_module_writes_the_default_of_a_time(path):
    found = [
        f"{name} = {ast.unparse(value)}, line {line}"
        for name, value, line in written_defaults(ast.parse(path.read_text(encoding="utf-8")))
        if name.lower().lstrip("_") in NAMES
        and isinstance(value, ast.Constant)
        and isinstance(value.value, int | float)
    ]
    assert found == []


def test_the_policies_of_the_engine_have_the_defaults_of_timing():
    assert RetryPolicy() == RetryPolicy.of(DEFAULT)
    assert LockPolicy(heartbeat_s=DEFAULT.heartbeat()) == LockPolicy.of(DEFAULT)


def test_the_page_of_the_commands_shows_the_defaults_of_timing():
    page = (PACKAGE.parent.parent / "docs/reference/cli.md").read_text(encoding="utf-8")
    defaults = f"default {DEFAULT.timeout_s:g}, in `setup` {SETUP_TIMEOUT_S:g} |"
    assert f"for waiting and locking together; {defaults}" in page
    assert not DEFAULT.apply_timeout_s
    assert "for apply; default none |" in page
    shown = f"each check of a self-test; default {DEFAULT.phase_timeout_s:g}, 0 is none |"
    assert shown in page


@pytest.mark.parametrize("command", [["apply"], ["setup"], ["migrate", "current"]], ids=" ".join)
def test_the_help_shows_the_defaults_of_timing(command):
    shown = " ".join(CliRunner().invoke(group, [*command, "--help"]).output.split())
    expected = SETUP_TIMEOUT_S if command == ["setup"] else DEFAULT.timeout_s
    assert f"together. [x>=0] [default: {expected:g}]" in shown.replace("locking.", "together.")
    if command[0] != "migrate":
        assert "For apply. [x>=0] [default: none]" in shown
