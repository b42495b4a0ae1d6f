"""The one door for the environment: where the stores are, who we are there, how long we wait."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from is_db_bootstrap.address import SCHEMES as SCHEMES  # noqa: PLC0414 - asked for here by those who read settings
from is_db_bootstrap.address import AddressError, check_servers, has_surrogates
from is_db_bootstrap.address import StoreUrl as StoreUrl  # noqa: PLC0414
from is_db_bootstrap.blueprint import Blueprint, PoolProfile, Value
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.results import STORE_ORDER, StoreName
from is_db_bootstrap.tls import refuse_weaker


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who we are at a store, and what its certificate is checked with."""

    username: str = ""
    password: str = ""
    ca_file: str = ""


@dataclass(frozen=True, slots=True)
class Timing:
    """Every deadline, delay and limit. All times are seconds; an environment variable `IS_DB_BOOTSTRAP_<NAME>` sets each."""

    #: Waiting for stores and for locks together.
    timeout_s: float = 60.0
    #: Apply and verify; 0 means no limit, because an index build may take an hour.
    apply_timeout_s: float = 0.0
    #: One attempt to open a connection, and one answer to a ping.
    connect_timeout_s: float = 5.0
    #: First delay between two attempts; doubles, with jitter.
    retry_initial_s: float = 0.1
    #: Longest delay between two attempts.
    retry_maximum_s: float = 2.0
    #: PostgreSQL `lock_timeout` of each statement of a revision.
    lock_timeout_s: float = 5.0
    #: Attempts of one change that the store refuses as busy.
    busy_attempts: int = 12
    #: First and longest delay between them.
    busy_initial_s: float = 0.2
    busy_maximum_s: float = 5.0
    #: Lifetime of a leased lock (Neo4j, Redis) that is not renewed.
    lease_s: float = 60.0
    #: How often held locks are confirmed and leases renewed during long changes; None: a sixth of `lease_s`.
    heartbeat_s: float | None = None
    #: What running changes get to end after a signal, before they are cancelled on the server.
    grace_s: float = 5.0
    #: Waiting for Neo4j indexes to come ONLINE after a change, for Milvus indexes and loads.
    index_timeout_s: float = 600.0
    #: Keys that the Redis audit looks at, at most.
    scan_budget: int = 10_000

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for a heartbeat with which one late renewal would lose the lease."""
        if self.heartbeat_s is not None and self.heartbeat_s > self.lease_s / 3:
            raise ConfigurationError(
                f"heartbeat_s (IS_DB_BOOTSTRAP_HEARTBEAT) is {self.heartbeat_s:g} s, which is above a third of "
                f"lease_s (IS_DB_BOOTSTRAP_LEASE), {self.lease_s:g} s: a lock could lapse while its run goes on.",
                hint=f"Set the heartbeat to at most {self.lease_s / 3:g}, give a longer lease, "
                "or leave the heartbeat out: it is a sixth of the lease.",
            )

    def heartbeat(self) -> float:
        """The interval that holds: `heartbeat_s`, or a sixth of `lease_s` where it is not set."""
        return self.lease_s / 6 if self.heartbeat_s is None else self.heartbeat_s

    def retry(self) -> RetryPolicy:
        """The engine's policy."""
        return RetryPolicy(
            deadline_s=self.timeout_s,
            initial_s=self.retry_initial_s,
            maximum_s=self.retry_maximum_s,
            busy_attempts=self.busy_attempts,
            busy_initial_s=self.busy_initial_s,
            busy_maximum_s=self.busy_maximum_s,
        )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs to know besides its blueprint.

    `stores` has an address for each store that one was found for; `values` are the blueprint's own settings;
    `schema` is the PostgreSQL schema. `identities` are for addresses that are found later.
    """

    stores: Mapping[StoreName, StoreUrl]
    schema: str = "public"
    timing: Timing = field(default_factory=Timing)
    values: Mapping[str, Value] = field(default_factory=dict)
    identities: Mapping[StoreName, Identity] = field(default_factory=dict, repr=False)

    @classmethod
    def load(
        cls,
        blueprint: Blueprint,
        *,
        environ: Mapping[str, str] | None = None,
        flags: Mapping[str, Any] | None = None,
        file: Path | None = None,
        env_file: Path | None = None,
        identities: Collection[StoreName] = (),
    ) -> Settings:
        """Read everything, first match wins: `flags`, the environment, `env_file`, the TOML file, defaults.

        `flags` are `postgres_url` and the like and names of `Timing`. `environ` is the process's when None.
        `identities` are the stores whose user, password and CA file are wanted also where no address is set.
        Raises `ConfigurationError`.
        """
        real = {k: v for k, v in (os.environ if environ is None else environ).items() if v}
        env = _below(real, _env_file(env_file)) if env_file else real
        table = _Table.read(file)
        table.check_settings(blueprint)
        given = {k: v for k, v in (flags or {}).items() if v is not None}
        stores = {
            name: url
            for name in STORE_ORDER
            if (url := _address(name, blueprint, env, table, given))
        }
        return cls(
            stores=stores,
            schema=env.get("DB_SCHEMA") or table.store("postgres").get("schema") or "public",
            timing=_timing(env, table, given),
            values={
                s.name: env.get(s.name, table.top.get("settings", {}).get(s.name, s.default))
                for s in blueprint.settings
            },
            identities={
                name: _identity(name, env, table) for name in identities if name not in stores
            },
        )

    def identity(self, store: StoreName) -> Identity:
        """That of the address of `store`; without one, what the settings say of it."""
        url = self.stores.get(store)
        return (
            Identity(url.username, url.password, url.ca_file)
            if url
            else self.identities.get(store, Identity())
        )

    def need(self, store: StoreName) -> StoreUrl:
        """The address of `store`; a `ConfigurationError` names the variable when there is none."""
        if store not in self.stores:
            raise ConfigurationError(
                f"{store}: no address is set.",
                hint=f"Set {store.upper()}_URL or --{store}-url, or use --local for a local stack.",
            )
        return self.stores[store]


# --- the TOML file -------------------------------------------------------------------------------

FILE_NAME = "is-db-bootstrap.toml"
_STORE_KEYS = {"url", "username", "password", "password_file", "ca_file"}
_TOP_KEYS = {"blueprint", "timing", "settings", *STORE_ORDER}


@dataclass(frozen=True, slots=True)
class _Table:
    top: Mapping[str, Any]
    name: str = ""

    @classmethod
    def read(cls, file: Path | None) -> _Table:
        if file is not None:
            return cls(cls._checked(cls._toml(file), file.name), file.name)
        if (path := Path(FILE_NAME)).is_file():
            return cls(cls._checked(cls._toml(path), FILE_NAME), FILE_NAME)
        if (path := Path("pyproject.toml")).is_file():
            tool = cls._toml(path).get("tool", {}).get("is-db-bootstrap", {})
            return cls(cls._checked(tool, "pyproject.toml"), "pyproject.toml")
        return cls({})

    @staticmethod
    def _toml(path: Path) -> dict[str, Any]:
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ConfigurationError(f"{path} cannot be read: {exc}.") from exc

    @staticmethod
    def _checked(top: dict[str, Any], name: str) -> dict[str, Any]:
        timing = {f.name for f in fields(Timing)}
        known: dict[str, set[str] | None] = {"": _TOP_KEYS, "timing": timing, "settings": None}
        known |= {
            store: _STORE_KEYS | ({"schema"} if store == "postgres" else set())
            for store in STORE_ORDER
        }
        if not isinstance(top.get("blueprint", ""), str):
            raise ConfigurationError(f"{name}: blueprint is not text.", hint="Write it in quotes.")
        for place, accepted in known.items():
            table = top if not place else top.get(place, {})
            if not isinstance(table, dict):
                raise ConfigurationError(f"{name}: [{place}] is not a table.")
            for key in table:
                if place in STORE_ORDER and not isinstance(table[key], str):
                    raise ConfigurationError(
                        f"{name}: [{place}] {key} is not text.", hint="Write it in quotes."
                    )
                if accepted is not None and key not in accepted:
                    where = f"[{place}] " if place else ""
                    raise ConfigurationError(
                        f"{name}: unknown key {where}{key}.",
                        hint=f"Known: {', '.join(sorted(accepted))}.",
                    )
        return top

    def check_settings(self, blueprint: Blueprint) -> None:
        """Refuse a setting that `blueprint` does not have; one without settings is not asked, since it reads none."""
        known = [s.name for s in blueprint.settings]
        for key in self.top.get("settings", {}):
            if known and key not in known:
                raise ConfigurationError(
                    f"{self.name}: unknown key [settings] {key}.",
                    hint=f"Known: {', '.join(known)}.",
                )

    def store(self, name: str) -> Mapping[str, Any]:
        table: Mapping[str, Any] = self.top.get(name, {})
        return table


def blueprint_name(
    environ: Mapping[str, str] | None = None, file: Path | None = None, env_file: Path | None = None
) -> str | None:
    """The blueprint that the environment (`IS_DB_BOOTSTRAP_BLUEPRINT`), the env file or the TOML file names."""
    name = "IS_DB_BOOTSTRAP_BLUEPRINT"
    environ = os.environ if environ is None else environ
    filed = _env_file(env_file) if env_file and not environ.get(name) else {}
    return environ.get(name) or filed.get(name) or _Table.read(file).top.get("blueprint")


def process_variable(name: str) -> str:
    """A variable of the process's environment, which no file stands in for; empty when unset."""
    return os.environ.get(name, "")


