"""Addresses of stores. Only this module takes an address apart, or makes text of an address."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote, unquote_plus

from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.settings.proxy import Proxy, grpc_proxy
from is_db_bootstrap.settings.secrets import (
    HIDDEN,
    SECRET_OPTIONS,
    SHORTEST_HIDDEN,
    forms,
    has_surrogates,
)
from is_db_bootstrap.settings.tls_files import ClientCertificate
from is_db_bootstrap.stores.kinds import KINDS

E = TypeVar("E", bound=Exception)

#: The source of an address that nobody has set.
DEFAULT_SOURCE = "default"

#: The schemes of each store, the usual one first.
SCHEMES: Mapping[StoreName, tuple[str, ...]] = {kind.name: kind.schemes for kind in KINDS.values()}
#: Options that say who and where, as the parts of an address do.
_NAMES_AND_SECRETS = {option for kind in KINDS.values() for option in kind.query_fields}
#: Options in whose value an @ is nothing special: `?user=me@company`.
_MAY_HAVE_AT = {
    *_NAMES_AND_SECRETS,
    *SECRET_OPTIONS,
    "application_name",
    "client_name",
    "options",
    "krbsrvname",
    "service",
}
_SCHEME = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*)://(?P<rest>.*)", re.DOTALL)
_OPTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
#: A host is a name, a percent-encoded path of a socket, or an IPv6 address in brackets.
_SERVER = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.~%\-]+)?\]|[^\x00-\x20!\"#$&'()*+,/:;<=>?@\[\\\]^`{|}\x7f]*)"
    r"(?::(?P<port>.*))?",
    re.DOTALL,
)
_LAST_PORT = 65535

_FORM = "is not of the form scheme://user:password@host:port/database"
_HOST = "names a host that is not a host name, or has a special character in its user or password"
_PORT = "has a port that is not a port (1 to 65535)"
_QUERY = "has an option without a name and a value behind its ?"
_TWO_WAYS = "can be read in two ways, because an @ stands behind a / or a ?"
_CHARACTERS = "has a character that cannot be sent"


class AddressError(ValueError):
    """Why a text is no address. The error leaves out the text, since the text may hold a secret."""


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """The parts of `scheme://user:password@hosts/path?query`.

    User, password and options are decoded. `hosts` and `path` are as they were written.
    """

    scheme: str
    username: str
    password: str
    hosts: str
    path: str
    options: tuple[tuple[str, str], ...]

    @classmethod
    def split(cls, text: str, schemes: Collection[str] = ()) -> Address:
        """Take `text`, which has one of `schemes`, apart. The last `@` ends the user part.

        So a password may hold `@`, `/`, `?` and `#` as they are. A `%` with two hexadecimal digits
        behind it is always an escape. For an `@` behind `host:port/` or in a query there are two
        readings: the end of the user part, or a part of a name. The second one holds where the name
        of the query's option tells so, as in `?user=me@company`. Everywhere else, `AddressError`
        asks for an escape.
        """
        text = text.strip()
        if "\0" in text or has_surrogates(text):
            raise AddressError(_CHARACTERS)
        match = _SCHEME.fullmatch(text)
        if match is None or (schemes and match["scheme"] not in schemes):
            raise AddressError(_FORM)
        scheme, rest = match["scheme"], match["rest"]
        return _read_address(scheme, rest, _end_of_user(scheme, rest))

    def text(self, *, password: str | None = None) -> str:
        """The address as text. `password` stands in the place of the real one, already escaped."""
        shown = quote(self.password, safe="") if password is None else password
        return compose(self.scheme, self.username, shown, self.hosts, self.path, self.options)

    def without_user(self) -> str:
        """The address as text, without user and password."""
        return compose(self.scheme, "", "", self.hosts, self.path, self.options)

    def __str__(self) -> str:
        """The address for people: without the password, and without options that may hold one."""
        hidden = HIDDEN if self.password else ""
        return compose(self.scheme, self.username, hidden, self.hosts, self.path, ())

    def __repr__(self) -> str:
        return f"<Address {self}>"


def compose(  # noqa: PLR0917 - the parts of an address, in their order
    scheme: str,
    username: str,
    password: str,
    hosts: str,
    path: str,
    options: Sequence[tuple[str, str]],
) -> str:
    """Make an address of its parts. `password`, `hosts` and `path` are escaped already."""
    secret = f":{password}" if password else ""
    user = f"{quote(username, safe='')}{secret}@" if username or secret else ""
    address = f"{scheme}://{user}{hosts}{path}"
    if not options:
        return address
    pairs = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in options]
    return f"{address}?{'&'.join(pairs)}"


def _end_of_user(scheme: str, rest: str) -> int:
    """Where the `@` stands that ends the user part. -1 when there is no user part."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    strict = authority.rfind("@")
    last = rest.rfind("@")
    if last == strict:
        return last
    # The last @ stands behind the first / ? or #. So this @ is part of a password, or of a name in
    # the path or in the query.
    is_strict = _is_address(scheme, rest, strict)
    is_in_password = ":" in authority and _is_address(scheme, rest, last)
    if not is_in_password or (is_strict and _only_in_options(rest[len(authority) :])):
        return strict
    if is_strict and strict < 0:
        raise AddressError(_TWO_WAYS)
    return last


