"""What SQLAlchemy's models declare, in one metadata or in several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import MetaData, Table


class SeveralMetadata:
    """Several metadata, as `context.configure` takes them, to be looked at as one."""

    def __init__(self, several: Sequence[MetaData]) -> None:
        self._several = several

    @property
    def tables(self) -> Mapping[str, Table]:
        """The tables of all, by their full names."""
        return {name: table for each in self._several for name, table in each.tables.items()}

    def create_all(self, bind: Any) -> None:
        """Make the tables of all."""
        for each in self._several:
            each.create_all(bind)


Models = MetaData | SeveralMetadata


def together(found: MetaData | Sequence[MetaData] | None) -> Models | None:
    """What Alembic was given as `target_metadata`."""
    if found is None or isinstance(found, MetaData):
        return found
    return SeveralMetadata(found)
