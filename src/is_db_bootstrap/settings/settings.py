"""What a run needs to know besides its blueprint: where the stores are, and who we are there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from is_db_bootstrap.blueprint import Blueprint, Value
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings.address import (
    DEFAULT_SOURCE,
    AddressError,
    StoreUrl,
    check_servers,
)
from is_db_bootstrap.settings.credentials import (
    database_of_variables,
    fill_credentials,
    passed_over,
    user_of_variables,
)
from is_db_bootstrap.settings.service_links import service_of
from is_db_bootstrap.settings.sources import (
    IGNORED_KEY,
    PRIVILEGES_KEY,
    UNKNOWN_KEY,
    Sources,
    as_number,
    part_forms,
    timing_variable,
)
from is_db_bootstrap.settings.timing import LEAST, Timing
from is_db_bootstrap.settings.tls import check_tls
from is_db_bootstrap.settings.tls_files import ClientCertificate
from is_db_bootstrap.settings.unknown_names import mistyped
from is_db_bootstrap.stores.kind import StoreKind
from is_db_bootstrap.stores.kinds import KINDS
from is_db_bootstrap.wording import counted

_DEFAULT_SCHEMA = "public"
#: What a recorded revision may mean that nobody here knows.
_CONFLICT, _AHEAD = "conflict", "ahead"
#: What becomes of owners and grants.
_COMPARE, _IGNORE = "compare", "ignore"


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who we are at a store, what its certificate is checked with, and which one we show."""

    username: str = ""
    password: str = ""
    ca_file: str = ""
    certificate: ClientCertificate | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs to know besides its blueprint.

    `stores` has an address for each store for which one was found. `values` are the blueprint's own
    settings, which may be addresses. `schema` is the schema of the store that has schemas. A person
    has named it if `is_schema_given`.
    `identities` are for addresses that are found later. `ignored_version_tables` are version tables
    that are not ours, each as `SCHEMA.TABLE`. `unknown_is_ahead` says that a recorded revision that
    nobody here knows is newer code's. `compare_privileges` says that owners, grants and the roles
    of policies are compared with what revisions made. `warnings` are sentences on what is set and
    most likely not as it was meant, `details` on what is passed over by rule. `hints` say for a
    store without an address what may have been meant. `file` is the TOML file that was read.
    `origins` say who has set what is no address, by the name of the setting.
    """

    stores: Mapping[StoreName, StoreUrl]
    schema: str = _DEFAULT_SCHEMA
    timing: Timing = field(default_factory=Timing)
    values: Mapping[str, Value] = field(default_factory=dict, repr=False)
    identities: Mapping[StoreName, Identity] = field(default_factory=dict, repr=False)
    ignored_version_tables: tuple[str, ...] = ()
    unknown_is_ahead: bool = False
    compare_privileges: bool = True
    is_schema_given: bool = False
    warnings: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    hints: Mapping[StoreName, str] = field(default_factory=dict)
    file: Path | None = None
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def named_schema(self) -> str | None:
        """The schema that a person has named. None: the search path of the session decides."""
        if self.is_schema_given or self.schema != _DEFAULT_SCHEMA:
            return self.schema
        return None

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
        without: Collection[StoreName] = (),
    ) -> Settings:
        """Read everything. The first source that says something wins.

        The order is: `flags`, the environment, `env_file`, the TOML file, the defaults. A flag is
        the store's name with `_url` behind it, or a name of `Timing`. `environ` is the process's
        environment when None. `identities` are the stores whose user, password and CA file are
        wanted also where no address is set. `without` are the stores whose address is not looked
        for, because the caller has a database of another kind. Raises `ConfigurationError`.
        """
        sources = Sources.read(environ, file, env_file)
        sources.table.check_settings(blueprint)
        sources.refuse_misplaced(blueprint)
        given = {name: value for name, value in (flags or {}).items() if value is not None}
        found = {
            name: _find_address(kind, blueprint, sources, given.get(f"{name}_url"))
            for name, kind in KINDS.items()
            if name not in without
        }
        stores = {name: url for name, url in found.items() if url is not None}
        every = {**sources.variables, **sources.links}
        return cls(
            stores=stores,
            schema=_find_schema(sources) or _DEFAULT_SCHEMA,
            is_schema_given=bool(_find_schema(sources)),
            timing=_find_timing(sources, given),
            values=_find_values(blueprint, sources),
            identities={
                name: _find_identity(KINDS[name], sources)
                for name in identities
                if name not in stores
            },
            ignored_version_tables=tuple(_find_ignored(sources)),
            unknown_is_ahead=_find_unknown_is_ahead(sources),
            compare_privileges=_find_compare_privileges(sources),
            warnings=(*mistyped(every, blueprint), *_proxies(stores)),
            details=tuple(_details(sources, stores)),
            hints={name: _likely_meant(name, every) for name in KINDS},
            file=sources.table.path,
            origins=dict(_origins(blueprint, sources, given)),
        )

    def identity(self, store: StoreName) -> Identity:
        """The identity in the address of `store`. Without an address, that of the settings."""
        url = self.stores.get(store)
        if url is None:
            return self.identities.get(store, Identity())
        return Identity(url.username, url.password, url.ca_file, url.certificate)

    def need(self, store: StoreName) -> StoreUrl:
        """The address of `store`.

        Raises `ConfigurationError` that names the variable, when there is none.
        """
        if store not in self.stores:
            likely = self.hints.get(store, "")
            raise ConfigurationError(
                f"{store}: no address is set.",
                hint=f"Set {store.upper()}_URL or --{store}-url, or use --local for a local stack."
                f"{likely}",
            )
        return self.stores[store]

    def need_each(self, stores: Collection[StoreName]) -> dict[StoreName, StoreUrl]:
        """The addresses of `stores`.

        Raises `ConfigurationError` that names every store and variable without one.
        """
        lacking = [store for store in stores if store not in self.stores]
        if len(lacking) > 1:
            variables = ", ".join(f"{store.upper()}_URL" for store in lacking)
            likely = "".join(self.hints.get(store, "") for store in lacking)
            raise ConfigurationError(
                f"{', '.join(lacking)}: no address is set.",
                hint=f"Set {variables}, leave stores out with --skip, or use --local for a local "
                f"stack.{likely}",
            )
        return {store: self.need(store) for store in stores}


# --- addresses


def _find_address(
    kind: StoreKind, blueprint: Blueprint, sources: Sources, flag: str | None
) -> StoreUrl | None:
    """The address of a store, with user, password and files of TLS from wherever they are set."""
    url = next(_set_addresses(kind, blueprint, sources, flag), None)
    if url is None:
        return None
    if not url.database and not kind.default_database:
        database = database_of_variables(kind, sources) or blueprint.name
        url = replace(url, database=database)
    ours = _find_identity(kind, sources, url.username, url.password)
    found = replace(
        url,
        username=ours.username,
        password=ours.password,
        ca_file=url.ca_file or ours.ca_file,
        certificate=url.certificate or ours.certificate,
    )
    check_tls(found)
    return found


def _set_addresses(
    kind: StoreKind, blueprint: Blueprint, sources: Sources, flag: str | None
) -> Iterator[StoreUrl]:
    """The addresses that are set, the first of which wins.

    A caller that takes the first one never reads the others. So a wrong one among them does not
    matter.
    """
    texts = [(flag, f"--{kind.name}-url")]
    texts += [(sources.variables.get(name), name) for name in kind.url_variables]
    for text, source in texts:
        if text:
            url = StoreUrl.parse(kind.name, text, sources.named(source))
            yield url.with_paths_of(sources.folder_of(source))
    parts = kind.part_variables
    named = [name for name in part_forms(kind) if sources.variables.get(name)]
    if named:
        place = f" in {sources.env_file}" if sources.of_env_file.issuperset(named) else ""
        yield _of_parts(kind, blueprint, sources, f"{parts['host']} and others{place}")
    filed = sources.store(kind.name).get("url")
    if filed:
        path = sources.table.path
        url = StoreUrl.parse(kind.name, filed, sources.table.name)
        yield url.with_paths_of(path.parent if path else None)
    if kind.default_server:
        yield _default_address(kind, blueprint, sources)


def _of_parts(kind: StoreKind, blueprint: Blueprint, sources: Sources, source: str) -> StoreUrl:
    """The address that one variable for each of its parts makes."""
    parts = kind.part_variables
    default_host, _, default_port = kind.default_server.rpartition(":")

    def part(name: str, default: str) -> str:
        return sources.variables.get(parts[name], default)

    try:
        hosts = _written_hosts(part("host", default_host), part("port", default_port))
        check_servers(hosts)
    except AddressError as exc:
        raise ConfigurationError(
            f"{kind.name}: what {parts['host']} and {parts['port']} say {exc}.",
            hint="Ports are 1 to 65535.",
        ) from None
    own_password = sources.secret(parts["password"])
    other_password = sources.secret(f"{kind.name.upper()}_PASSWORD")
    return StoreUrl(
        store=kind.name,
        scheme=kind.schemes[0],
        hosts=hosts,
        database=part("database", database_of_variables(kind, sources) or blueprint.name),
        username=part("username", user_of_variables(kind, sources) or kind.default_user),
        password=own_password or other_password or kind.default_password,
        source=source,
    )


def _default_address(kind: StoreKind, blueprint: Blueprint, sources: Sources) -> StoreUrl:
    """The address that stands in when nobody has set one.

    Its default password gives way to any password that is given.
    """
    prefix = kind.name.upper()
    is_in_variables = {f"{prefix}_PASSWORD", f"{prefix}_PASSWORD_FILE"} & sources.variables.keys()
    is_in_file = {"password", "password_file"} & sources.store(kind.name).keys()
    is_given = bool(is_in_variables or is_in_file)
    return StoreUrl(
        store=kind.name,
        scheme=kind.schemes[0],
        hosts=kind.default_server,
        database=database_of_variables(kind, sources) or blueprint.name,
        password="" if is_given else kind.default_password,
        source=DEFAULT_SOURCE,
    )


def _written_hosts(hosts: str, ports: str) -> str:
    """Hosts and ports as an address writes them. One port is that of all hosts.

    Both have commas where there are several, as libpq's PGHOST and PGPORT have. Raises
    `AddressError` when there are several ports, and not one for each host.
    """
    each_host, each_port = hosts.split(","), ports.split(",")
    if len(each_port) == 1:
        each_port *= len(each_host)
    if len(each_host) != len(each_port):
        counts = f"{counted(len(each_host), 'host')} and {counted(len(each_port), 'port')}"
        raise AddressError(f"names {counts}")
    pairs = zip(each_host, each_port, strict=True)
    return ",".join(f"{_written_host(host)}:{port}" for host, port in pairs)


def _written_host(host: str) -> str:
    """A host as an address writes it: a socket's folder escaped, an IPv6 address in brackets."""
    if host.startswith("/"):
        return quote(host, safe="")
    is_ipv6 = host.count(":") > 1 and not host.startswith("[")
    return f"[{host}]" if is_ipv6 else host


