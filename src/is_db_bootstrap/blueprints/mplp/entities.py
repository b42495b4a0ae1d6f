"""One class per table, mapped by SQLAlchemy's imperative mapping.

The classes have the columns of the tables in `tables` and a relationship for every reference, in
both directions. The relationships are named as follows:

* A reference bears the name of its column without `_id`, such as `context` for `context_id`. The
  other side bears the name of the referring table without `mplp_`, such as `tasks`.
* When a table refers twice to the same table, the other side adds the name of the reference, as in
  `task_dependencies_by_source_task`.
* A reference of a table to itself is called `parent`, and its other side `children`.

The database deletes the rows that depend on a deleted row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, Table
from sqlalchemy.orm import registry, relationship

from is_db_bootstrap.blueprints.mplp.tables import metadata


class Entity:
    """A row of a table.

    Columns and relationships are given to the constructor by name. Raises `TypeError` for an
    unknown name.
    """

    def __init__(self, **columns: Any) -> None:
        for name, value in columns.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no column or relationship {name!r}.")
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no column or relationship {name!r}.")


class MplpContext(Entity):
    """A context: the shared frame in which agents work."""


class MplpSharedState(Entity):
    """One named value shared inside a context."""


class MplpContextSession(Entity):
    """A user or agent session inside a context."""


class MplpPlan(Entity):
    """A plan of work inside a context."""


class MplpTask(Entity):
    """A task of a plan. Tasks nest through `parent_task_id`."""


class MplpTaskDependency(Entity):
    """An ordering between two tasks."""


class MplpMilestone(Entity):
    """A dated goal of a plan."""


class MplpFailureResolver(Entity):
    """The way in which failures of a plan, or of one task, are handled."""


class MplpFailure(Entity):
    """A recorded failure of a task."""


class MplpRole(Entity):
    """A role that users and agents can hold."""


class MplpPermission(Entity):
    """A permission granted to a role."""


class MplpRoleInheritance(Entity):
    """A role that takes over permissions of another role."""


class MplpRoleDelegation(Entity):
    """Permissions of a role handed to someone for a time."""


class MplpUserRoleAssignment(Entity):
    """A role held by a user."""


class MplpRoleAuditLog(Entity):
    """An event about a role. Rows are only inserted."""


class MplpConfirmation(Entity):
    """A request for confirmation."""


class MplpApprovalWorkflow(Entity):
    """The approval workflow of a confirmation."""


class MplpApprovalStep(Entity):
    """One step of an approval workflow."""


class MplpEscalationRule(Entity):
    """A rule that says when and to whom a workflow escalates."""


class MplpAuditTrail(Entity):
    """An event about a confirmation. Rows are only inserted."""


class MplpConfirmAttachment(Entity):
    """A file attached to a confirmation."""


class MplpTrace(Entity):
    """A trace of something that happened."""


class MplpTraceEvent(Entity):
    """An event inside a trace. Rows are only inserted."""


class MplpPerformanceMetric(Entity):
    """Measured resource use of a trace."""


class MplpContextSnapshot(Entity):
    """State of the context at the time of a trace. Rows are only inserted."""


class MplpErrorInformation(Entity):
    """An error recorded with a trace. Rows are only inserted."""


class MplpDecisionLog(Entity):
    """A decision recorded with a trace. Rows are only inserted."""


class MplpTraceCorrelation(Entity):
    """A relation between two traces. Rows are only inserted."""


class MplpExtension(Entity):
    """An installed extension."""


class MplpExtensionPoint(Entity):
    """A place where an extension hooks in."""


class MplpApiExtension(Entity):
    """An endpoint added by an extension."""


class MplpEventSubscription(Entity):
    """A subscription of an extension to events."""


class MplpExtensionLifecycle(Entity):
    """Counters and health of an extension."""


class MplpExtensionDependency(Entity):
    """Another extension that an extension needs. Rows are only inserted."""


class MplpExtensionExecution(Entity):
    """One run of an extension. Rows are only inserted."""


#: The name of each table and the class of its rows.
ENTITIES: dict[str, type[Entity]] = {
    "mplp_contexts": MplpContext,
    "mplp_shared_states": MplpSharedState,
    "mplp_context_sessions": MplpContextSession,
    "mplp_plans": MplpPlan,
    "mplp_tasks": MplpTask,
    "mplp_task_dependencies": MplpTaskDependency,
    "mplp_milestones": MplpMilestone,
    "mplp_failure_resolvers": MplpFailureResolver,
    "mplp_failures": MplpFailure,
    "mplp_roles": MplpRole,
    "mplp_permissions": MplpPermission,
    "mplp_role_inheritance": MplpRoleInheritance,
    "mplp_role_delegations": MplpRoleDelegation,
    "mplp_user_role_assignments": MplpUserRoleAssignment,
    "mplp_role_audit_logs": MplpRoleAuditLog,
    "mplp_confirmations": MplpConfirmation,
    "mplp_approval_workflows": MplpApprovalWorkflow,
    "mplp_approval_steps": MplpApprovalStep,
    "mplp_escalation_rules": MplpEscalationRule,
    "mplp_audit_trails": MplpAuditTrail,
    "mplp_confirm_attachments": MplpConfirmAttachment,
    "mplp_traces": MplpTrace,
    "mplp_trace_events": MplpTraceEvent,
    "mplp_performance_metrics": MplpPerformanceMetric,
    "mplp_context_snapshots": MplpContextSnapshot,
    "mplp_error_information": MplpErrorInformation,
    "mplp_decision_logs": MplpDecisionLog,
    "mplp_trace_correlations": MplpTraceCorrelation,
    "mplp_extensions": MplpExtension,
    "mplp_extension_points": MplpExtensionPoint,
    "mplp_api_extensions": MplpApiExtension,
    "mplp_event_subscriptions": MplpEventSubscription,
    "mplp_extension_lifecycles": MplpExtensionLifecycle,
    "mplp_extension_dependencies": MplpExtensionDependency,
    "mplp_extension_executions": MplpExtensionExecution,
}

mapped = registry(metadata=metadata)


@dataclass(frozen=True, slots=True)
class _Reference:
    """One foreign key of one column, and the names of its two relationships."""

    #: The table that refers and its column.
    table: Table
    column: Column[Any]
    #: The column that the foreign key refers to.
    target: Column[Any]
    #: The relationship on the side of the referring table.
    name: str
    #: The relationship on the side of the table referred to.
    back_name: str

    @classmethod
    def of_key(cls, table: Table, key: ForeignKeyConstraint) -> _Reference:
        """The reference of a foreign key of `table`."""
        column = table.c[key.column_keys[0]]
        target = key.elements[0].column
        if key.referred_table is table:
            return cls(table, column, target, "parent", "children")
        name = column.name.removesuffix("_id")
        back_name = table.name.removeprefix("mplp_")
        if _refers_twice(table, key.referred_table):
            back_name += f"_by_{name}"
        return cls(table, column, target, name, back_name)

    @property
    def is_to_itself(self) -> bool:
        """Whether the table refers to itself."""
        return self.target.table is self.table

    @property
    def is_unique(self) -> bool:
        """Whether at most one row refers to each row of the target."""
        return any(
            index.unique and index.columns.keys() == [self.column.name]
            for index in self.table.indexes
        )

    def forward_relationship(self) -> Any:
        """From the referring row to the row that it refers to."""
        return relationship(
            ENTITIES[self.target.table.name],
            foreign_keys=[self.column],
            primaryjoin=self._join_condition(),
            remote_side=[self.target] if self.is_to_itself else None,
            back_populates=self.back_name,
        )

    def back_relationship(self) -> Any:
        """From a row to the rows that refer to it, or to the only row that may."""
        return relationship(
            ENTITIES[self.table.name],
            foreign_keys=[self.column],
            primaryjoin=self._join_condition(),
            remote_side=[self.column] if self.is_to_itself else None,
            back_populates=self.name,
            passive_deletes="all",
            uselist=not self.is_unique,
        )

    def _join_condition(self) -> Any:
        """None lets SQLAlchemy find the condition, which it does for a table and itself."""
        return None if self.is_to_itself else self.column == self.target


def _refers_twice(table: Table, referred: Table) -> bool:
    keys = [key for key in table.foreign_key_constraints if key.referred_table is referred]
    return len(keys) > 1


def _all_relationships() -> dict[str, dict[str, Any]]:
    """The relationships of each table by name, in both directions."""
    found: dict[str, dict[str, Any]] = {name: {} for name in metadata.tables}
    for table in metadata.tables.values():
        for key in table.foreign_key_constraints:
            reference = _Reference.of_key(table, key)
            target = key.referred_table.name
            found[table.name][reference.name] = reference.forward_relationship()
            found[target][reference.back_name] = reference.back_relationship()
    return found


_relationships = _all_relationships()
for _name, _entity in ENTITIES.items():
    mapped.map_imperatively(
        _entity,
        metadata.tables[_name],
        properties=_relationships[_name],
    )