def set_process_variable(name: str, value: str) -> None:
    """Set a variable for this process and for those that it starts from now on."""
    os.environ[name] = value


def _env_file(path: Path) -> dict[str, str]:
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
    return {line.key: line.value for line in lines if line.key and line.value}


_PARTS = ("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_PASSWORD_FILE")
_POSTGRES_URLS = ("POSTGRES_URL", "DATABASE_URL")


def _below(real: Mapping[str, str], filed: Mapping[str, str]) -> dict[str, str]:
    """The environment over a file's variables: an address or a secret in one form hides the file's in any other form.

    The parts of one address may come from both.
    """

    def hidden(name: str) -> bool:
        secret = name.removesuffix("_FILE")
        forms = (*_POSTGRES_URLS, *_PARTS) if name in _POSTGRES_URLS else (secret, f"{secret}_FILE")
        return any(form in real for form in forms)

    return {**{name: value for name, value in filed.items() if not hidden(name)}, **real}


# --- addresses -----------------------------------------------------------------------------------


def _address(
    name: StoreName,
    blueprint: Blueprint,
    env: Mapping[str, str],
    table: _Table,
    flags: Mapping[str, Any],
) -> StoreUrl | None:
    url = _chosen(name, blueprint, env, table, flags)
    if url is None:
        return None
    if name == "postgres" and not url.database:
        url = replace(url, database=blueprint.name)
    ours = _identity(name, env, table, own_password=url.password)
    if ca_file := url.ca_file or ours.ca_file:
        check_ca_file(url, ca_file)
    refuse_weaker(url)
    return replace(
        url, username=url.username or ours.username, password=ours.password, ca_file=ca_file
    )


