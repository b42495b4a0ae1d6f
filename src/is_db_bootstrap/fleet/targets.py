"""A file of targets: one name per target, and what differs from the settings of the call."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.settings import Identity, Settings, StoreUrl, check_tls, read_secret
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.kinds import KINDS

_STORE_KEYS = ("url", "database", "username", "password", "password_file")
#: The port of an `https` address that names none.
_HTTPS_PORT = "443"
#: A host with a port behind it, in the value of an option (SQLAlchemy writes them so).
_HOST_AND_PORT = re.compile(r"(?P<host>[^:/@]+):(?P<port>\d+)")
#: What stands at the start of a line in every TOML document of targets, and in no JSON.
_TOML = re.compile(r"^\s*(\[\[\s*targets\s*\]\]|\[\s*targets\s*[.\]]|targets\s*[=.])", re.MULTILINE)
_SHARD = re.compile(r"(?:(\d+)/)?(\d+)")


@dataclass(frozen=True, slots=True)
class Target:
    """One tenant, with the settings of its own run.

    `places` are the stores that it names. A key is the same for each way to write an address, its
    value is the address as it is written.
    """

    name: str
    settings: Settings
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A line or table that is no target. `name` is its number in the file, such as `line 3`."""

    name: str
    error: ConfigurationError


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line or table of the file: what it is called, and how to get what it says."""

    label: str
    read: Callable[[], Any]


def read(
    text: str, blueprint: Blueprint, base: Settings, folder: Path | None = None
) -> list[Target | Refused]:
    """The targets of a TOML document, of JSON lines or of a JSON array, in their order.

    TOML has a table `[[targets]]` for each, or a table `[targets.NAME]`. An object has `name`. It
    may have a store's name with an address, or with `url`, `database`, `username`, `password` and
    `password_file` (and `schema`, for a store that has schemas), and `settings` of the blueprint.
    What it leaves out is that of `base`. Of two with one name, or with one place, the second is
    refused. Raises `ConfigurationError` for a document that is none of these, and for one without
    a target: what writes the list may have failed.
    A path of a file is relative to `folder`, that of the list, or to the working directory if None.
    """
    found: list[Target | Refused] = []
    names = set[str]()
    owners: dict[str, str] = {}
    for entry in _entries(text):
        try:
            target = _target(_with_paths_of(folder, entry.read()), blueprint, base)
            _refuse_second(target, names, owners)
        except ConfigurationError as exc:
            error = ConfigurationError(f"{entry.label}: {exc.message}", hint=exc.hint)
            found.append(Refused(entry.label, error))
            continue
        names.add(target.name)
        owners |= dict.fromkeys(target.places, target.name)
        found.append(target)
    if not found:
        raise ConfigurationError(
            "There are no targets.",
            hint="[[targets]] in TOML, lines of JSON, or one array of JSON.",
        )
    return found


def _with_paths_of(folder: Path | None, entry: Any) -> Any:
    """A target with the paths of its stores as seen from here. `folder` is that of its file."""
    if folder is None or not isinstance(entry, dict):
        return entry
    found = dict(entry)
    for name, section in entry.items():
        if isinstance(section, dict):
            found[name] = {
                key: str(folder / value) if key.endswith("_file") and _is_path(value) else value
                for key, value in section.items()
            }
    return found


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def shard(text: str, completion_index: str) -> tuple[int, int]:
    """Index and count of `INDEX/COUNT`, or of `COUNT` with the index of a pod.

    Kubernetes gives each pod of an Indexed Job its index.
    Indexes begin with 0. Raises `ConfigurationError`.
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"--shard {text} is not of the form INDEX/COUNT.")
    count = int(match[2])
    given = completion_index if match[1] is None else match[1]
    if not given:
        raise ConfigurationError(
            f"--shard {text} names no index, and JOB_COMPLETION_INDEX is not set.",
            hint="Write INDEX/COUNT.",
        )
    if not given.isdecimal() or int(given) >= count:
        known = f"Write 0/{count} to {count - 1}/{count}." if count else "Write 0/1 for all."
        raise ConfigurationError(f"Shard {given} of {count} does not exist.", hint=known)
    return int(given), count


# --- the file


