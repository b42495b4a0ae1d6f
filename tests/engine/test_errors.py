import json
import re

import pytest

from is_db_bootstrap import errors
from is_db_bootstrap.cli._endings import BY_SIGNAL, ENDING_SIGNALS, UNWRITTEN
from pages import ROOT

#: A line of the docstring's tree: branches, the class, the exit code.
LINE = re.compile(r"^(?P<branch>(?:│   |    )*(?:├── |└── ))(?P<name>\w+) +(?P<code>\d+) ")


def drawn_tree():
    """Class, base class and exit code of each line of the tree in the module's docstring."""
    above = {0: "BootstrapError"}
    for line in errors.__doc__.splitlines():
        found = LINE.match(line)
        if found:
            depth = len(found["branch"]) // 4
            above[depth] = found["name"]
            yield found["name"], above[depth - 1], int(found["code"])


def class_tree(base=errors.BootstrapError):
    for error in base.__subclasses__():
        if error.__module__ == errors.__name__:
            yield error.__name__, base.__name__, error.exit_code
            yield from class_tree(error)


def test_the_drawn_tree_of_errors_is_the_tree_of_the_classes():
    assert sorted(drawn_tree()) == sorted(class_tree())


def all_exit_codes():
    """Every code with which a command may end, by what our source says."""
    of_errors = {errors.BootstrapError.exit_code, *(code for _, _, code in class_tree())}
    of_signals = {BY_SIGNAL + number for number in ENDING_SIGNALS}
    return {0, UNWRITTEN} | of_errors | of_signals


def test_the_page_of_exit_codes_has_each_code_and_no_other():
    page = (ROOT / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    assert {
        int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)
    } == all_exit_codes()


@pytest.mark.parametrize(
    ("name", "impossible"), [("result.schema.json", set()), ("failure.schema.json", {0})]
)
def test_a_schema_takes_each_exit_code_and_no_other(name, impossible):
    schema = json.loads((ROOT / "docs/reference" / name).read_text(encoding="utf-8"))
    codes = schema["properties"]["exit_code"]["enum"]
    assert codes == sorted(all_exit_codes() - impossible)