def _identity(
    name: StoreName, env: Mapping[str, str], table: _Table, own_password: str = ""
) -> Identity:
    """What the environment and the file say; a secret is not looked for where the address has one."""
    prefix, section = name.upper(), table.store(name)
    return Identity(
        env.get(f"{prefix}_USERNAME") or section.get("username", "") or _default_user(name),
        own_password or _secret(f"{prefix}_PASSWORD", env, section, table.name),
        env.get(f"{prefix}_CA_FILE") or section.get("ca_file", ""),
    )


def check_ca_file(url: StoreUrl, path: str) -> None:
    """Refuse a CA file that is not there, or that the address would not use or would weaken."""
    if not Path(path).is_file():
        raise ConfigurationError(
            f"{url.store}: there is no file {path} for {url.store.upper()}_CA_FILE."
        )
    refuse_weaker(replace(url, ca_file=path))


def _default_user(name: StoreName) -> str:
    return {"postgres": "postgres", "neo4j": "neo4j"}.get(name, "")


def _chosen(
    name: StoreName,
    blueprint: Blueprint,
    env: Mapping[str, str],
    table: _Table,
    flags: Mapping[str, Any],
) -> StoreUrl | None:
    sources = [
        (flags.get(f"{name}_url"), f"--{name}-url"),
        (env.get(f"{name.upper()}_URL"), f"{name.upper()}_URL"),
        (env.get("DATABASE_URL") if name == "postgres" else None, "DATABASE_URL"),
        (lambda: _from_parts(blueprint, env) if name == "postgres" else None, "DB_HOST and others"),
        (table.store(name).get("url"), table.name),
        (
            lambda: _default_address(blueprint, env, table) if name == "postgres" else None,
            "default",
        ),
    ]
    for given, source in sources:
        text = (
            given() if callable(given) else given
        )  # later sources are not looked at, so they cannot be wrong
        if isinstance(text, StoreUrl):
            return text
        if text:
            return StoreUrl.parse(name, text, source)
    return None


