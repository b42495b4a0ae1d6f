import re

from is_db_bootstrap import errors

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
