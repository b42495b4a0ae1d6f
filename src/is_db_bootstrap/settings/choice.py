"""Which blueprint a call is about, and who says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings.project_file import FILE_NAME
from is_db_bootstrap.settings.sources import (
    BLUEPRINT_VARIABLE,
    Table,
    env_file_variables,
    refuse_address,
)

#: The blueprint of a call that names none.
DEFAULT = "novel_genesis"
#: Why it is that one.
DEFAULT_REASON = f"no --blueprint, no {BLUEPRINT_VARIABLE}, no project file"
#: The file of a folder that is a blueprint, and what such a file imports.
_MODULE_FILE, _OUR_PACKAGE = "blueprint.py", "is_db_bootstrap"


@dataclass(frozen=True, slots=True)
class Choice:
    """The blueprint of a call.

    `name` is as it was written: an installed name, a path, or `module:ATTRIBUTE`. `source` says who
    named it, for people. `is_default` says that nobody did. A path or a module is looked for in
    `folder`, or in the working directory when that is None. `file` is the project file that named
    it, if one did.
    """

    name: str
    source: str
    is_default: bool = False
    folder: Path | None = None
    file: Path | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.source})"

    def path_in_folder(self) -> str:
        """The name, as a path in `folder` where it can be nothing but a path."""
        is_path = "/" in self.name or "\\" in self.name or self.name in {".", ".."}
        is_file = self.name.endswith((".py", ".toml"))
        if self.folder is None or not (is_path or is_file):
            return self.name
        return str(self.folder / self.name)


def chosen_blueprint(
    flag: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    env_file: Path | None = None,
    folder: Path | None = None,
) -> Choice:
    """The blueprint of a call, from the first source that names one.

    The order is: `flag`, the variable `IS_DB_BOOTSTRAP_BLUEPRINT` in `environ` (the process's
    environment when None), the same variable in `env_file`, the TOML `file`, else the one that is
    found from `folder` upwards (the working directory when None). Without any of these it is
    `DEFAULT`.

    A path in a file is relative to the folder of that file. A TOML file that names a team's own
    environment is a blueprint by itself, whose name is the file's path. Raises `ConfigurationError`
    for a file that cannot be read, and for an address in the place of a name.
    """
    if flag:
        refuse_address("--blueprint", flag)
        return Choice(flag, "--blueprint")
    given = os.environ if environ is None else environ
    if name := given.get(BLUEPRINT_VARIABLE):
        refuse_address(BLUEPRINT_VARIABLE, name)
        return Choice(name, BLUEPRINT_VARIABLE)
    if env_file and (name := env_file_variables(env_file).get(BLUEPRINT_VARIABLE)):
        refuse_address(BLUEPRINT_VARIABLE, name)
        return Choice(name, f"{BLUEPRINT_VARIABLE} in {env_file}", folder=env_file.parent)
    table = Table.read(file, folder)
    return _choice_of_table(table) or Choice(DEFAULT, DEFAULT_REASON, is_default=True)


def _choice_of_table(table: Table) -> Choice | None:
    """The blueprint that a TOML file names, or is. None when it is silent about that."""
    path = table.path
    if path is None:
        return None
    name: str = table.top.get("blueprint", "")
    if not table.declares_environment:
        if not name:
            return None
        return Choice(name, f"blueprint in {table.name}", folder=path.parent, file=path)
    if name:
        raise ConfigurationError(
            f"{table.name} names the blueprint {name} and an environment of Alembic.",
            hint="Keep one of them. A Blueprint(…, alembic=…) may name the environment too.",
        )
    return Choice(str(path), f"the environment of Alembic in {table.name}", file=path)


def refuse_overlooked(choice: Choice, folder: Path | None = None) -> None:
    """Raise `ConfigurationError` when the default would be taken in a folder that is a blueprint.

    `folder` is the working directory when None. Such a folder has a `blueprint.py` that imports
    this package.
    """
    if not choice.is_default:
        return
    path = (folder or Path()) / _MODULE_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if _OUR_PACKAGE in text:
        raise ConfigurationError(
            f"Nothing names a blueprint, and this folder holds one ({_MODULE_FILE}).",
            hint=f'Say --blueprint . for this one, or write blueprint = "." into {FILE_NAME}. '
            f"For the built-in one say --blueprint {DEFAULT}.",
        )
