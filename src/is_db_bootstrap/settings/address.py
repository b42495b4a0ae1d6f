"""The one place where an address is taken apart, and the one where it becomes text."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import PurePath
from typing import TypeVar
from urllib.parse import quote, quote_plus, unquote, unquote_plus

from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.results import StoreName

E = TypeVar("E", bound=Exception)

SCHEMES: Mapping[StoreName, tuple[str, ...]] = {
    "postgres": (
        "postgresql",
        "postgres",
        "postgresql+psycopg",
        "postgresql+asyncpg",
        "postgresql+psycopg2",
    ),
    "neo4j": ("neo4j", "neo4j+s", "neo4j+ssc", "bolt", "bolt+s", "bolt+ssc"),
    "milvus": ("http", "https", "tcp"),
    "redis": ("redis", "rediss", "unix"),
}
#: What stands in a text in the place of a secret.
HIDDEN = "***"
#: A query's option, and the field that it is kept in: who and where are then asked in one place.
_IN_QUERY = {
    ("postgres", "user"): "username",
    ("postgres", "password"): "password",
    ("postgres", "dbname"): "database",
    ("redis", "username"): "username",
    ("redis", "password"): "password",
    ("redis", "db"): "database",
}
#: Options whose value is a secret although it is not the store's password.
_SECRET_OPTIONS = ("sslpassword", "ssl_password")
#: Options in whose value an @ is nothing special: `?user=me@company`.
_MAY_HAVE_AT = {
    *(option for _, option in _IN_QUERY),
    *_SECRET_OPTIONS,
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
#: A shorter secret is no secret, and hiding it would garble words that merely look like it.
_SHORTEST_HIDDEN = 6

_FORM = "is not of the form scheme://user:password@host:port/database"
_HOST = "names a host that is not a host name, or has a special character in its user or password"
_PORT = "has a port that is not a port (1 to 65535)"
_QUERY = "has an option without a name and a value behind its ?"
_TWO_WAYS = "can be read in two ways, because an @ stands behind a / or a ?"
_CHARACTERS = "has a character that cannot be sent"


class AddressError(ValueError):
    """Why a text is no address. The text itself is not repeated, because it may hold a secret."""


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

        So a password may hold `@`, `/`, `?` and `#` as they are; a `%` with two hexadecimal digits
        behind it is always an escape. An `@` that stands behind `host:port/` or in a query is the
        user part's end for one reader and a name's part for another. Where the query's option tells
        (`?user=me@company`), it is the latter; else `AddressError` asks for an escape.
        """
        text = text.strip()
        if "\0" in text or has_surrogates(text):
            raise AddressError(_CHARACTERS)
        match = _SCHEME.fullmatch(text)
        if match is None or (schemes and match["scheme"] not in schemes):
            raise AddressError(_FORM)
        scheme, rest = match["scheme"], match["rest"]
        return _read(scheme, rest, _end_of_user(scheme, rest))

    def text(self, *, password: str | None = None) -> str:
        """The address as text. `password` stands in the place of the real one, already escaped."""
        shown = quote(self.password, safe="") if password is None else password
        return compose(self.scheme, self.username, shown, self.hosts, self.path, self.options)

    def without_user(self) -> str:
        """The address as text, without user and password."""
        return compose(self.scheme, "", "", self.hosts, self.path, self.options)

    def __str__(self) -> str:
        """The address for people: without password, and without its options, which may hold one."""
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
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in options)
    return f"{scheme}://{user}{hosts}{path}" + (f"?{query}" if query else "")


def has_surrogates(text: str) -> bool:
    """Whether it has bytes that are no UTF-8, as a variable of the environment may."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _end_of_user(scheme: str, rest: str) -> int:
    """Where the `@` stands that ends the user part; -1 when there is no user part."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    strict, last = authority.rfind("@"), rest.rfind("@")
    if last == strict:
        return last
    # Behind the first / ? or #: part of a password, or of a name in the path or in the query.
    is_strict = _is_address(scheme, rest, strict)
    is_in_password = ":" in authority and _is_address(scheme, rest, last)
    if not is_in_password or (is_strict and _only_in_options(rest[len(authority) :])):
        return strict
    if is_strict and strict < 0:
        raise AddressError(_TWO_WAYS)
    return last


def _is_address(scheme: str, rest: str, at: int) -> bool:
    try:
        _read(scheme, rest, at)
    except AddressError:
        return False
    return True


def _only_in_options(tail: str) -> bool:
    """Whether each `@` of a path and a query stands in the value of an option that may have one."""
    path, _, query = tail.partition("?")
    items = [item.partition("=") for item in query.split("&")]
    return "@" not in path and all(
        "@" not in name + value or name in _MAY_HAVE_AT for name, _, value in items
    )


def _read(scheme: str, rest: str, at: int) -> Address:
    """Read the address whose user part ends before `at`."""
    user, _, password = rest[: max(at, 0)].partition(":")
    place, _, query = rest[at + 1 :].partition("?")
    hosts, slash, path = place.partition("/")
    if not hosts and not path.strip("/"):
        raise AddressError(_FORM)
    if "#" in path:
        raise AddressError(_FORM)
    check_servers(hosts)
    return Address(scheme, unquote(user), unquote(password), hosts, slash + path, _options(query))


