"""A class for each table, mapped by SQLAlchemy's imperative mapping, with relationships in both directions.

The tables are those of `tables`; the classes add nothing to them. A reference is named by its column without `_id`, a
parent of its own kind is `parent` and has `children`. The other side is named by the table that refers, and by the
reference too (`task_dependencies_by_source_task`) where one table refers twice. What hangs on a row is deleted by the
database.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKeyConstraint, Table
from sqlalchemy.orm import registry, relationship

from is_db_bootstrap.blueprints.mplp.tables import metadata


class Entity:
    """A row; columns are given by name."""

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
    """A task of a plan; tasks nest through parent_task_id."""


class MplpTaskDependency(Entity):
    """An ordering between two tasks."""


class MplpMilestone(Entity):
    """A dated goal of a plan."""


class MplpFailureResolver(Entity):
    """How failures of a plan, or of one task, are handled."""


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
    """An event about a role; insert only."""


class MplpConfirmation(Entity):
    """A request for confirmation."""


class MplpApprovalWorkflow(Entity):
    """The approval workflow of a confirmation."""


class MplpApprovalStep(Entity):
    """One step of an approval workflow."""


class MplpEscalationRule(Entity):
    """When and to whom a workflow escalates."""


class MplpAuditTrail(Entity):
    """An event about a confirmation; insert only."""


class MplpConfirmAttachment(Entity):
    """A file attached to a confirmation."""


class MplpTrace(Entity):
    """A trace of something that happened."""


class MplpTraceEvent(Entity):
    """An event inside a trace; insert only."""


class MplpPerformanceMetric(Entity):
    """Measured resource use of a trace."""


class MplpContextSnapshot(Entity):
    """State of the context at the time of a trace; insert only."""


class MplpErrorInformation(Entity):
    """An error recorded with a trace; insert only."""


class MplpDecisionLog(Entity):
    """A decision recorded with a trace; insert only."""


class MplpTraceCorrelation(Entity):
    """A relation between two traces; insert only."""


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
    """Another extension an extension needs; insert only."""


class MplpExtensionExecution(Entity):
    """One run of an extension; insert only."""


#: Table to the class of its rows.
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


def _twice(table: Table, key: ForeignKeyConstraint) -> bool:
    return sum(k.referred_table is key.referred_table for k in table.foreign_key_constraints) > 1


def _relationships(table: Table) -> dict[str, Any]:
    """The references of a table; each also gives the other side its name."""
    found = {}
    for key in table.foreign_key_constraints:
        column = key.column_keys[0]
        own = key.referred_table is table
        name = "parent" if own else column.removesuffix("_id")
        children = "children" if own else table.name.removeprefix("mplp_") + (f"_by_{name}" if _twice(table, key) else "")
        alone = any(index.unique and index.columns.keys() == [column] for index in table.indexes)
        target = key.elements[0].column
        found[name] = relationship(
            ENTITIES[key.referred_table.name],
            foreign_keys=[table.c[column]],
            primaryjoin=table.c[column] == target if not own else None,
            remote_side=[target] if own else None,
            back_populates=children,
        )
        _sides.setdefault(key.referred_table.name, {})[children] = relationship(
            ENTITIES[table.name],
            foreign_keys=[table.c[column]],
            primaryjoin=table.c[column] == target if not own else None,
            remote_side=[table.c[column]] if own else None,
            back_populates=name,
            passive_deletes="all",
            uselist=not alone,
        )
    return found


_sides: dict[str, dict[str, Any]] = {}
_references = {name: _relationships(table) for name, table in metadata.tables.items()}
for _name, _entity in ENTITIES.items():
    mapped.map_imperatively(_entity, metadata.tables[_name], properties=_references[_name] | _sides.get(_name, {}))
