"""Writing the folder from templates."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from is_db_bootstrap import blueprints
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER

#: Template to the file that it becomes, and the store that it is for; empty: every one.
_FILES = (
    ("blueprint.py", "blueprint.py", ""),
    ("models.py", "models.py", "postgres"),
    ("revision.py", "migrations/${revision}_notes.py", "postgres"),
    ("catalogue.json", "migrations/catalogue.json", "postgres"),
    ("constraints.cypher", "cypher/V001__constraints.cypher", "neo4j"),
    ("indexes.cypher", "cypher/V002__indexes.cypher", "neo4j"),
    ("test_blueprint.py", "tests/test_blueprint.py", ""),
    ("compose.yaml", "compose.yaml", ""),
    ("workflow.yaml", ".github/workflows/bootstrap.yaml", ""),
    ("is-db-bootstrap.toml", "is-db-bootstrap.toml", ""),
    ("gitignore", ".gitignore", ""),
    ("README.md", "README.md", ""),
)
#: A line that ends so is only for a store.
_ONLY = re.compile(r"^(?P<line>.*?)\s*#only (?P<store>\w+)$")
_LONGEST = 26


def create(
    name: str, stores: Sequence[str] = STORE_ORDER, parent: Path | None = None
) -> list[Path]:
    """Write the folder `name` (`-` becomes `_`) into `parent`, for these stores; the files, in order.

    Nothing is overwritten: raises `ConfigurationError` for a folder that holds something, for a name that is no module's,
    and for one that a built-in blueprint has.
    """
    module = _checked(name)
    chosen = [store for store in STORE_ORDER if store in stores]
    if not chosen or len(chosen) != len(set(stores)):
        raise ConfigurationError(
            f"Stores are {', '.join(STORE_ORDER)}; given: {', '.join(stores) or 'none'}."
        )
    folder = (parent or Path.cwd()) / module
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        first = next(iter(sorted(folder.iterdir())), folder) if folder.is_dir() else folder
        raise ConfigurationError(
            f"{folder} is not empty: {first.name} is there.",
            hint="Nothing is overwritten; give another name.",
        )
    values = {"name": module, "revision": f"{module}_0001", "label": "".join(part.capitalize() for part in module.split("_")),
              "stores": ", ".join(chosen), "extras": ",".join(chosen)}  # fmt: skip
    written = [(folder / path, text) for path, text in _texts(values, chosen)]
    for path, text in written:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [path for path, _ in written]


def _checked(name: str) -> str:
    module = name.replace("-", "_")
    if (
        not re.fullmatch(r"[a-z][a-z0-9_]*", module)
        or keyword.iskeyword(module)
        or len(module) > _LONGEST
    ):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a blueprint.",
            hint=f"Small letters, digits and _, a letter first, at most {_LONGEST} characters, no word of Python.",
        )
    if module in blueprints.names():
        raise ConfigurationError(
            f"There is a built-in blueprint {module} already.", hint="Give another name."
        )
    return module


def _texts(values: dict[str, str], stores: Sequence[str]) -> Iterator[tuple[str, str]]:
    templates = resources.files(__package__) / "templates"
    for template, path, store in _FILES:
        if not store or store in stores:
            text = (templates / f"{template}.txt").read_text(encoding="utf-8")
            yield Template(path).substitute(values), _filled(_for(text, stores), values)


def _filled(text: str, values: dict[str, str]) -> str:
    """Our own placeholders replaced; `${POSTGRES_PASSWORD:-…}` of a compose file stays."""
    return Template(re.sub(r"\$\{(?=[A-Z])", "$${", text)).substitute(values)


def _for(text: str, stores: Sequence[str]) -> str:
    """The lines of a template that are for these stores."""
    lines = []
    for line in text.splitlines():
        only = _ONLY.match(line)
        if only is None or only["store"] in stores:
            lines.append(only["line"] if only else line)
    return "\n".join(lines) + "\n"