def check_servers(hosts: str) -> None:
    """Raise `AddressError` for hosts with commas of which one is no host name, or has no port.

    One client waits for such a port in vain, another asks the port modulo 65536.
    """
    for each in hosts.split(","):
        match = _SERVER.fullmatch(each)
        if match is None:
            raise AddressError(_HOST)
        port = match["port"]
        is_number = not port or (port.isascii() and port.isdecimal())
        if not is_number or (port and not 0 < int(port[:6]) <= _LAST_PORT):
            raise AddressError(_PORT)


def servers(hosts: str) -> list[tuple[str, str]]:
    """Each of hosts with commas, decoded and without brackets, and its port, if it has one."""
    found = [(each, _SERVER.fullmatch(each)) for each in hosts.split(",")]
    return [
        (unquote(match["host"].strip("[]")), match["port"] or "") if match else (each, "")
        for each, match in found
    ]


def _options(query: str) -> tuple[tuple[str, str], ...]:
    """The options of a query. In a user and a password, `+` is no blank, as in the user part."""
    found = []
    for item in filter(None, query.split("&")):
        name, equals, value = item.partition("=")
        name = unquote(name)
        if not equals or not _OPTION.fullmatch(name):
            raise AddressError(_QUERY)
        literal = name in _SECRET_OPTIONS or any(name == option for _, option in _IN_QUERY)
        found.append((name, unquote(value) if literal else unquote_plus(value)))
    return tuple(found)


@dataclass(frozen=True, slots=True, repr=False)
class StoreUrl:
    """An address of a store, taken apart. Printing it never shows the password.

    `hosts` is `host`, `host:port`, or for PostgreSQL several of them with commas. `source` says
    where the address came from. `ca_file` is a PEM file that the server's certificate is checked
    with.
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

    @classmethod
    def parse(cls, store: StoreName, text: str, source: str = "argument") -> StoreUrl:
        """Take `text` apart.

        Raises `ConfigurationError` for what is no address of `store`. It does not repeat the text,
        because that may hold a secret.
        """
        schemes = SCHEMES[store]
        try:
            address = Address.split(text, schemes)
        except AddressError as exc:
            form = f"is not of the form {schemes[0]}://user@host:port/database"
            told = form if str(exc) == _FORM else str(exc)
            raise ConfigurationError(
                f"{store}: the address from {source} {told}.",
                hint=f"Schemes: {', '.join(schemes)}. Ports are 1 to 65535. "
                f"A password with special characters goes into {store.upper()}_PASSWORD, "
                "or is percent-encoded.",
            ) from None
        return cls._of(store, address, source)

    @classmethod
    def _of(cls, store: StoreName, address: Address, source: str) -> StoreUrl:
        is_path = address.scheme == "unix"
        own = {
            "database": "" if is_path else unquote(address.path.strip("/")),
            "username": address.username,
            "password": address.password,
        }
        said = {
            _IN_QUERY[store, name]: value
            for name, value in address.options
            if (store, name) in _IN_QUERY and value
        }
        if store == "redis":  # redis-py lets the user before the @ win, libpq the query
            said |= {k: v for k, v in own.items() if v and k != "database"}
        return cls(
            store=store,
            scheme=address.scheme,
            hosts=address.path if is_path else address.hosts,
            query=tuple((k, v) for k, v in address.options if (store, k) not in _IN_QUERY),
            source=source,
            **(own | said),
        )

    @property
    def servers(self) -> list[tuple[str, str]]:
        """Each host, decoded and without brackets, and its port as it is written, if at all."""
        return [(unquote(self.hosts), "")] if self.scheme == "unix" else servers(self.hosts)

    @property
    def host(self) -> str:
        """The first host, decoded and without brackets and port."""
        return self.servers[0][0]

    def port(self, default: int) -> int:
        """The first port."""
        return int(self.servers[0][1] or default)

    def reveal(self, *, database: str | None = None, scheme: str | None = None) -> str:
        """The whole URL with the password in it, for a client's ears only."""
        database = self.database if database is None else database
        password = quote(self.password, safe="")
        return self._text(self.username, password, database, scheme or self.scheme, self.query)

    def _text(
        self,
        username: str,
        password: str,
        database: str,
        scheme: str,
        query: tuple[tuple[str, str], ...],
    ) -> str:
        path = f"/{quote(database, safe='')}" if database else ""
        if scheme == "unix" and database:  # its path is the socket's
            path, query = "", (*query, ("db", database))
        return compose(scheme, username, password, self.hosts, path, query)

    def __str__(self) -> str:
        # Without a password, what stands before the @ is a token, or a password in a user's place.
        is_token = self.store in {"milvus", "redis"} and not self.password
        username = "" if is_token else self.username
        hidden = HIDDEN if self.password or (is_token and self.username) else ""
        return self._text(username, hidden, self.database, self.scheme, ())

    def __repr__(self) -> str:
        return f"<StoreUrl {self}>"

    # --- texts of others

    def masked(self, text: str) -> str:
        """`text`, a client's or a server's, without any form of the secrets of this address."""
        for form in self._hidden_forms():
            text = text.replace(form, HIDDEN)
        return text

    def masking(self, error: E, cause: BaseException | None = None) -> E:
        """`error` without the secrets of this address in its texts, nor in those of its causes."""
        for each in _chain(error, cause):
            args = each.args
            each.args = tuple(self.masked(arg) if isinstance(arg, str) else arg for arg in args)
            if isinstance(each, BootstrapError):
                each.message = self.masked(each.message)
                each.hint = self.masked(each.hint)
                each.detail = self.masked(each.detail)
        return error

    def _hidden_forms(self) -> tuple[str, ...]:
        secrets = {self.password, *(v for k, v in self.query if k in _SECRET_OPTIONS)}
        if self.store == "milvus" and not self.password:
            secrets.add(self.username)
        seen = str(self)
        found = {
            form
            for secret in secrets
            if len(secret) >= _SHORTEST_HIDDEN and secret not in seen
            for form in forms(secret)
        }
        return tuple(sorted(found, key=len, reverse=True))


