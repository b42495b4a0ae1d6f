"""What is true of every store of one kind, as data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from is_db_bootstrap.names import StoreName


@dataclass(frozen=True, slots=True)
class TlsWish:
    """What an address and the settings say of TLS. `ca_file` is that of the settings."""

    scheme: str
    options: Sequence[tuple[str, str]]
    ca_file: str = ""

    def last(self, name: str) -> str:
        """The last value of an option. Empty when the address does not have the option."""
        return next((value for key, value in reversed(self.options) if key == name), "")


#: How clients write "no" in an option of an address, in small letters.
NO = frozenset({"0", "f", "false", "n", "no"})


def no_weakness(_: TlsWish) -> Iterator[str]:
    """Nothing, for a kind of store whose address can say nothing against a CA file."""
    return iter(())


#: The names of options of an address that have to do with certificates.
_OF_CERTIFICATES = re.compile(
    r"(^|_)(ca|cert|certs|certificate|certificates|pem|trust|trusted)(_|$)"
)


def unread_tls_options(wish: TlsWish, variable: str) -> Iterator[str]:
    """The options about certificates in an address whose client reads no such option.

    The client would ignore such an option without a word, and check with other authorities.
    """
    for key, _ in wish.options:
        if _OF_CERTIFICATES.search(key.lower()):
            yield f"{key}, which is not read there: give the file as {variable}"


def no_auth(_: str) -> tuple[str, str] | None:
    """For a store without a variable for user and password in one."""
    return None


@dataclass(frozen=True, slots=True)
class StoreKind:
    """The facts of one kind of store that other parts of the package need.

    Reading these facts imports no client library.
    """

    name: StoreName
    label: str
    #: The schemes that an address may have, the usual one first.
    schemes: tuple[str, ...]
    default_port: int
    #: The fields of a blueprint that declare something about the store.
    declared_by: tuple[str, ...]
    #: The name of the class in the store's module `bootstrapper`.
    bootstrapper_class: str
    #: The field of a blueprint that names a folder of files, and the usual name of that folder,
    #: such as `migrations`. The store's module `files` reads that folder.
    folder: str = ""
    #: The field of a blueprint that names a team's own environment instead of such a folder, and
    #: the key of a TOML file that does. The other keys of the file say more about it.
    environment: str = ""
    environment_keys: tuple[str, ...] = ()
    #: The keys of a TOML file that name what fills an empty store, and what is recorded afterwards.
    baseline_keys: tuple[str, ...] = ()
    #: Other names that people give to such a folder.
    folder_names: tuple[str, ...] = ()
    #: The scheme that asks for TLS. Empty where a query option or a suffix asks for TLS.
    tls_scheme: str = ""
    #: Other schemes that ask for TLS.
    other_tls_schemes: tuple[str, ...] = ()
    #: Schemes whose path is the name of a service, and a database behind it.
    service_schemes: tuple[str, ...] = ()
    #: The scheme whose path is a socket.
    socket_scheme: str = ""
    default_user: str = ""
    #: Empty where the blueprint's name is the default.
    default_database: str = ""
    #: Host and port of the address that stands in when none is set. Empty where none stands in.
    default_server: str = ""
    default_password: str = ""
    #: Options of an address's query that say what a field of the address may say too.
    query_fields: Mapping[str, str] = field(default_factory=dict)
    #: Whether these options win over what stands before the query.
    query_wins: bool = False
    #: Whether a user without a password is hidden, since it may be a token or a password.
    lone_user_is_secret: bool = False
    #: Whether a user without a password is certainly a token.
    lone_user_is_token: bool = False
    #: Schemes of other engines that people give, and how to go on there, as a sentence.
    other_engines: Mapping[str, str] = field(default_factory=dict)
    #: Variables that are read after `<STORE>_URL`.
    other_url_variables: tuple[str, ...] = ()
    #: The variables that name the user, the first of which wins, and the one that names the
    #: database.
    user_variables: tuple[str, ...] = ()
    database_variable: str = ""
    #: The variable that has user and password in one text, that form, and what takes a text apart.
    #: None: the text is not of that form.
    auth_variable: str = ""
    auth_form: str = ""
    #: Another variable that names a file with that text, as an official image has it.
    auth_path_variable: str = ""
    read_auth: Callable[[str], tuple[str, str] | None] = no_auth
    #: What stands behind the store's name in variables of other tools.
    foreign_variables: tuple[str, ...] = ()
    #: Whether its client goes through the proxy that variables name for gRPC.
    has_grpc_proxy: bool = False
    #: The variable of each field of an address.
    part_variables: Mapping[str, str] = field(default_factory=dict)
    #: The variable from which the client itself takes each field of an address, and the one that
    #: names a file's entry with all of them.
    client_variables: Mapping[str, str] = field(default_factory=dict)
    client_entry_variable: str = ""
    #: The variable that names the schema.
    schema_variable: str = ""
    #: The variable that names version tables which are not ours.
    ignored_variable: str = ""
    #: The variable that says what a recorded revision means that nobody here knows.
    unknown_variable: str = ""
    #: The variable that says whether owners, grants and the roles of policies are compared.
    privileges_variable: str = ""
    #: What in an address would weaken the check of the server's certificate, in its own words.
    tls_weaknesses: Callable[[TlsWish], Iterator[str]] = no_weakness
    #: Options of an address's query whose value is a path, unless it is one of `path_words`.
    path_options: tuple[str, ...] = ()
    path_words: tuple[str, ...] = ()
    #: Options of an address's query that say where the address leads. For `hosts` and `port` the
    #: first option that is set counts. The options for `more` are named besides.
    place_options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Whether `01` and `1` are one database.
    numbered_databases: bool = False
    can_lock: bool = True
    has_schemas: bool = False
    #: Whether the bootstrapper can write demo data.
    takes_seed: bool = False
    #: Whether its self-test can also run in a place of its own, made for that on its server.
    tests_elsewhere: bool = False
    #: The extra of this package that installs the client.
    client_extra: str = ""
    #: The package of the client, and variables that it reads while it is imported. They may be
    #: another program's, with values that end the import.
    client_package: str = ""
    import_variables: tuple[str, ...] = ()
    #: The nouns for one and for several changes of each kind. Without an entry, both are the name
    #: of the kind.
    change_nouns: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    #: The variable by which clients name their sessions. Empty where the store has no module
    #: `sessions`, which ends such sessions.
    session_variable: str = ""
    #: What the server goes on with when its client has gone, as a sentence. Empty when there is
    #: nothing.
    unended: str = ""

    @property
    def url_variables(self) -> tuple[str, ...]:
        """The variables that have an address, the first of which wins."""
        return (f"{self.name.upper()}_URL", *self.other_url_variables)

    def module_name(self, role: str) -> str:
        """The name of the store's module of this role, such as `bootstrapper`."""
        return f"{__package__}.{self.name}.{role}"

    def is_declared_in(self, blueprint: object) -> bool:
        """Whether a blueprint declares something about this store."""
        values = [getattr(blueprint, name) for name in self.declared_by]
        return any(value not in (None, ()) for value in values)