def _find_identity(
    kind: StoreKind, sources: Sources, own_user: str = "", own_password: str = ""
) -> Identity:
    """Who we are: what the address says, and what the environment and the file say of the rest."""
    who = fill_credentials(kind, sources, own_user, own_password)
    return Identity(
        username=who.username,
        password=who.password,
        ca_file=sources.store_file(kind, "ca_file"),
        certificate=_find_certificate(kind, sources),
    )


def _find_certificate(kind: StoreKind, sources: Sources) -> ClientCertificate | None:
    """The certificate that we show a store. None when nothing of one is set."""
    found = ClientCertificate(
        cert_file=sources.store_file(kind, "cert_file"),
        key_file=sources.store_file(kind, "key_file"),
        key_password=sources.key_password(kind),
    )
    return None if found == ClientCertificate("", "") else found


# --- what is worth telling


def _proxies(stores: Mapping[StoreName, StoreUrl]) -> Iterator[str]:
    """A sentence on each store whose client goes through a proxy."""
    for name, url in stores.items():
        proxy = url.proxy
        if proxy is not None:
            yield f"{name}: the connection to {url.hosts} goes through {proxy}. {proxy.way_around}"


def _details(sources: Sources, stores: Mapping[StoreName, StoreUrl]) -> Iterator[str]:
    """A sentence on each variable that is passed over by rule."""
    for name, value in sources.links.items():
        yield f"{name}={value} is a link of Kubernetes or Docker, and no setting."
    for name, url in stores.items():
        yield from passed_over(KINDS[name], sources, url)