def _chain(*errors: BaseException | None) -> Iterator[BaseException]:
    """Errors with their causes, none twice: pymilvus raises errors `from` themselves."""
    left, seen = [error for error in errors if error is not None], set[int]()
    while left:
        each = left.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            inner = (each.__cause__, each.__context__, *getattr(each, "exceptions", ()))
            left += [error for error in inner if isinstance(error, BaseException)]


@lru_cache(maxsize=64)
def forms(secret: str) -> frozenset[str]:
    """Every form in which programs write a text: as it is, escaped for a URL, for Python, JSON."""
    escaped = {
        secret,
        " ".join(secret.split()),
        quote(secret, safe=""),
        quote(secret, safe="/"),
        quote(secret, safe="!#$%&'()*+,/:;=?@[]~"),  # as requests does
        quote_plus(secret),
    }
    quoted = {
        form
        for text in escaped
        for form in (
            repr(text)[1:-1],
            ascii(text)[1:-1],
            json.dumps(text)[1:-1],
            json.dumps(text, ensure_ascii=False)[1:-1],
        )
    }
    found = escaped | quoted
    return frozenset(form for form in found if len(form) >= _SHORTEST_HIDDEN)


#: An address that may hold a secret: one slash is enough, because a path has made one of two.
_MAY_HOLD_SECRET = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*:/+)(?P<rest>.*)", re.DOTALL)
#: A password in a query, and `user:password` where the `@` behind it was forgotten.
_SECRET_IN_QUERY = re.compile(r"[?&][a-z_]*password=", re.IGNORECASE)
_SECRET_WITHOUT_AT = re.compile(r"[^/?#]*:(?!\d{1,5}(?:[/?,]|\Z))")


def may_hold_secret(text: str) -> bool:
    """Whether a text that was typed is an address with a password or a token in it.

    A value that was to be a name or a path and is such an address must not be repeated anywhere.
    """
    match = _MAY_HOLD_SECRET.fullmatch(text.strip())
    if match is None:
        return False
    rest = match["rest"]
    is_with_query = _SECRET_IN_QUERY.search(rest) is not None
    return "@" in rest or is_with_query or _SECRET_WITHOUT_AT.match(rest) is not None


def shown(text: str) -> str:
    """A typed address for people: scheme, host and path of it, and nothing else."""
    match = _MAY_HOLD_SECRET.fullmatch(text.strip())
    if match is None or not may_hold_secret(text):
        return text
    _, at, place = match["rest"].rpartition("@")
    is_with_query = _SECRET_IN_QUERY.search(match["rest"]) is not None
    place = f"@{place.partition('?')[0]}" if at and not is_with_query else ""
    return f"{match['scheme']}{HIDDEN}{place}"


def without_typed(text: str, typed: Iterable[str]) -> str:
    """`text` with each address among the `typed` values as `shown` tells it.

    A path has fewer slashes than the value that it was made of, so that form is looked for too.
    """
    for value in typed:
        if not may_hold_secret(value):
            continue
        written = {value, value.strip(), str(PurePath(value)), _as_filename(value)}
        found = {form for each in written for form in forms(each)}
        for form in sorted(found, key=len, reverse=True):
            text = text.replace(form, shown(value))
    return text


def _as_filename(value: str) -> str:
    """As click writes a file's name, in which bytes that are no UTF-8 are question marks."""
    return os.fsencode(value).decode(errors="replace")


def without_addresses(text: str) -> str:
    """A message that repeats what was typed, with all from `:/` to the last `@` hidden."""
    text = re.sub(r"(?<=[A-Za-z0-9]:/)(/*).*@", rf"\1{HIDDEN}@", text, flags=re.DOTALL)
    return re.sub(r"(?i)([?&][a-z_]*password=)[^&\s]*", rf"\1{HIDDEN}", text)


def single_token(url: StoreUrl) -> StoreUrl:
    """The address with a user that stands alone taken as its password, which Milvus' token is."""
    if url.username and not url.password:
        return replace(url, username="", password=url.username)
    return url
