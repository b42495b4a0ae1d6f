"""Where settings come from: the environment, an env file and a TOML file.

Besides `settings`, only the edges `cli`, `local` and `testing` read the environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.nearest import nearest
from is_db_bootstrap.settings.project_file import find_project_file, is_above, our_content
from is_db_bootstrap.settings.secrets import (
    has_surrogates,
    may_hold_secret,
    read_secret,
    shown,
)
from is_db_bootstrap.settings.service_links import links_of
from is_db_bootstrap.settings.timing import Timing
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.stores.kind import StoreKind

_STORE_KEYS = {
    "url",
    "username",
    "password",
    "password_file",
    "ca_file",
    "cert_file",
    "key_file",
    "key_password",
    "key_password_file",
}
#: What stands behind the name of a store in its variables that hold no secret.
_PLAIN_OF_STORES = (
    "USERNAME",
    "PASSWORD_FILE",
    "CA_FILE",
    "CERT_FILE",
    "KEY_FILE",
    "KEY_PASSWORD_FILE",
)
#: The key of the version tables that are not ours.
IGNORED_KEY = "ignored_version_tables"
#: The key of what an unknown revision means.
UNKNOWN_KEY = "unknown_revision"
#: The key of whether owners, grants and the roles of policies are compared.
PRIVILEGES_KEY = "privileges"
_TOP_KEYS = {"blueprint", "name", "timing", "settings", *KINDS}
#: Keys of a store's table in which an address or a secret belongs.
_KEYS_OF_SECRETS = {"url", "password", "key_password"}
#: Ends of the names of a blueprint's settings that are addresses.
_ENDINGS_OF_ADDRESSES = ("_URL", "_URI", "_DSN")
#: The variable that names the blueprint.
BLUEPRINT_VARIABLE = "IS_DB_BOOTSTRAP_BLUEPRINT"
#: How the keys and the variables end whose value is the path of a file.
_ENDING_OF_PATHS = "_file"


# --- the TOML file


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """What a TOML file says of us.

    `name` is that of the file, and empty when there is no file. A file that was found above the
    working directory is named by its whole path. `path` is where the file is. Paths in its tables
    are relative to the working directory, or absolute.
    """

    top: Mapping[str, Any]
    name: str = ""
    path: Path | None = None

    @classmethod
    def read(cls, file: Path | None, start: Path | None = None) -> Table:
        """Read `file`, else the file that is found from `start` upwards.

        `start` is the working directory when None. Raises `ConfigurationError` for a file that
        cannot be read, an unknown key, or a value that is not of the right kind.
        """
        path = file or find_project_file(start)
        if path is None:
            return cls({})
        name = str(path) if file is None and is_above(path) else path.name
        return cls._from_content(our_content(path) or {}, path, name)

    @classmethod
    def _from_content(cls, top: dict[str, Any], path: Path, name: str) -> Table:
        """Check the tables of a file. Raises `ConfigurationError` as `read` does."""
        for key in ("blueprint", "name"):
            if not isinstance(top.get(key, ""), str):
                raise ConfigurationError(f"{name}: {key} is not text.", hint="Write it in quotes.")
        for section, accepted in _accepted_keys().items():
            table = top.get(section, {}) if section else top
            _check_section(name, section, table, accepted)
        return cls(_with_paths_of(path.parent, top), name, path)

    @property
    def declares_environment(self) -> bool:
        """Whether the file names a team's own environment, and so is a blueprint by itself."""
        return any(
            kind.environment and kind.environment in self.section(name)
            for name, kind in KINDS.items()
        )

    def check_settings(self, blueprint: Blueprint) -> None:
        """Raise `ConfigurationError` for a setting that `blueprint` does not have.

        A blueprint without settings reads no setting, so nothing is refused for such a blueprint.
        """
        known = [setting.name for setting in blueprint.settings]
        for key in self.section("settings"):
            if known and key not in known:
                raise ConfigurationError(
                    f"{self.name}: unknown key [settings] {key}.",
                    hint=_known_keys(key, set(known)),
                )

    def section(self, name: str) -> Mapping[str, Any]:
        """One table of the file. Empty when the file has no such table."""
        table: Mapping[str, Any] = self.top.get(name, {})
        return table


