"""Taking the files of applied revisions for reviewed: `migrate accept`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import AccessDenied, StoreConflict
from is_db_bootstrap.results import Change, Nature, Plan
from is_db_bootstrap.sentences import end_sentence
from is_db_bootstrap.stores.postgres import lineage_table, own_schema, revision_digests
from is_db_bootstrap.stores.postgres.moves import Move
from is_db_bootstrap.stores.postgres.named_revisions import known

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl
    from is_db_bootstrap.stores.postgres.change_run import Step
    from is_db_bootstrap.stores.postgres.revisions import Record

#: The kind of change that records the digest of a file.
ACCEPT = "accept"


class Accept(Move):
    """Record the files of the applied `revisions` as they are now. Nothing else is changed.

    Without `revisions`: of all applied revisions whose files were edited, or of which nothing is
    recorded. Raises `StoreConflict` for a revision that is not applied, for a named one whose file
    cannot be read, and for a schema of a newer version, whose files may be others.
    """

    def __init__(
        self,
        url: StoreUrl | str,
        blueprint: Blueprint,
        revisions: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(url, blueprint, "", **options)
        self._revisions = tuple(revisions)

    def _planned(self) -> Plan:
        record = self._place.history.read(self._existing())
        self._place.history.refuse_other_blueprint(record)
        self._refuse_newer(record)
        applied = revision_digests.applied(record, self._chain)
        unread = [name for name in applied if not self._chain.digests.get(name)]
        named = [known(self._chain, each) for each in self._revisions]
        for name in named:
            if name not in applied:
                raise self._not_applied(name, record.revisions)
            if name in unread:
                raise self._unread(name)
        wanted = named or [name for name in applied if name not in unread]
        edited = {each.revision for each in revision_digests.edited(record, self._chain)}
        unknown = revision_digests.unknown(record, self._chain)
        return Plan(
            tuple(
                Change(name, ACCEPT, "the file as it is now", Nature.ATOMIC)
                for name in applied
                if name in wanted and (name in edited or name in unknown)
            ),
            notes=() if named else tuple(self._unread(name).message for name in unread),
        )

    def _refuse_newer(self, record: Record) -> None:
        """Raise `StoreConflict` for a schema at a revision that this version does not have."""
        is_known = all(revision in self._chain.parents for revision in record.revisions)
        if is_known or not self._place.history.is_ahead(record):
            return
        newer = ", ".join(name for name in record.revisions if name not in self._chain.parents)
        error = self._place.history.conflict(
            f"is at revision {newer}, newer than this version, whose files of older revisions may "
            "be others"
        )
        error.hint = f"Accept with the version of the blueprint that has {newer}."
        raise error

    def _unread(self, name: str) -> StoreConflict:
        return StoreConflict(
            self.name,
            f"The file of revision {name} cannot be read, so nothing is recorded of it.",
            hint="Let this user read the file, and accept it again.",
            subject=name,
        )

    def _not_applied(self, name: str, recorded: Sequence[str]) -> StoreConflict:
        at = ", ".join(recorded) or "nothing"
        return StoreConflict(
            self.name,
            f"Revision {name} does not count as applied here, where {at} is recorded, so there is "
            "nothing to accept.",
            subject=name,
        )

    def _more_steps(self) -> Mapping[str, Step]:
        return {ACCEPT: self._accept}

    def _accept(self, change: Change) -> str | None:
        reader = self._sessions.reader()
        self._place.history.write_digests(reader, [change.name])
        record = self._place.history.read(reader)
        if record.digests.get(change.name) != self._chain.digests.get(change.name):
            row = reader.execute("SELECT current_user::text").fetchone()
            role = str(row[0]) if row else "this role"
            raise AccessDenied(
                self.name,
                f"The digest of {change.name} is not recorded, because {role} may not write "
                f"{lineage_table.PLACE}.",
                hint=end_sentence(
                    "Let an administrator run: " + own_schema.remedy(role, has_schema=True)
                ),
                subject=change.name,
            )
        return None