def _entries(text: str) -> Iterator[_Entry]:
    """The lines of JSON, the items of its array, or the tables of TOML.

    Raises `ConfigurationError` for a document that is no TOML, and for an array that is no JSON.
    """
    if _TOML.search(text):
        tables = _toml_tables(text)
    elif text.lstrip().startswith("["):
        tables = _json_array(text)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield _Entry(f"line {number}", partial(_parse_json, line))
        return
    for number, table in enumerate(tables, 1):
        yield _Entry(f"target {number}", partial(_without_surrogates, table))


def _json_array(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(
            f"The targets begin with [ and are no JSON array: {exc}.",
            hint="Write one array of objects, or one object a line without the array.",
        ) from exc
    return list(found)  # JSON that begins with a bracket is an array


def _toml_tables(text: str) -> list[Any]:
    """The tables of an array of tables, or those of a table that has each one below its name."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"The targets are no TOML document: {exc}.") from exc
    tables = document.get("targets", [])
    unknown = sorted(document.keys() - {"targets"})
    if isinstance(tables, dict):
        tables = [_named_table(name, table) for name, table in tables.items()]
    if unknown or not isinstance(tables, list):
        raise ConfigurationError(
            f"The targets have {', '.join(unknown) or 'something else'} beside [[targets]].",
            hint="Write each one below [[targets]], or below [targets.NAME].",
        )
    return tables


def _named_table(name: str, table: Any) -> Any:
    """The table `[targets.NAME]`, with its name as if it stood in the table."""
    return {"name": name, **table} if isinstance(table, dict) else table


def _parse_json(line: str) -> Any:
    try:
        return _without_surrogates(json.loads(line))
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"This is no JSON: {exc}.") from exc


def _without_surrogates(found: Any) -> Any:
    """What was read, if all of it is text. Raises `ConfigurationError`."""
    try:
        json.dumps(found, ensure_ascii=False, default=str).encode()  # half a pair is no text
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"This is no JSON: {exc}.") from exc
    return found


def _refuse_second(target: Target, names: Collection[str], owners: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for a name or a place that another target has."""
    if target.name in names:
        raise ConfigurationError(f"A second target is called {target.name}.")
    for place, written in target.places.items():
        if place in owners:
            raise ConfigurationError(f"{target.name} is where {owners[place]} is: {written}.")


# --- one target


def _target(entry: Any, blueprint: Blueprint, base: Settings) -> Target:
    name = _name_of(entry)
    _refuse_unknown(name, entry, ("name", "settings", *blueprint.stores))
    stores = dict(base.stores)
    schema, is_schema_given = base.schema, base.is_schema_given
    for store in (s for s in STORE_ORDER if s in entry):
        section = _section(name, store, entry[store])
        stores[store] = _address(name, store, section, blueprint, base)
        if KINDS[store].has_schemas:
            is_schema_given = is_schema_given or "schema" in section
            schema = section.get("schema", schema)
    given = _values(name, entry, blueprint)
    settings = replace(
        base,
        stores=stores,
        schema=schema,
        is_schema_given=is_schema_given,
        values={**base.values, **given},
    )
    blueprint.resolve(settings.values)
    # A target that names no store is where the call is.
    named = [store for store in stores if store in entry] or list(stores)
    places = {_place(stores[store], schema): str(stores[store]) for store in named}
    return Target(name, settings, places)


def _name_of(entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(name, str) or not name.strip():
        example = json.dumps({"name": "acme", STORE_ORDER[0]: {"database": "acme"}})
        raise ConfigurationError("A target needs a name.", hint=example)
    if not name.isprintable():
        raise ConfigurationError(f"The name {name!a} cannot be printed.")
    return name


def _section(name: str, store: StoreName, said: Any) -> Mapping[str, Any]:
    """What a target says of one store, as a table. A text alone is an address."""
    section = {"url": said} if isinstance(said, str) else said
    if not isinstance(section, dict):
        raise ConfigurationError(f"{name}: {store} is neither an address nor a table.")
    known = (*_STORE_KEYS, "schema") if KINDS[store].has_schemas else _STORE_KEYS
    _refuse_unknown(f"{name}, {store}", section, known)
    for key, value in section.items():
        _refuse_value(name, store, key, value)
    if "password" in section and "password_file" in section:
        raise ConfigurationError(
            f"{name}: password and password_file of {store} are both set.", hint="Keep one of them."
        )
    return section


def _refuse_value(name: str, store: StoreName, key: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ConfigurationError(
            f"{name}: {key} of {store} is not text.", hint="Write it in quotes."
        )
    if not value or "\0" in value:
        raise ConfigurationError(
            f"{name}: {key} of {store} is empty, or has a character that is none.",
            hint="Leave it out.",
        )


def _values(name: str, entry: Mapping[str, Any], blueprint: Blueprint) -> Mapping[str, Any]:
    """The settings of the blueprint that a target gives."""
    given = entry.get("settings", {})
    if not isinstance(given, dict):
        raise ConfigurationError(f"{name}: settings is no table.")
    _refuse_unknown(f"{name}, settings", given, [setting.name for setting in blueprint.settings])
    return given


def _refuse_unknown(where: str, table: Mapping[str, Any], names: Collection[str]) -> None:
    for key in table:
        if key not in names:
            raise ConfigurationError(
                f"{where}: unknown key {key}.", hint=f"Known: {', '.join(names)}."
            )


# --- addresses


def _address(
    name: str,
    store: StoreName,
    section: Mapping[str, Any],
    blueprint: Blueprint,
    base: Settings,
) -> StoreUrl:
    """The address of a target's store: its own one, or that of the call with its changes."""
    source = f"target {name}"
    has_own_url = "url" in section
    if has_own_url:
        url = StoreUrl.parse(store, section["url"], source)
        default = "" if KINDS[store].default_database else blueprint.name
        url = replace(url, database=url.database or default)
    else:
        url = replace(base.need(store), source=source)
    given = {key: section[key] for key in ("database", "username", "password") if key in section}
    if "password_file" in section:
        given["password"] = read_secret(Path(section["password_file"]), f"{name}, {store}")
    url = replace(url, **given)
    password = url.password if has_own_url or "password" in given else ""
    url = _with_identity(url, password, base.identity(store))
    check_tls(url)
    return url


def _with_identity(url: StoreUrl, password: str, common: Identity) -> StoreUrl:
    """The address, with user, password and files of TLS of the call where it has none of its own.

    The password of the call goes with its own user only, whichever way the target named that user.
    """
    username = url.username or common.username
    if username == common.username:
        password = password or common.password
    return replace(
        url,
        username=username,
        password=password,
        ca_file=common.ca_file,
        certificate=common.certificate,
    )


def _place(url: StoreUrl, schema: str) -> str:
    """Where an address leads, whichever way it is written and whoever goes there.

    Names are not looked up.
    """
    kind = KINDS[url.store]
    database = url.database or kind.default_database
    if kind.numbered_databases and database.isdecimal():
        database = str(int(database))
    more = [dict(url.query).get(option, "") for option in kind.place_options.get("more", ())]
    if kind.has_schemas:
        more.append(schema)
    if url.service:
        more.append(url.service)
    found = sorted(f"{plain_host(host)} {port}" for host, port in servers(url, kind))
    return " ".join([url.store, str(found), database, *more])


def servers(url: StoreUrl, kind: StoreKind) -> list[tuple[str, str]]:
    """Hosts and ports of an address. What its query says of them goes before the rest."""
    default = _HTTPS_PORT if url.scheme == "https" else str(kind.default_port)
    pairs = url.servers
    if said := _first_option(url, kind.place_options.get("hosts", ())):
        before = [port for _, port in pairs] * (len(said) if len(pairs) == 1 else 1)
        pairs = [_host_and_port(*each) for each in zip_longest(said, before, fillvalue="")]
    ports = _first_option(url, kind.place_options.get("port", ()))
    if ports:
        ports *= len(pairs) if len(ports) == 1 else 1
        pairs = [(host, port) for (host, _), port in zip(pairs, ports, strict=False)]
    return [(host, port or default) for host, port in pairs]


def _first_option(url: StoreUrl, names: Collection[str]) -> list[str]:
    """What the first of these options has that the query of an address sets.

    An option may be there more than once, and hold commas. Empty when none is set.
    """
    for name in names:
        if values := [value for key, value in url.query if key == name and value]:
            return ",".join(values).split(",")
    return []


def _host_and_port(text: str, port: str) -> tuple[str, str]:
    """A host of an option, behind which a port may stand. `port` is the one that holds else."""
    match = _HOST_AND_PORT.fullmatch(text)
    return (match["host"], match["port"]) if match else (text, port)


def plain_host(host: str) -> str:
    """A host in one spelling.

    The path of a socket is one as it is. No host at all is this machine.
    """
    return host if "/" in host else (host or "localhost").lower()
