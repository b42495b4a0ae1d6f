"""Moves along the chain other than up to its head: up to a revision, down, and by decree.

Each is the PostgreSQL store with another plan, so the run that applies it waits, locks, looks again
and reports as always.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg

from is_db_bootstrap.errors import (
    ConfigurationError,
    StoreConflict,
)
from is_db_bootstrap.results import Change, Drift, Nature, Plan, RecordChange
from is_db_bootstrap.stores.postgres.begun import BASELINE
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.stores.postgres.errors import DatabaseMissing
from is_db_bootstrap.stores.postgres.named_revisions import (
    HEADS,
    is_simple,
    known,
    named_revisions,
)
from is_db_bootstrap.stores.postgres.stamped import record_change

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.change_run import Step
    from is_db_bootstrap.stores.postgres.revision_syntax import RevisionSyntax
    from is_db_bootstrap.stores.postgres.revisions import Chain, Record

#: Rows are counted so far, and no further.
COUNTED = 10_000
#: How what happens to rows that are only read begins.
READ = "read"
#: So many digits name the revision whose id they begin, fewer are a number of steps.
LEAST_BEGINNING = 4
#: A number of steps from what is recorded, as in `+2` or `billing@+2`.
_STEPS_UP = re.compile(r"(.*@)?\+\d+")


@dataclass(frozen=True, slots=True)
class Loss:
    """A table, or a column of one, whose rows a downgrade would lose or change.

    `rows` is how many, None when they could not be counted: `why` has the reason then. At `COUNTED`
    the count ended. `how` is empty for what is dropped, else what happens to the rows. `sent_by`
    names the revisions, their files and their statements, where it is a statement on rows. `kind`
    is `sequence` for a sequence that goes and was used: `rows` is 1 then.
    """

    table: str
    rows: int | None
    column: str = ""
    how: str = ""
    why: str = ""
    sent_by: tuple[str, ...] = ()
    kind: str = "table"

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"{self.kind} {self.table}"
        if self.kind == "sequence" and self.rows:
            return f"{what} (was used)"
        if self.rows is None:
            counted = f"rows could not be counted: {self.why}"
        elif self.rows >= COUNTED:
            counted = f"{COUNTED} rows or more"
        else:
            counted = f"{self.rows} row{'' if self.rows == 1 else 's'}"
        return f"{what} ({f'{self.how}, ' if self.how else ''}{counted})"


class RowsWouldBeLost(StoreConflict):
    """A downgrade would lose or change rows, or it cannot be found out whether it would.

    `losses` names the tables and columns, also those whose rows could not be counted. `unknown` has
    a sentence for each thing that could not be found out. `undone` are the revisions that were
    undone before this came up; otherwise nothing was changed. `to` is where the downgrade is to
    end: a revision or `base`, not a number of steps, unless it ends between the branches of a
    merge: then the steps that are left, such as `-1`.
    """

    def __init__(
        self,
        store: str,
        losses: Sequence[Loss],
        unknown: Sequence[str] = (),
        *,
        undone: Sequence[str] = (),
        to: str = "",
    ) -> None:
        super().__init__(
            store,
            " ".join([*_told(losses), *unknown]),
            subject=losses[0].table if losses else "",
            hint="Say --yes (drop_rows=True) to downgrade all the same.",
        )
        self.losses = tuple(losses)
        self.unknown = tuple(unknown)
        self.undone = tuple(undone)
        self.to = to

    @property
    def changed(self) -> str:
        """What was changed before it was asked, as a sentence."""
        if not self.undone:
            return "Nothing was changed."
        return (
            f"{', '.join(self.undone)} had been undone before, without a loss. Nothing else was "
            "changed."
        )


def _told(losses: Sequence[Loss]) -> Iterator[str]:
    """Sentences on what would be lost, what would be changed, and what could be."""
    dropped = [str(loss) for loss in losses if not loss.how]
    read = [str(loss) for loss in losses if loss.how.startswith(READ)]
    changed = [str(loss) for loss in losses if loss.how and not loss.how.startswith(READ)]
    if dropped:
        yield f"The downgrade would drop {', '.join(dropped)}."
    if changed:
        yield f"The downgrade would change rows of {', '.join(changed)}."
    if read:
        yield f"What the downgrade does may depend on rows of {', '.join(read)}."
    sent = dict.fromkeys(each for loss in losses for each in loss.sent_by)
    if sent:
        yield f"Sent by {'; '.join(sent)}."


def undone_down_to(target: str, chain: Chain, done: Sequence[str], store: str) -> list[str]:
    """Which of the revisions `done` a downgrade to `target` undoes, the newest first.

    `target` is `base`, a revision, or `-N`. Raises `StoreConflict` for a revision that is not
    applied.
    """
    newest_first = list(reversed(done))
    if target == "base":
        return newest_first
    if re.fullmatch(r"-\d+", target):
        return newest_first[: -int(target)]
    revision = known(chain, target)
    if revision not in done:
        raise StoreConflict(
            store,
            f"Revision {revision} is not applied, so nothing can be undone down to it.",
            hint=f"The schema is at {done[-1] if done else 'base'}.",
        )
    kept = chain.until([revision])
    return [each for each in newest_first if each not in kept]


def end_of(chain: Chain, kept: Sequence[str], steps: int) -> str:
    """Where a downgrade of `steps` revisions ends that leaves `kept`, as a target of a downgrade.

    Between the branches of a merge no revision names it, so it is the number of steps, as in `-2`.
    """
    heads = chain.heads(kept)
    if len(heads) > 1:
        return f"-{steps}"
    return heads[0] if heads else "base"


class Move(PostgreSQLBootstrapper):
    """What moves share: a database that must exist, no demo rows, nothing to verify afterwards.

    A `target` may be all that Alembic's commands take, such as `branch@head`.
    """

    #: Nothing is compared after a move, so nothing is left out.
    tells_gap = False

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        target: str,
        *,
        timing: Timing,
        schema: str | None,
        ignored_version_tables: Sequence[str] = (),
        unknown_is_ahead: bool = False,
    ) -> None:
        super().__init__(
            url,
            blueprint,
            timing=timing,
            schema=schema,
            ignored_version_tables=ignored_version_tables,
            unknown_is_ahead=unknown_is_ahead,
        )
        self._target = target

    @property
    def _syntax(self) -> RevisionSyntax:
        """What only Alembic can resolve."""
        from is_db_bootstrap.stores.postgres.revision_syntax import RevisionSyntax

        return RevisionSyntax(self._blueprint, self._chain)

    def verify(self) -> Sequence[Drift]:
        """Nothing: a schema that is not at its head has no declared state."""
        return []

    def audit(self) -> Sequence[Drift]:
        """Nothing, for the same reason."""
        return []

    def _existing(self) -> psycopg.Connection[Any]:
        try:
            return self._sessions.reader()
        except DatabaseMissing as exc:
            raise self._no_database() from exc

    def _no_database(self) -> StoreConflict:
        return StoreConflict(
            self.name,
            f"Database {self._url.database} of {self.target} does not exist.",
            subject=self._url.database,
            hint=f"Run: is-db-bootstrap migrate init --blueprint {self._blueprint.name}",
        )


class Upgrade(Move):
    """Up to `target`: `head`, a revision, `+N` steps, or what else Alembic's command takes.

    A revision that was passed already changes nothing. `head` and `heads` are all heads. An empty
    database is filled by the declared baseline first, from where steps count. Raises
    `StoreConflict` for a target that the baseline would go beyond.
    """

    def _planned(self) -> Plan:
        reader = self._existing()
        found = super()._planned()
        of_kind = {
            kind: [change for change in found.changes if change.kind == kind]
            for kind in ("schema", BASELINE, "revision")
        }
        baseline = of_kind[BASELINE]
        recorded = self._pending.after(baseline, self._place.history.read(reader)).revisions
        if baseline:
            self._refuse_before(baseline[0], recorded)
        wanted = [*baseline, *self._wanted(of_kind["revision"], recorded)]
        schema = of_kind["schema"] if wanted else []
        return replace(found, changes=(*schema, *wanted))

    def _wanted(self, pending: Sequence[Change], recorded: Sequence[str]) -> list[Change]:
        if self._target in HEADS:
            return list(pending)
        if self._team is None and re.fullmatch(r"\+\d+", self._target):
            return list(pending[: int(self._target)])
        passed = self._passed(recorded)
        return [c for c in pending if c.name in passed]

    def _passed(self, recorded: Sequence[str]) -> frozenset[str]:
        """The revisions that an upgrade from the `recorded` ones to the target is about."""
        if is_simple(self._chain, self._target):
            return frozenset(self._chain.until([known(self._chain, self._target)]))
        return self._syntax.above(self._target, recorded)

    def _refuse_before(self, baseline: Change, heads: Sequence[str]) -> None:
        """Refuse a target before the revisions `heads`, which the baseline leads to."""
        if self._target in HEADS or _STEPS_UP.fullmatch(self._target):
            return
        if self._passed(()) < {*self._chain.until(heads)}:
            at = ", ".join(heads)
            raise StoreConflict(
                self.name,
                f"{self.target} is empty, so the baseline {baseline.name} fills it, which makes "
                f"all that leads to {at}. {self._target} is before that.",
                hint=f"Upgrade to {heads[0]}, or to a later revision.",
                subject=self._target,
            )


class Stamp(Move):
    """Record `target` (`heads`, `base` or a revision) as applied, and change nothing else.

    In a team's own version table, branches that have nothing to do with the revision stay.
    """

    #: What the last plan has found to change.
    record_change = RecordChange()

    def _planned(self) -> Plan:
        reader = self._existing()
        record = self._place.history.read(reader)
        self._place.history.refuse_other_blueprint(record)
        is_known = all(revision in self._chain.parents for revision in record.revisions)
        # What has gone another way up to a known revision may be recorded anew.
        if not is_known and self._place.history.is_ahead(record):
            raise self._place.history.conflict(
                f"is at revision {', '.join(record.revisions)}, newer than this version"
            )
        wanted = named_revisions(self._blueprint, self._chain, self._target)
        if self._team is not None:
            from is_db_bootstrap.stores.postgres.team_stamp import heads_after

            wanted = heads_after(self._chain, record.revisions, wanted)
            self._pending.refuse_long_ids(reader, [_stamped(each) for each in wanted])
        schema = self._place.checked_schema(reader)
        marked = self._place.history.marked(record)
        self.record_change = record_change(
            self._chain,
            self._applied(record),
            record.revisions,
            wanted,
            [mark.step for mark in marked],
        )
        is_clear = not marked
        is_recorded = record.lineage == self._chain.until(wanted)
        if wanted == record.revisions and is_recorded and is_clear:
            return Plan()
        return Plan((*schema, _stamped(", ".join(wanted) or "base")))

    def _more_steps(self) -> Mapping[str, Step]:
        return {"stamp": self._apply_stamp}

    def _applied(self, record: Record) -> tuple[str, ...]:
        """The revisions that count as applied, by what led to the record if that is known."""
        parents = self._chain.parents
        if record.lineage:
            return tuple(each for each in record.lineage if each in parents)
        return self._chain.until([each for each in record.revisions if each in parents])

    def _apply_stamp(self, change: Change) -> str | None:
        if self._team is None:
            return self._place.revision_steps.run(change, "stamp", change.name)
        from is_db_bootstrap.stores.postgres.team_stamp import stamp as stamp_team

        heads = tuple(change.name.split(", ")) if change.name != "base" else ()
        reader = self._sessions.reader()
        stamp_team(reader, self._place.history, self.target, heads, self._chain)
        self._place.revision_steps.confirm_stamped(change)
        return None


def _stamped(name: str) -> Change:
    return Change(name, "stamp", "recorded, nothing else", Nature.ATOMIC)


def parsed_steps(target: str | int, chain: Chain) -> str:
    """A target of `downgrade` in one form: `base`, a revision, or `-N`.

    Digits are a number of steps only where no id of `chain` is so written, as in Alembic, and none
    begins with them, of which `LEAST_BEGINNING` count. An integer always is a number of steps.
    A `ConfigurationError` for anything else.
    """
    text = str(target).strip()
    is_text = isinstance(target, str)
    is_beginning = len(text) >= LEAST_BEGINNING and any(r.startswith(text) for r in chain.order)
    if is_text and (text in chain.parents or is_beginning):
        return text
    if re.fullmatch(r"-?\d+", text):
        return f"-{text.lstrip('-')}"
    if not re.fullmatch(r"\w[\w.@+-]*", text):
        raise ConfigurationError(
            f"{text!r} is no target of a downgrade.",
            hint="Give a revision, base, or a number of steps.",
        )
    return text
