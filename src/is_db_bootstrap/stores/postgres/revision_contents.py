"""What a generated revision has: Alembic's operations, and the statements that Alembic lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from is_db_bootstrap.stores.postgres.differences import DANGER_OF_DROP, Difference
from is_db_bootstrap.stores.postgres.models import Models, together
from is_db_bootstrap.stores.postgres.named_types import (
    create_statement,
    drop_statement,
    missing_types,
    place_of,
)
from is_db_bootstrap.stores.postgres.operations import (
    Operation,
    described,
    mark_dangers,
    without_drops,
)
from is_db_bootstrap.stores.postgres.statements import Remark, Statement


@dataclass(slots=True)
class Contents:
    """Arranges what Alembic has found, when Alembic is about to write it.

    `additions` are written besides. With `only_postgres`, the revision makes enums and domains by
    statements of its own; without, it stays one that runs on other databases too. Afterwards
    `operations` tells what is written or left out, and `metadata` is that of the models.
    """

    allow_drops: bool = False
    only_postgres: bool = True
    #: What comes before everything, with what undoes it, such as a schema and an extension.
    ground: Sequence[tuple[str, str]] = ()
    additions: Sequence[Difference] = ()
    operations: list[Operation] = field(default_factory=list)
    created_types: set[str] = field(default_factory=set)
    metadata: Models | None = None

    def fill(self, context: Any, script: Any) -> None:
        """Arrange the operations of `script`. `context` is Alembic's `MigrationContext`."""
        self.metadata = together(context.opts["target_metadata"])
        up, down = script.upgrade_ops, script.downgrade_ops
        left_out = [] if self.allow_drops else without_drops(up)
        told = list(described(up))
        up.reverse_into(down)
        mark_dangers(up)
        if self.only_postgres:
            told = [*self._make_types(context.connection, up, down), *told]
        self._add(up, down)
        up.ops[:0] = [Statement(make) for make, _ in self.ground]
        down.ops += [Statement(undo) for _, undo in reversed(self.ground)]
        self.operations = [*told, *(each.operation() for each in self.additions), *left_out]

    def _make_types(self, connection: Any, up: Any, down: Any) -> list[Operation]:
        """Make each new type before the tables, and drop it after them."""
        made = missing_types(up, connection)
        self.created_types |= {place_of(named) for named in made}
        up.ops[:0] = [Statement(create_statement(named)) for named in made]
        down.ops += [Statement(drop_statement(named)) for named in reversed(made)]
        return [Operation("create type", place_of(named).replace('"', "")) for named in made]

    def _add(self, up: Any, down: Any) -> None:
        """Values of enums come first: what Alembic has found may need them."""
        enums = [each for each in self.additions if each.kind == "enum"]
        others = [each for each in self.additions if each.kind != "enum"]
        up.ops[:0] = [Statement(sql) for each in enums for sql in each.up]
        for each in others:
            if each.declared is None:
                up.ops.append(Remark(f"Look at this: {DANGER_OF_DROP}."))
            up.ops += [Statement(sql) for sql in each.up]
        down.ops[:0] = [Statement(sql) for each in reversed(others) for sql in each.down]
        down.ops += [Statement(sql) for each in reversed(enums) for sql in each.down]