def _is_address(scheme: str, rest: str, at: int) -> bool:
    try:
        _read_address(scheme, rest, at)
    except AddressError:
        return False
    return True


def _only_in_options(tail: str) -> bool:
    """Whether each `@` of a path and a query stands in the value of an option that may have one."""
    path, _, query = tail.partition("?")
    if "@" in path:
        return False
    with_at = [item for item in query.split("&") if "@" in item]
    return all(item.partition("=")[0] in _MAY_HAVE_AT for item in with_at)


def _read_address(scheme: str, rest: str, at: int) -> Address:
    """Read the address whose user part ends before `at`."""
    user, _, password = rest[: max(at, 0)].partition(":")
    place, _, query = rest[at + 1 :].partition("?")
    hosts, slash, path = place.partition("/")
    if not hosts and not path.strip("/"):
        raise AddressError(_FORM)
    if "#" in path:
        raise AddressError(_FORM)
    check_servers(hosts)
    options = _read_options(query)
    return Address(scheme, unquote(user), unquote(password), hosts, slash + path, options)


def check_servers(hosts: str) -> None:
    """Raise `AddressError` when one of `hosts` is no host name, or has a port that is no port.

    `hosts` are separated by commas. With such a port, one client waits in vain, and another client
    asks the port modulo 65536.
    """
    for each in hosts.split(","):
        match = _SERVER.fullmatch(each)
        if match is None:
            raise AddressError(_HOST)
        port = match["port"]
        if port and not _is_port(port):
            raise AddressError(_PORT)


def _is_port(text: str) -> bool:
    if not text.isascii() or not text.isdecimal():
        return False
    # Six digits are enough to see that a number is too large. Python takes no more than 4300.
    return 0 < int(text[:6]) <= _LAST_PORT


def servers(hosts: str) -> list[tuple[str, str]]:
    """Each host and its port. A port is empty where there is none.

    `hosts` are separated by commas. The host is decoded and has no brackets.
    """
    return [_read_server(each) for each in hosts.split(",")]


def _read_server(text: str) -> tuple[str, str]:
    match = _SERVER.fullmatch(text)
    if match is None:
        return text, ""
    return unquote(match["host"].strip("[]")), match["port"] or ""