def _with_paths_of(folder: Path, top: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a file in `folder`, with each path in a store's table as seen from here."""
    found = dict(top)
    for name in KINDS.keys() & top.keys():
        found[name] = {
            key: str(folder / value) if value and key.endswith(_ENDING_OF_PATHS) else value
            for key, value in top[name].items()
        }
    return found


def _accepted_keys() -> dict[str, set[str] | None]:
    """The keys of each table. None where a blueprint decides. The top has the empty name."""
    found: dict[str, set[str] | None] = {
        "": _TOP_KEYS,
        "timing": {field.name for field in fields(Timing)},
        "settings": None,
    }
    for name, kind in KINDS.items():
        schema = {"schema"} if kind.has_schemas else set()
        ignored = {IGNORED_KEY} if kind.ignored_variable else set()
        unknown = {UNKNOWN_KEY} if kind.unknown_variable else set()
        privileges = {PRIVILEGES_KEY} if kind.privileges_variable else set()
        environment = (kind.environment, *kind.environment_keys, *kind.baseline_keys)
        own = {*environment} if kind.environment else set()
        found[name] = _STORE_KEYS | schema | ignored | unknown | privileges | own
    return found


def _check_section(file: str, section: str, table: Any, accepted: set[str] | None) -> None:
    """Raise `ConfigurationError` for the first key of a table that is not `accepted`."""
    if not isinstance(table, dict):
        raise ConfigurationError(f"{file}: [{section}] is not a table.")
    for key, value in table.items():
        where = f"[{section}] {key}" if section else key
        if section in KINDS and not _is_text(section, key, value):
            raise ConfigurationError(f"{file}: {where} is not text.", hint="Write it in quotes.")
        if accepted is not None and key not in accepted:
            raise ConfigurationError(
                f"{file}: unknown key {where}.", hint=_known_keys(key, accepted)
            )
        is_expected = takes_address(key) if section == "settings" else key in _KEYS_OF_SECRETS
        if isinstance(value, str) and not is_expected:
            refuse_address(f"{where} in {file}", value)


def _known_keys(key: str, accepted: set[str]) -> str:
    """A hint that names the keys of a table, the nearest to `key` first."""
    meant = nearest(key, accepted)
    question = f"Is {meant} meant? " if meant else ""
    return f"{question}Known: {', '.join(sorted(accepted))}."


def _is_text(section: str, key: str, value: Any) -> bool:
    """Whether a value of a store's table is text. What is said of an environment may be a list."""
    kind = next(kind for name, kind in KINDS.items() if name == section)
    if isinstance(value, list) and key in kind.environment_keys:
        return all(isinstance(each, str) for each in value)
    return isinstance(value, str)


# --- the environment


@dataclass(frozen=True, slots=True, repr=False)
class Sources:
    """The variables and the TOML file of one call."""

    variables: Mapping[str, str]
    table: Table
    #: The variables that Kubernetes or Docker has set for other containers.
    links: Mapping[str, str] = field(default_factory=dict)
    #: The env file, and the names of the variables that come from it.
    env_file: Path | None = None
    of_env_file: frozenset[str] = frozenset()

    @classmethod
    def read(
        cls, environ: Mapping[str, str] | None, file: Path | None, env_file: Path | None
    ) -> Sources:
        """Read all sources. `environ` is the process's environment when None.

        Variables that are links to other containers are no settings, and are kept apart.
        """
        given = os.environ if environ is None else environ
        variables = {name: value for name, value in given.items() if value}
        of_process = variables.keys()
        if env_file:
            variables = _merge_variables(variables, env_file_variables(env_file))
        links = links_of(variables)
        settings = {name: value for name, value in variables.items() if name not in links}
        return cls(
            settings,
            Table.read(file),
            links,
            env_file=env_file,
            of_env_file=frozenset(settings.keys() - of_process),
        )

    def folder_of(self, variable: str) -> Path | None:
        """The folder of the file in which a variable stands. None for the environment's own."""
        is_filed = self.env_file is not None and variable in self.of_env_file
        return self.env_file.parent if self.env_file and is_filed else None

    def named(self, variable: str) -> str:
        """A variable as a person finds it: with the env file in which it stands, if it does."""
        is_filed = self.env_file is not None and variable in self.of_env_file
        return f"{variable} in {self.env_file}" if is_filed else variable

    def place_of(self, variable: str) -> str:
        """Where a setting stands, as the next step of an error. Empty for the environment's own.

        A setting whose variable nobody has set stands in the TOML file.
        """
        if self.env_file is not None and variable in self.of_env_file:
            return f"It is set in the file {self.env_file}."
        is_filed = variable not in self.variables and self.table.name
        return f"It is set in the file {self.table.name}." if is_filed else ""

    def refuse_misplaced(self, blueprint: Blueprint) -> None:
        """Raise `ConfigurationError` for a variable that holds an address where none belongs.

        A message would repeat such a value, or the value would become the name of something.
        """
        settings = (s.name for s in blueprint.settings if not takes_address(s.name))
        for name in (*plain_variables(), *settings):
            refuse_address(name, self.variables.get(name, ""))

    def store(self, name: StoreName) -> Mapping[str, Any]:
        """The TOML table of a store."""
        return self.table.section(name)

    def secret(self, variable: str) -> str:
        """The secret in a variable, or in the file that the variable `<variable>_FILE` names."""
        text = self.variables.get(variable, "")
        path = self.variables.get(f"{variable}_FILE", "")
        return _choose_secret(variable, text, path)

    def password(self, kind: StoreKind) -> str:
        """The password of a store: that of the environment, then that of the TOML file."""
        return self._store_secret(kind, "password")

    def key_password(self, kind: StoreKind) -> str:
        """The password of our key for a store, from the same places."""
        return self._store_secret(kind, "key_password")

    def store_file(self, kind: StoreKind, name: str) -> str:
        """The path of one file of a store, such as `ca_file`. Empty when it is not set."""
        filed: str = self.store(kind.name).get(name, "")
        return self.variables.get(f"{kind.name.upper()}_{name.upper()}") or filed

    def _store_secret(self, kind: StoreKind, name: str) -> str:
        of_environment = self.secret(f"{kind.name.upper()}_{name.upper()}")
        if of_environment:
            return of_environment
        section = self.store(kind.name)
        source = f"{name} in {self.table.name}"
        return _choose_secret(source, section.get(name, ""), section.get(f"{name}_file", ""))


def _choose_secret(source: str, text: str, path: str) -> str:
    """The secret that a source gives as text or as the path of a file.

    Raises `ConfigurationError` for both, for characters that cannot be sent, and for a file that
    has no secret.
    """
    if text and path:
        raise ConfigurationError(
            f"{source} and its _FILE form are both set.", hint="Keep one of them."
        )
    if text and ("\0" in text or has_surrogates(text)):
        raise ConfigurationError(
            f"{source} has a character that cannot be sent.", hint="Secrets are UTF-8."
        )
    if path:
        return read_secret(Path(path), f"{source}_FILE")
    return text


def plain_variables() -> Iterator[str]:
    """The variables that we read and that hold neither an address nor a secret."""
    yield BLUEPRINT_VARIABLE
    for each in fields(Timing):
        yield timing_variable(each.name)
    for kind in KINDS.values():
        prefix = kind.name.upper()
        yield from (f"{prefix}_{name}" for name in _PLAIN_OF_STORES)
        for part, variable in kind.part_variables.items():
            yield f"{variable}_FILE" if part == "password" else variable
        of_image = [name for name in kind.user_variables if name != f"{prefix}_USERNAME"]
        for variable in filter(None, (*of_image, kind.database_variable)):
            yield from (variable, f"{variable}_FILE")
        if kind.auth_variable:
            yield f"{kind.auth_variable}_FILE"
        if kind.auth_path_variable:
            yield kind.auth_path_variable
        others = (
            kind.schema_variable,
            kind.ignored_variable,
            kind.unknown_variable,
            kind.privileges_variable,
        )
        yield from filter(None, others)


def timing_variable(name: str) -> str:
    """The variable of a field of `Timing`."""
    return f"IS_DB_BOOTSTRAP_{name.removesuffix('_s').upper()}"


def takes_address(name: str) -> bool:
    """Whether a blueprint's setting of this name is an address, in which a secret may stand."""
    return name.endswith(_ENDINGS_OF_ADDRESSES)


def refuse_address(name: str, value: str) -> None:
    """Raise `ConfigurationError` for a value that is an address with a secret in it."""
    if may_hold_secret(value):
        raise ConfigurationError(
            f"{name} is an address ({shown(value)}), and none belongs there.",
            hint="Addresses belong in the variables whose name ends with _URL, and in url.",
        )


def process_variable(name: str) -> str:
    """A variable of the process's environment, which no file replaces.

    Empty when the variable is not set.
    """
    return os.environ.get(name, "")


def set_process_variable(name: str, value: str) -> None:
    """Set a variable for this process and for those that it starts from now on."""
    os.environ[name] = value


def env_file_variables(path: Path) -> dict[str, str]:
    """The variables of an env file. The path of a file in one of them is relative to its folder.

    Raises `ConfigurationError` for a file that cannot be read, and for a line that is no variable.
    """
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8") as stream:
            lines = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"The env file {path} cannot be read: {exc}.") from exc
    for line in lines:
        if line.error:
            raise ConfigurationError(
                f"{path}, line {line.original.line}, is not of the form NAME=value."
            )
    found = {line.key: line.value for line in lines if line.key and line.value}
    return {
        name: str(path.parent / value) if _is_path_variable(name) else value
        for name, value in found.items()
    }