def _default_address(blueprint: Blueprint, env: Mapping[str, str], table: _Table) -> StoreUrl:
    """PostgreSQL's; its default password gives way to any that is given."""
    given = {"POSTGRES_PASSWORD", "POSTGRES_PASSWORD_FILE"} & env.keys()
    given |= {"password", "password_file"} & table.store("postgres").keys()
    return StoreUrl(
        store="postgres",
        scheme="postgresql",
        hosts="localhost:5432",
        database=blueprint.name,
        password="" if given else "postgres",
        source="default",
    )


def _from_parts(blueprint: Blueprint, env: Mapping[str, str]) -> StoreUrl | None:
    if not any(env.get(key) for key in _PARTS):
        return None
    hosts = f"{_written_host(env.get('DB_HOST', 'localhost'))}:{env.get('DB_PORT', '5432')}"
    try:
        check_servers(hosts)
    except AddressError as exc:
        raise ConfigurationError(
            f"postgres: what DB_HOST and DB_PORT say {exc}.", hint="Ports are 1 to 65535."
        ) from None
    return StoreUrl(
        store="postgres",
        scheme="postgresql",
        hosts=hosts,
        database=env.get("DB_NAME", blueprint.name),
        username=env.get("DB_USER", "postgres"),
        password=_secret("DB_PASSWORD", env, {}, "")
        or _secret("POSTGRES_PASSWORD", env, {}, "")
        or "postgres",
        source="DB_HOST and others",
    )


def _written_host(host: str) -> str:
    """A host as an address writes it: a socket's folder escaped, an IPv6 address in brackets."""
    if host.startswith("/"):
        return quote(host, safe="")
    is_ipv6 = host.count(":") > 1 and not host.startswith("[")
    return f"[{host}]" if is_ipv6 else host


def _secret(name: str, env: Mapping[str, str], section: Mapping[str, Any], file_name: str) -> str:
    for text, path, source in (
        (env.get(name), env.get(f"{name}_FILE"), name),
        (section.get("password"), section.get("password_file"), f"password in {file_name}"),
    ):
        if text and path:
            raise ConfigurationError(
                f"{source} and its _FILE form are both set.", hint="Keep one of them."
            )
        if text and "\0" not in text and not has_surrogates(text):
            return str(text)
        if text:
            raise ConfigurationError(
                f"{source} has a character that cannot be sent.", hint="Secrets are UTF-8."
            )
        if path:
            return read_secret(Path(path), f"{source}_FILE")
    return ""


