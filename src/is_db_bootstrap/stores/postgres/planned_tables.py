"""What earlier statements of a plan do to the tables, so that later ones are judged by it."""

from __future__ import annotations

from dataclasses import dataclass, field

from is_db_bootstrap.stores.postgres.sql_syntax import Name


@dataclass(slots=True)
class PlannedTable:
    """What a plan has done to one table so far.

    `live` is its name on the server now, or None when the plan creates it. `new_columns` says of
    each new column whether every row has a value in it. `is_written` when a statement writes rows.
    `constraints` are those that the plan adds, `not_valid` those of them that are not checked yet,
    and `not_null` the columns of which a checked constraint says that they hold no NULL. `renamed`
    has the live name of each column that the plan has renamed.
    """

    live: Name | None
    new_columns: dict[str, bool] = field(default_factory=dict)
    is_written: bool = False
    constraints: dict[str, object] = field(default_factory=dict)
    not_valid: dict[str, object] = field(default_factory=dict)
    not_null: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)

    def rename_column(self, old: str, new: str) -> None:
        """The plan gives a column another name."""
        if old in self.new_columns:
            self.new_columns[new] = self.new_columns.pop(old)
        else:
            self.renamed[new] = self.renamed.pop(old, old)
        if old in self.not_null:
            self.not_null.remove(old)
            self.not_null.add(new)

    def live_column(self, column: str) -> str:
        """The name that a column has on the server now."""
        return self.renamed.get(column, column)

    @property
    def is_new(self) -> bool:
        """Whether the plan creates the table."""
        return self.live is None


class PlannedTables:
    """The tables of a plan, as far as its statements were gone through.

    `code_ran` says that Python has run, which may have written any row.
    """

    def __init__(self) -> None:
        self._tables: dict[Name, PlannedTable] = {}
        self._indexes: set[Name] = set()
        #: The values of each enum that the plan creates.
        self._enums: dict[str, list[str]] = {}
        self.code_ran = False

    def table(self, name: Name) -> PlannedTable:
        """What is known of a table."""
        return self._tables.setdefault(name, PlannedTable(name))

    def create(self, name: Name) -> None:
        """The plan creates a table, or an object like one."""
        self._tables[name] = PlannedTable(None)

    def create_schema(self, name: str) -> None:
        """The plan creates a schema. It is kept as a table without a name."""
        self._tables[Name(name, "")] = PlannedTable(None)

    def is_new_schema(self, name: str) -> bool:
        """Whether the plan creates this schema."""
        return self.table(Name(name, "")).is_new

    def create_index(self, name: Name) -> None:
        """The plan creates an index."""
        self._indexes.add(name)

    def is_new_index(self, name: Name) -> bool:
        """Whether the plan creates an index of that name, in whatever schema."""
        return any(each.table == name.table for each in self._indexes)

    def create_enum(self, name: str, values: list[str]) -> None:
        """The plan creates an enum."""
        self._enums[name] = values

    def enum_values(self, name: str) -> list[str] | None:
        """The values of an enum that the plan creates. None for any other type."""
        return self._enums.get(name)

    def rename_type(self, old: str, new: str) -> None:
        """The plan gives a type another name."""
        if old in self._enums:
            self._enums[new] = self._enums.pop(old)

    def rename(self, old: Name, new: Name) -> None:
        """The plan gives a table another name or schema."""
        self._tables[new] = self.table(old)
        self._tables[old] = PlannedTable(None)

    def is_unsure(self, name: Name) -> bool:
        """Whether its rows may be others by then than they are now."""
        return self.code_ran or self.table(name).is_written
