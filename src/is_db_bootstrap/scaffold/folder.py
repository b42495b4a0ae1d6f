"""Writes the folder of a new blueprint from templates."""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

from is_db_bootstrap.blueprint.load import blueprint_names
from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.nearest import nearest
from is_db_bootstrap.scaffold.requirement import requirement


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the new folder.

    `store` is the store that needs it. A file without one is always written.
    """

    template: str
    path: str
    store: StoreName | None = None


_FILES = (
    _File("blueprint.py", "blueprint.py"),
    _File("models.py", "models.py", "postgres"),
    _File("revision.py", "migrations/${revision}_notes.py", "postgres"),
    _File("catalogue.json", "migrations/catalogue.json", "postgres"),
    _File("constraints.cypher", "cypher/V001__constraints.cypher", "neo4j"),
    _File("indexes.cypher", "cypher/V002__indexes.cypher", "neo4j"),
    _File("test_blueprint.py", "tests/test_blueprint.py"),
    _File("compose.yaml", "compose.yaml"),
    _File("workflow.yaml", ".github/workflows/bootstrap.yaml"),
    _File("is-db-bootstrap.toml", "is-db-bootstrap.toml"),
    _File("gitignore", ".gitignore"),
    _File("README.md", "README.md"),
)
#: The end of a template's line that is written for one store only.
_ONLY = re.compile(r"^(?P<line>.*?)\s*#only (?P<store>\w+)$")
#: A placeholder in capitals, such as `${POSTGRES_PASSWORD:-…}` of a compose file, is not ours.
_FOREIGN_PLACEHOLDER = re.compile(r"\$\{(?=[A-Z])")
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_LONGEST_NAME = 26


def create_folder(
    name: str, stores: Sequence[str] = STORE_ORDER, parent: Path | None = None
) -> list[Path]:
    """Write the folder `name` into `parent`, for these stores, and return its files in order.

    A `-` in the name becomes `_`. `parent` is the working directory unless it is given. Nothing is
    overwritten. Raises `ConfigurationError` for a folder that holds something, for a name that
    cannot be that of a module, for the name of an installed blueprint, and for an unknown store.
    """
    module = module_name(name)
    chosen = check_stores(stores)
    folder = (parent or Path.cwd()) / module
    refuse_used_folder(folder)
    values = _template_values(module, chosen)
    # All texts are made before the first file is written.
    texts = {folder / path: text for path, text in _file_texts(values, chosen)}
    write_files(folder, texts)
    return list(texts)


def write_files(folder: Path, texts: Mapping[Path, str]) -> None:
    """Write all files of a new folder, or none: one that cannot be written takes the rest along.

    Raises `BootstrapError` then, such as on a full disk.
    """
    was_there = folder.exists()
    path = folder
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as exc:
        written = folder.iterdir() if was_there else [folder]
        for each in list(written):
            shutil.rmtree(each, ignore_errors=True)
        raise BootstrapError(
            f"{path} cannot be written: {exc.strerror or exc}.",
            hint="No file was left. Make room, or go to a folder that you may write to.",
        ) from exc


def module_name(name: str) -> str:
    """`name` as the name of a module, which no installed blueprint has yet."""
    module = name.replace("-", "_")
    is_identifier = _NAME.fullmatch(module) is not None and not keyword.iskeyword(module)
    is_too_long = len(module) > _LONGEST_NAME
    if not is_identifier or is_too_long:
        raise ConfigurationError(
            f"{name!r} cannot be the name of a blueprint.",
            hint=(
                "Small letters, digits and _, a letter first, "
                f"at most {_LONGEST_NAME} characters, no word of Python."
            ),
        )
    if module in blueprint_names():
        raise ConfigurationError(
            f"There is an installed blueprint {module} already.", hint="Give another name."
        )
    return module


def check_stores(stores: Sequence[str]) -> list[StoreName]:
    """The stores in store order. Refuses an unknown store, and a choice of none."""
    chosen = [store for store in STORE_ORDER if store in stores]
    has_unknown = len(chosen) != len(set(stores))
    if not chosen or has_unknown:
        raise ConfigurationError(
            f"Stores are {', '.join(STORE_ORDER)}; given: {', '.join(stores) or 'none'}.",
            hint=_nearest_stores(stores),
        )
    return chosen


def _nearest_stores(stores: Sequence[str]) -> str:
    """A question after the stores that an unknown name is like. Empty without one."""
    unknown = [store for store in stores if store not in STORE_ORDER]
    near = [found for store in unknown if (found := nearest(store, STORE_ORDER))]
    return f"Did you mean {', '.join(near)}?" if near else ""


def refuse_used_folder(folder: Path) -> None:
    """Refuse a file, and a folder that holds something."""
    if not folder.exists():
        return
    found = min(folder.iterdir(), default=None) if folder.is_dir() else folder
    if found is not None:
        raise ConfigurationError(
            f"{folder} is not empty: {found.name} is there.",
            hint="Nothing is overwritten; give another name.",
        )


def _template_values(module: str, stores: Sequence[str]) -> dict[str, str]:
    """What the placeholders of the templates stand for."""
    words = module.split("_")
    return {
        "name": module,
        "revision": f"{module}_0001",
        "label": "".join(word.capitalize() for word in words),
        "stores": ", ".join(stores),
        "tested": requirement("all,testing"),
        "installed": requirement(",".join(stores)),
    }


def _file_texts(values: dict[str, str], stores: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Path and text of each file that these stores need."""
    templates = resources.files(__package__) / "templates"
    for file in _FILES:
        is_needed = file.store is None or file.store in stores
        if not is_needed:
            continue
        template = (templates / f"{file.template}.txt").read_text(encoding="utf-8")
        path = Template(file.path).substitute(values)
        lines = _lines_for_stores(template, stores)
        yield path, _filled_template(lines, values)


def _filled_template(text: str, values: dict[str, str]) -> str:
    """The text with our own placeholders replaced. Those in capitals stay."""
    escaped = _FOREIGN_PLACEHOLDER.sub("$${", text)
    return Template(escaped).substitute(values)


def _lines_for_stores(text: str, stores: Sequence[str]) -> str:
    """The lines of a template that are for these stores."""
    lines = []
    for line in text.splitlines():
        mark = _ONLY.match(line)
        if mark is None:
            lines.append(line)
        elif mark["store"] in stores:
            lines.append(mark["line"])
    return "\n".join(lines) + "\n"