def _likely_meant(store: StoreName, variables: Mapping[str, str]) -> str:
    """What may have been meant for a store without an address, as a sentence behind a hint."""
    prefix = store.upper()
    if f"{prefix}_URI" in variables:
        return f" {prefix}_URI is set and not read."
    service = service_of(prefix, variables)
    if service:
        scheme = KINDS[store].schemes[0]
        return (
            f" There is a service at {service}, which is not used unasked: write "
            f"{prefix}_URL={scheme}://{service}."
        )
    return ""


# --- the rest


def _find_schema(sources: Sources) -> str:
    """The schema of the store that has schemas, if one is named. Empty otherwise."""
    for kind in KINDS.values():
        if not kind.has_schemas:
            continue
        named = sources.variables.get(kind.schema_variable)
        filed: str = sources.store(kind.name).get("schema", "")
        if named or filed:
            return named or filed
    return ""


def ignored_version_tables(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The version tables that are not ours, for a database that has no settings of its own.

    `environ` is the process's environment when None. Raises `ConfigurationError`.
    """
    return tuple(_find_ignored(Sources.read(environ, None, None)))


def _find_ignored(sources: Sources) -> Iterator[str]:
    """The version tables that are not ours. They stand in one text, with commas between them."""
    for kind in KINDS.values():
        filed = sources.store(kind.name).get(IGNORED_KEY, "")
        text = sources.variables.get(kind.ignored_variable, filed)
        yield from filter(None, map(str.strip, text.split(",")))


def _find_unknown_is_ahead(sources: Sources) -> bool:
    """Whether a recorded revision that nobody here knows is newer code's."""
    for kind in KINDS.values():
        filed = sources.store(kind.name).get(UNKNOWN_KEY, "")
        value = sources.variables.get(kind.unknown_variable, filed) or _CONFLICT
        if value not in {_CONFLICT, _AHEAD}:
            raise ConfigurationError(
                f"{kind.unknown_variable}={value} is not understood.",
                hint=f"Say {_AHEAD}, or {_CONFLICT}, which is the default. "
                f"{sources.place_of(kind.unknown_variable)}".rstrip(),
            )
        if value == _AHEAD:
            return True
    return False


def _find_compare_privileges(sources: Sources) -> bool:
    """Whether owners, grants and the roles of policies are compared."""
    for kind in KINDS.values():
        filed = sources.store(kind.name).get(PRIVILEGES_KEY, "")
        value = sources.variables.get(kind.privileges_variable, filed) or _COMPARE
        if value not in {_COMPARE, _IGNORE}:
            raise ConfigurationError(
                f"{kind.privileges_variable}={value} is not understood.",
                hint=f"Say {_IGNORE}, or {_COMPARE}, which is the default. "
                f"{sources.place_of(kind.privileges_variable)}".rstrip(),
            )
        if value == _IGNORE:
            return False
    return True


def _find_values(blueprint: Blueprint, sources: Sources) -> dict[str, Value]:
    """The blueprint's own settings."""
    of_file = sources.table.section("settings")
    found: dict[str, Value] = {}
    for setting in blueprint.settings:
        default = of_file.get(setting.name, setting.default)
        found[setting.name] = sources.variables.get(setting.name, default)
    return found


def _origins(
    blueprint: Blueprint, sources: Sources, flags: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Who has set each time, each setting of the blueprint, and the schema."""
    section, filed = sources.table.section("timing"), sources.table.name
    for each in fields(Timing):
        variable = timing_variable(each.name)
        if each.name in flags:
            yield each.name, f"--{each.name.removesuffix('_s').replace('_', '-')}"
        elif variable in sources.variables:
            yield each.name, sources.named(variable)
        elif each.name in section:
            yield each.name, filed
    for setting in blueprint.settings:
        if setting.name in sources.variables:
            is_filed = setting.name in sources.of_env_file
            yield setting.name, str(sources.env_file) if is_filed else "the environment"
        elif setting.name in sources.table.section("settings"):
            yield setting.name, filed
    for kind in KINDS.values():
        if kind.has_schemas and _find_schema(sources):
            is_variable = bool(sources.variables.get(kind.schema_variable))
            yield "schema", sources.named(kind.schema_variable) if is_variable else filed


def _find_timing(sources: Sources, flags: Mapping[str, Any]) -> Timing:
    """The times that are set. All others keep their defaults."""
    section = sources.table.section("timing")
    found: dict[str, float | int] = {}
    for each in fields(Timing):
        variable = timing_variable(each.name)
        of_file = section.get(each.name)
        value = flags.get(each.name, sources.variables.get(variable, of_file))
        if value is not None:
            kind = int if isinstance(each.default, int) else float
            place = "" if each.name in flags else sources.place_of(variable)
            least = LEAST.get(each.name, 0)
            found[each.name] = as_number(value, kind, variable, least, place=place)
    return Timing(**found)  # type: ignore[arg-type]  # the fields are floats and integers