def read_secret(path: Path, name: str) -> str:
    """The secret in a file, without one trailing newline; a `ConfigurationError` names `name` when there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{name}: {path} cannot be read: {exc}.") from exc
    secret = re.sub(r"\r?\n\Z", "", text)
    if not secret:
        raise ConfigurationError(
            f"{name}: {path} is empty.", hint="Leave it out where there is no password."
        )
    return secret


def _timing(env: Mapping[str, str], table: _Table, flags: Mapping[str, Any]) -> Timing:
    section = table.top.get("timing", {})
    found: dict[str, float | int] = {}
    for each in fields(Timing):
        variable = "IS_DB_BOOTSTRAP_" + each.name.removesuffix("_s").upper()
        value = flags.get(each.name, env.get(variable, section.get(each.name)))
        if value is not None:
            kind = int if isinstance(each.default, int) else float
            found[each.name] = _number(value, kind, variable, _LEAST.get(each.name, 0))
    return Timing(**found)  # type: ignore[arg-type]  # the fields are floats and integers


#: Below these a wait becomes a busy loop, or a lease lapses before it is renewed.
_LEAST = {
    "connect_timeout_s": 0.1,
    "lease_s": 1,
    "heartbeat_s": 0.1,
    "busy_attempts": 1,
    "retry_maximum_s": 0.01,
    "scan_budget": 1,
}


def _number(value: Any, kind: type, name: str, least: float) -> float | int:
    try:
        if isinstance(value, bool) or (
            kind is int and isinstance(value, float) and not value.is_integer()
        ):
            raise TypeError(value)  # noqa: TRY301 - int() would take True, and 1.9 as 1
        number: float | int = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigurationError(
            f"{name}={value!r} is not {'an integer' if kind is int else 'a number'}."
        ) from None
    if not least <= number < float("inf"):
        raise ConfigurationError(f"{name}={value!r} is below {least} or not finite.")
    return number


# --- pools of services ---------------------------------------------------------------------------

_POOL = {
    "DB_POOL_MIN_SIZE": ("min_size", int, 0),
    "DB_POOL_MAX_SIZE": ("max_size", int, 1),
    "DB_POOL_TIMEOUT": ("acquire_timeout", float, 0),
    "DB_POOL_RECYCLE": ("recycle", float, 0),
    "DB_COMMAND_TIMEOUT": ("command_timeout", float, 0.001),
    "DB_PREPARE_THRESHOLD": ("prepare_threshold", int, 0),
}


def pool_profile(declared: PoolProfile, environ: Mapping[str, str] | None = None) -> PoolProfile:
    """The blueprint's profile with what the environment says otherwise (`none` switches the last two off).

    Raises `ConfigurationError` that names the variable.
    """
    env = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for variable, (name, kind, least) in _POOL.items():
        text = env.get(variable)
        if text and text.lower() == "none" and name in {"command_timeout", "prepare_threshold"}:
            given[name] = None
        elif text:
            given[name] = _number(text, kind, variable, least)
    try:
        return replace(declared, **given)
    except ValueError as exc:
        raise ConfigurationError(f"DB_POOL_MIN_SIZE and DB_POOL_MAX_SIZE: {exc}") from exc


def echo(environ: Mapping[str, str] | None = None) -> bool:
    """Whether SQL is to be logged: DB_ECHO is `true` in any letter case."""
    return (os.environ if environ is None else environ).get("DB_ECHO", "").lower() == "true"


def number(
    variable: str, kind: type, least: float, environ: Mapping[str, str] | None = None
) -> float | int | None:
    """The number in a variable, None when it is unset; `ConfigurationError` names it when it is none, or below `least`."""
    text = (os.environ if environ is None else environ).get(variable)
    return _number(text, kind, variable, least) if text else None