def _read_options(query: str) -> tuple[tuple[str, str], ...]:
    """The options of a query. In a user and a password, `+` is no blank, as in the user part."""
    found = []
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        name = unquote(name)
        if not equals or not _OPTION.fullmatch(name):
            raise AddressError(_QUERY)
        is_literal = name in SECRET_OPTIONS or name in _NAMES_AND_SECRETS
        decoded = unquote(value) if is_literal else unquote_plus(value)
        found.append((name, decoded))
    return tuple(found)


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """An address of a store, taken apart. A printed `StoreUrl` never shows the password.

    `hosts` is `host`, `host:port`, or for PostgreSQL several of them with commas. `source` says
    where the address came from. `ca_file` is a PEM file that the server's certificate is checked
    with. `certificate` is the one that we show the server.
    """

    store: StoreName
    scheme: str
    hosts: str
    database: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    ca_file: str = ""
    source: str = "argument"
    service: str = ""
    certificate: ClientCertificate | None = None

    @classmethod
    def parse(cls, store: StoreName, text: str, source: str = "argument") -> StoreUrl:
        """Take `text` apart.

        Raises `ConfigurationError` for what is no address of `store`. The error does not repeat the
        text, because the text may hold a secret.
        """
        schemes = SCHEMES[store]
        try:
            address = Address.split(text, schemes)
        except AddressError as exc:
            reason = str(exc)
            if reason == _FORM:
                reason = f"is not of the form {schemes[0]}://user@host:port/database"
            engine = text.strip().partition(":")[0].partition("+")[0].lower()
            there = KINDS[store].other_engines.get(engine, "")
            raise ConfigurationError(
                f"{store}: the address from {source} {reason}.",
                hint=there
                or f"Schemes: {', '.join(schemes)}. Ports are 1 to 65535. "
                f"A password with special characters goes into {store.upper()}_PASSWORD, "
                "or is percent-encoded.",
            ) from None
        return cls._from_address(store, address, source)

    @classmethod
    def _from_address(cls, store: StoreName, address: Address, source: str) -> StoreUrl:
        """Put the options that say what a field says into that field."""
        kind = KINDS[store]
        is_path = address.scheme == kind.socket_scheme
        path, service = "" if is_path else address.path.strip("/"), ""
        if address.scheme in kind.service_schemes:
            service, _, path = path.partition("/")
        own = {
            "database": unquote(path),
            "username": address.username,
            "password": address.password,
        }
        of_query = {
            kind.query_fields[name]: value
            for name, value in address.options
            if name in kind.query_fields and value
        }
        found = own | of_query
        if not kind.query_wins:
            found["username"] = own["username"] or found["username"]
            found["password"] = own["password"] or found["password"]
        other_options = [pair for pair in address.options if pair[0] not in kind.query_fields]
        return cls(
            store=store,
            scheme=address.scheme,
            hosts=address.path if is_path else address.hosts,
            query=tuple(other_options),
            source=source,
            service=unquote(service),
            database=found["database"],
            username=found["username"],
            password=found["password"],
        )

    def with_paths_of(self, folder: Path | None) -> StoreUrl:
        """The address that stands in a file of `folder`, with its paths as seen from here.

        None: the address does not stand in a file.
        """
        kind = KINDS[self.store]
        if folder is None or not kind.path_options:
            return self
        query = tuple(
            (name, str(folder / value) if is_path else value)
            for name, value in self.query
            for is_path in [name in kind.path_options and value and value not in kind.path_words]
        )
        return replace(self, query=query)

    @property
    def servers(self) -> list[tuple[str, str]]:
        """Each host, decoded and without brackets, and its port as written. Empty without one."""
        if self.scheme == KINDS[self.store].socket_scheme:
            return [(unquote(self.hosts), "")]
        return servers(self.hosts)

    def hosts_with_ports(self, default_port: int) -> list[tuple[str, int]]:
        """Each host, as `servers` has it, and its port as a number."""
        return [(host, int(port or default_port)) for host, port in self.servers]

    @property
    def host(self) -> str:
        """The first host, decoded, without brackets and port."""
        return self.servers[0][0]

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that the environment of this process puts in between. None when none does."""
        return grpc_proxy(self.host) if KINDS[self.store].has_grpc_proxy else None

    def port(self, default: int) -> int:
        """The first port."""
        return int(self.servers[0][1] or default)

    def reveal(self, *, database: str | None = None, scheme: str | None = None) -> str:
        """The whole URL with the password in it. Only a client may have this text."""
        database = self.database if database is None else database
        password = quote(self.password, safe="")
        scheme = scheme or self.scheme
        return self._address_text(self.username, password, database, scheme, self.query)

    def _address_text(
        self,
        username: str,
        password: str,
        database: str,
        scheme: str,
        query: tuple[tuple[str, str], ...],
    ) -> str:
        path = f"/{quote(database, safe='')}" if database else ""
        if self.service:
            path = f"/{quote(self.service, safe='')}{path}"
        if database and scheme == KINDS[self.store].socket_scheme:
            # The path of such an address is the socket's.
            path, query = "", (*query, ("db", database))
        return compose(scheme, username, password, self.hosts, path, query)

    def __str__(self) -> str:
        # Without a password, what stands before the @ is a token, or a password in a user's place.
        is_token = KINDS[self.store].lone_user_is_secret and not self.password
        username = "" if is_token else self.username
        hidden = HIDDEN if self.password or (is_token and self.username) else ""
        text = self._address_text(username, hidden, self.database, self.scheme, ())
        return f"{text} (default)" if self.source == DEFAULT_SOURCE else text

    def __repr__(self) -> str:
        return f"<StoreUrl {self}>"

    # --- texts of others

    def masked(self, text: str) -> str:
        """`text`, a client's or a server's, without any form of the secrets of this address."""
        for form in self._hidden_forms():
            text = text.replace(form, HIDDEN)
        return text

    def masking(self, error: E, cause: BaseException | None = None) -> E:
        """`error`, after the secrets of this address were taken out of its texts.

        The secrets are taken out of the texts of its causes too.
        """
        for each in _errors_with_causes(error, cause):
            args = each.args
            each.args = tuple(self.masked(arg) if isinstance(arg, str) else arg for arg in args)
            if isinstance(each, BootstrapError):
                each.message = self.masked(each.message)
                each.hint = self.masked(each.hint)
                each.detail = self.masked(each.detail)
        return error

    def _hidden_forms(self) -> tuple[str, ...]:
        """Every form of the secrets that `str` does not show, the longest first."""
        secrets = {value for name, value in self.query if name in SECRET_OPTIONS}
        secrets.add(self.password)
        if self.certificate is not None:
            secrets.add(self.certificate.key_password)
        if KINDS[self.store].lone_user_is_token and not self.password:
            secrets.add(self.username)
        shown = str(self)
        found: set[str] = set()
        for secret in secrets:
            if len(secret) >= SHORTEST_HIDDEN and secret not in shown:
                found |= forms(secret)
        return tuple(sorted(found, key=len, reverse=True))


def _errors_with_causes(*errors: BaseException | None) -> Iterator[BaseException]:
    """Errors with their causes.

    No error comes twice. pymilvus raises errors `from` themselves.
    """
    left = [error for error in errors if error is not None]
    seen: set[int] = set()
    while left:
        each = left.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        inner = (each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
        left += [error for error in inner if isinstance(error, BaseException)]