def _is_path_variable(name: str) -> bool:
    """Whether a variable of ours holds the path of a file."""
    prefixes = [f"{kind.name.upper()}_" for kind in KINDS.values()]
    parts = [f"{each}_" for kind in KINDS.values() for each in kind.part_variables.values()]
    if name in {kind.auth_path_variable for kind in KINDS.values()}:
        return True
    return name.lower().endswith(_ENDING_OF_PATHS) and name.startswith((*prefixes, *parts))


def _merge_variables(real: Mapping[str, str], of_file: Mapping[str, str]) -> dict[str, str]:
    """The variables of the environment, and those of a file that the environment does not hide.

    An address or a secret in one form hides that of the file in any other form. The parts of one
    address may come from both.
    """
    visible = {
        name: value
        for name, value in of_file.items()
        if not any(form in real for form in _forms_of(name))
    }
    return {**visible, **real}


def _forms_of(name: str) -> tuple[str, ...]:
    """All variables that say the same as `name`."""
    for kind in KINDS.values():
        if name in kind.url_variables:
            return (*kind.url_variables, *part_forms(kind))
        if name in kind.user_variables:
            return kind.user_variables
        password = (f"{kind.name.upper()}_PASSWORD", f"{kind.name.upper()}_PASSWORD_FILE")
        auth: tuple[str, ...] = ()
        if kind.auth_variable:
            auth = (kind.auth_variable, f"{kind.auth_variable}_FILE")
        if kind.auth_path_variable:
            auth = (*auth, kind.auth_path_variable)
        if name in {*password, *auth}:
            return (*password, *auth)
    secret = name.removesuffix("_FILE")
    return (secret, f"{secret}_FILE")


