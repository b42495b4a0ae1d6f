"""A file of targets: a name each, and what differs from the settings of the call."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.settings import Settings, StoreUrl, check_ca_file, read_secret

_STORE_KEYS = ("url", "database", "username", "password", "password_file")
_TOML = re.compile(r"^\s*(\[\[\s*targets\s*\]\]|targets\s*=)", re.MULTILINE)
_SHARD = re.compile(r"(?:(\d+)/)?(\d+)")


@dataclass(frozen=True, slots=True)
class Target:
    """One tenant, with the settings of its own run.

    `places` are the stores that it names: what is the same for each way to write an address, and the address as it is written.
    """

    name: str
    settings: Settings
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refused:
    """A line or table that is no target, called as it calls itself, or by its number."""

    name: str
    error: ConfigurationError


def read(text: str, blueprint: Blueprint, base: Settings) -> list[Target | Refused]:
    """The targets of a TOML document (`[[targets]]`) or of JSON lines (an object each), in their order.

    An object has `name`, and may have a store's name with `url`, `database`, `username`, `password`, `password_file` (for
    PostgreSQL also `schema`) or an address, and `settings` of the blueprint. What it leaves out is that of `base`.
    Of two with one name, or with one place, the second is refused. Raises `ConfigurationError` for a document that is no TOML,
    and when there is no target: what writes the list may have failed.
    """
    found: list[Target | Refused] = []
    names, owners = set[str](), dict[str, str]()
    for label, entry in _entries(text):
        try:
            target = _target(entry() if callable(entry) else entry, blueprint, base)
            _alone(target, names, owners)
        except ConfigurationError as exc:
            found.append(
                Refused(label, ConfigurationError(f"{label}: {exc.message}", hint=exc.hint))
            )
            continue
        names.add(target.name)
        owners |= dict.fromkeys(target.places, target.name)
        found.append(target)
    if not found:
        raise ConfigurationError(
            "There are no targets.", hint="[[targets]] in TOML, or lines of JSON."
        )
    return found


def _alone(target: Target, names: Collection[str], owners: Mapping[str, str]) -> None:
    if target.name in names:
        raise ConfigurationError(f"A second target is called {target.name}.")
    for place, written in target.places.items():
        if place in owners:
            raise ConfigurationError(f"{target.name} is where {owners[place]} is: {written}.")


def shard(text: str, completion_index: str) -> tuple[int, int]:
    """Index and count of `INDEX/COUNT`, or of `COUNT` with the index that Kubernetes gives to a pod of an Indexed Job.

    Indexes begin with 0. Raises `ConfigurationError`.
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise ConfigurationError(f"--shard {text} is not of the form INDEX/COUNT.")
    given = match[1] if match[1] is not None else completion_index
    if not given:
        raise ConfigurationError(
            f"--shard {text} names no index, and JOB_COMPLETION_INDEX is not set.",
            hint="Write INDEX/COUNT.",
        )
    if not given.isdecimal() or int(given) >= int(match[2]):
        raise ConfigurationError(
            f"Shard {given} of {match[2]} does not exist.",
            hint=f"Write 0/{match[2]} to {int(match[2]) - 1}/{match[2]}."
            if int(match[2])
            else "Write 0/1 for all.",
        )
    return int(given), int(match[2])


def _entries(text: str) -> Iterator[tuple[str, Any]]:
    """What it is called, and the object or how to get it."""
    if not _TOML.search(text):
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", lambda line=line: _json(line)
        return
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"The targets are no TOML document: {exc}.") from exc
    unknown = sorted(document.keys() - {"targets"})
    if unknown or not isinstance(document.get("targets", []), list):
        raise ConfigurationError(
            f"The targets have {', '.join(unknown) or 'something else'} beside [[targets]].",
            hint="Write each one below [[targets]].",
        )
    for number, table in enumerate(document.get("targets", []), 1):
        yield f"target {number}", table


def _json(line: str) -> Any:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"This is no JSON: {exc}.") from exc
    return found


