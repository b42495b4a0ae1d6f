"""What is true of every store of one kind, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from is_db_bootstrap.names import StoreName


@dataclass(frozen=True, slots=True)
class StoreKind:
    """The facts of one kind of store that other parts of the package need. Reading them imports no client library.

    `schemes` are those that an address may have, the usual one first, and `tls_scheme` is the one that asks for TLS
    (empty where a query option or a suffix does). `default_database` is empty where the blueprint's name is the default.
    `query_fields` are the options of an address's query that say what a field of the address says as well.
    `declared_by` names the fields of a blueprint that declare something about the store.
    `takes_seed` says whether its bootstrapper writes demo data when it is told to.
    `change_nouns` has, for each kind of change, what one and several of them are called; without an entry it is the kind's name.
    `bootstrapper_class` is the class of this name in the store's module `bootstrapper`.
    """

    name: StoreName
    label: str
    schemes: tuple[str, ...]
    default_port: int
    declared_by: tuple[str, ...]
    bootstrapper_class: str
    tls_scheme: str = ""
    default_user: str = ""
    default_database: str = ""
    query_fields: Mapping[str, str] = field(default_factory=dict)
    can_lock: bool = True
    has_schemas: bool = False
    takes_seed: bool = False
    client_extra: str = ""
    change_nouns: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def module_name(self, role: str) -> str:
        """The name of the store's module of this role, such as `bootstrapper`."""
        return f"{__package__}.{self.name}.{role}"

    def is_declared_in(self, blueprint: object) -> bool:
        """Whether a blueprint declares something about this store."""
        return any(getattr(blueprint, name) not in (None, ()) for name in self.declared_by)