def part_forms(kind: StoreKind) -> tuple[str, ...]:
    """The variables that have a part of an address, and the one that names the password's file."""
    names = kind.part_variables.values()
    return (*names, f"{kind.part_variables['password']}_FILE") if names else ()


# --- numbers


def as_number(value: Any, kind: type, name: str, least: float, *, place: str = "") -> float | int:
    """`value` as a number of `kind`.

    Raises `ConfigurationError` that names the setting `name`, when the value is no such number, is
    below `least` or is not finite. `place` is a sentence that says where the value is set.
    """
    try:
        if isinstance(value, bool):
            raise TypeError(value)  # noqa: TRY301 - int() would take True
        if kind is int and isinstance(value, float) and not value.is_integer():
            raise TypeError(value)  # noqa: TRY301 - int() would take 1.9 as 1
        number: float | int = kind(value)
    except (TypeError, ValueError, OverflowError):
        wanted = "an integer" if kind is int else "a number"
        raise ConfigurationError(f"{name}={value!r} is not {wanted}.", hint=place) from None
    if not least <= number < float("inf"):
        raise ConfigurationError(f"{name}={value!r} is below {least} or not finite.", hint=place)
    return number


def number(
    variable: str, kind: type, least: float, environ: Mapping[str, str] | None = None
) -> float | int | None:
    """The number in a variable, None when it is unset.

    Raises `ConfigurationError` that names the variable, for what is no number or below `least`.
    """
    text = (os.environ if environ is None else environ).get(variable)
    return as_number(text, kind, variable, least) if text else None


def echo(environ: Mapping[str, str] | None = None) -> bool:
    """Whether SQL is to be logged: DB_ECHO is `true` in any letter case."""
    given = os.environ if environ is None else environ
    return given.get("DB_ECHO", "").lower() == "true"