def _target(entry: Any, blueprint: Blueprint, base: Settings) -> Target:
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("name"), str)
        or not entry["name"].strip()
    ):
        raise ConfigurationError(
            "A target needs a name.", hint='{"name": "acme", "postgres": {"database": "acme"}}'
        )
    name = entry["name"]
    if not name.isprintable():
        raise ConfigurationError(f"The name {name!a} cannot be printed.")
    _known(name, entry, ("name", "settings", *blueprint.stores))
    stores, schema = dict(base.stores), base.schema
    for store in (s for s in STORE_ORDER if s in entry):
        section = {"url": entry[store]} if isinstance(entry[store], str) else entry[store]
        if not isinstance(section, dict):
            raise ConfigurationError(f"{name}: {store} is neither an address nor a table.")
        _known(
            f"{name}, {store}",
            section,
            (*_STORE_KEYS, *(["schema"] if store == "postgres" else [])),
        )
        stores[store] = _address(name, store, section, blueprint, base)
        schema = section.get("schema", schema) if store == "postgres" else schema
    given = entry.get("settings", {})
    if not isinstance(given, dict):
        raise ConfigurationError(f"{name}: settings is no table.")
    _known(f"{name}, settings", given, [s.name for s in blueprint.settings])
    settings = replace(base, stores=stores, schema=schema, values={**base.values, **given})
    blueprint.resolve(settings.values)
    named = [
        s for s in stores if s in entry
    ] or stores  # one that names no store is where the call is
    return Target(name, settings, {_place(stores[s], schema): str(stores[s]) for s in named})


def _known(where: str, table: Mapping[str, Any], names: Any) -> None:
    for key in table:
        if key not in names:
            raise ConfigurationError(
                f"{where}: unknown key {key}.", hint=f"Known: {', '.join(names)}."
            )


def _address(
    name: str, store: StoreName, section: Mapping[str, Any], blueprint: Blueprint, base: Settings
) -> StoreUrl:
    for key, value in section.items():
        if not isinstance(value, str):
            raise ConfigurationError(
                f"{name}: {key} of {store} is not text.", hint="Write it in quotes."
            )
        if not value or "\0" in value:
            raise ConfigurationError(
                f"{name}: {key} of {store} is empty, or has a character that is none.",
                hint="Leave it out.",
            )
    if "password" in section and "password_file" in section:
        raise ConfigurationError(
            f"{name}: password and password_file of {store} are both set.", hint="Keep one of them."
        )
    common = base.identity(store)
    if "url" in section:
        url = StoreUrl.parse(store, section["url"], f"target {name}")
        url = replace(url, database=url.database or (blueprint.name if store == "postgres" else ""))
    else:
        url = replace(base.need(store), source=f"target {name}")
    given = {key: section[key] for key in ("database", "username", "password") if key in section}
    if "password_file" in section:
        given["password"] = read_secret(Path(section["password_file"]), f"{name}, {store}")
    url = replace(url, **given)
    username = url.username or common.username
    password = url.password if "url" in section or "password" in given else ""
    if (
        username == common.username
    ):  # a password goes with its own user only, whichever way that one was named
        password = password or common.password
    url = replace(url, username=username, password=password, ca_file=common.ca_file)
    if url.ca_file:
        check_ca_file(url, url.ca_file)
    return url


_PORTS: Mapping[StoreName, str] = {
    "postgres": "5432",
    "neo4j": "7687",
    "milvus": "19530",
    "redis": "6379",
}
#: Where an address leads that names no database.
_DATABASES: Mapping[StoreName, str] = {"neo4j": "neo4j", "milvus": "default", "redis": "0"}


def _place(url: StoreUrl, schema: str) -> str:
    """Where an address leads, whichever way it is written and whoever goes there; names are not looked up."""
    default = "443" if url.scheme == "https" else _PORTS[url.store]
    hosts, ports = [host for host, _ in url.servers], [port or default for _, port in url.servers]
    database, more = url.database or _DATABASES.get(url.store, ""), ""
    if url.store == "redis" and database.isdecimal():
        database = str(int(database))
    if url.store == "postgres":  # what libpq takes from the query goes before the rest
        query = dict(url.query)
        hosts = (query.get("hostaddr") or query.get("host") or ",".join(hosts)).split(",")
        ports = query["port"].split(",") if query.get("port") else ports
        more = f" {query.get('service', '')} {schema}"
    ports = ports * len(hosts) if len(ports) == 1 else ports
    servers = sorted(
        f"{h if '/' in h else (h or 'localhost').lower()} {p}"
        for h, p in zip(hosts, ports, strict=False)
    )
    return f"{url.store} {servers} {database}{more}"
