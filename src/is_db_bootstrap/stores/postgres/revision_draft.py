"""A revision written from the models, and tried in scratch databases before anybody gets it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy.exc import DBAPIError

from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.stores.postgres.alembic import (
    downgrade,
    engine,
    failures_told,
    write_revision,
)
from is_db_bootstrap.stores.postgres.connection import connect, session_settings
from is_db_bootstrap.stores.postgres.differences import Comparison, Difference, Side
from is_db_bootstrap.stores.postgres.models_database import (
    ModelsUnmade,
    models_made,
    read_side,
)
from is_db_bootstrap.stores.postgres.operations import Operation
from is_db_bootstrap.stores.postgres.revision_contents import Contents
from is_db_bootstrap.stores.postgres.revision_folder import with_draft
from is_db_bootstrap.stores.postgres.scratch import (
    ScratchCursor,
    at_head,
    bring,
    file_texts,
    named_by_environment,
    new_database,
    read_catalogue,
)
from is_db_bootstrap.stores.postgres.scratch_path import path_schema_of

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing
    from is_db_bootstrap.stores.postgres.models import Models

#: How Alembic's own warning of a changed computed column begins.
_COMPUTED = "Computed default on "


@dataclass(frozen=True, slots=True)
class NewRevision:
    """What is asked for: the message, the id, and Alembic's template of the file's name."""

    message: str
    revision: str
    file_template: str
    allow_drops: bool = False


@dataclass(slots=True)
class Draft:
    """A revision in a folder that nobody else reads.

    `path` is None when there is nothing to write. `operations` are what the revision does, what it
    leaves out, and what a person has to write. `generated` are the texts of the files that go with
    it, by their paths. `place` is where the file belongs, if the draft knows that.
    """

    path: Path | None = None
    operations: list[Operation] = field(default_factory=list)
    generated: dict[Path, str] = field(default_factory=dict)
    place: Path | None = None


def draft_from_models(
    url: StoreUrl,
    blueprint: Blueprint,
    timing: Timing,
    wanted: NewRevision,
    folder: Path,
    *,
    warn: Callable[[str], None] = lambda _: None,
) -> Draft:
    """Write into `folder` what the models declare and the revisions lack.

    All of it happens in scratch databases on the server of `url`. The revision is applied, undone
    and applied again there. `warn` receives what could not be compared, what only the revisions
    make, and what the downgrade leaves. Raises what a run raises for a revision that fails, and
    `ConfigurationError` for models that cannot be loaded.
    """
    writer = DraftWriter(blueprint, timing, wanted, folder, warn)
    with at_head(url, blueprint, timing, warn) as head:
        return writer.written(head)


@dataclass(slots=True)
class DraftWriter:
    """Writes one draft. Each database that a method gets is a scratch one."""

    blueprint: Blueprint
    timing: Timing
    wanted: NewRevision
    folder: Path
    warn: Callable[[str], None]
    told: list[str] = field(default_factory=list)
    #: The models, in the place of those of the blueprint.
    models: MetaData | None = None
    #: What the revision makes first, with what undoes it.
    ground: Sequence[tuple[str, str]] = ()

    @property
    def is_portable(self) -> bool:
        """Whether the revisions also run on other databases than PostgreSQL."""
        return self.blueprint.portable

    def made_models(self, metadata: Models, head: StoreUrl) -> Side | ModelsUnmade:
        """What the models make by themselves."""
        return models_made(metadata, self.timing, head)

    def compared(self, side: Side) -> Side:
        """What of a database is compared."""
        return side

    def written(self, head: StoreUrl) -> Draft:
        """The draft, tried. Nobody else is connected to `head`."""
        draft, metadata = self.write(head, ())
        if metadata is None:
            return draft
        declared = self.made_models(metadata, head)
        if isinstance(declared, ModelsUnmade):
            self.warn(
                "What Alembic does not see (CHECKs, values of enums, computed columns, functions, "
                "triggers) was not compared: the models cannot be made by themselves: "
                f"{declared.reason}"
            )
            with self._with_draft_applied(head, draft.path) as trial:
                self._finish(head, trial, draft)
            return draft
        comparison = Comparison(metadata, self.compared(declared), Side({}, {}))
        with self._with_draft_applied(head, draft.path) as trial:
            additions, others = self._compared(trial, draft, comparison)
            draft.operations += others
            if not additions:
                self._finish(head, trial, draft)
                return draft
        if draft.path is not None:
            draft.path.unlink()
        draft, _ = self.write(head, additions)
        draft.operations += others
        with self._with_draft_applied(head, draft.path) as trial:
            self._tell_what_is_left(trial, draft, comparison)
            self._finish(head, trial, draft)
        return draft

    def write(self, head: StoreUrl, additions: Sequence[Difference]) -> tuple[Draft, Models | None]:
        """One run of Alembic over the database at head. It also returns what it has compared."""
        contents = Contents(
            allow_drops=self.wanted.allow_drops,
            only_postgres=not self.is_portable,
            additions=additions,
            ground=self.ground,
        )
        found = engine(head, path_schema_of(head), self.timing)
        try:
            with self.told_by_us():
                path = write_revision(
                    found,
                    self.blueprint,
                    self.wanted.message,
                    self.wanted.revision,
                    self.wanted.file_template,
                    folder=self.folder,
                    contents=contents,
                    models=self.models,
                    warn=self.warn_once,
                )
        finally:
            found.dispose()
        return Draft(path, contents.operations), contents.metadata

    @contextmanager
    def told_by_us(self) -> Iterator[None]:
        """Keep back what Alembic says of computed columns: the catalogues say it with the cure."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_COMPUTED)
            yield

    def warn_once(self, sentence: str) -> None:
        """Warn, unless that was said already."""
        if sentence not in self.told:
            self.told.append(sentence)
            self.warn(sentence)

    # --- what Alembic does not see

    def _compared(
        self, trial: StoreUrl, draft: Draft, comparison: Comparison
    ) -> tuple[list[Difference], list[Operation]]:
        """What can be written besides, and what a person has to write or what is left out."""
        comparison.made = self.compared(read_side(trial, self.timing))
        told = {each.subject for each in draft.operations}
        left = [each for each in comparison.differences() if each.name not in told]
        for sentence in comparison.beyond():
            self.warn(f"Only the revisions make: {sentence}")
        settings = session_settings("public")
        with connect(trial, self.timing.connect_timeout_s, settings=settings) as connection:
            return self._sorted_out(connection, left)

    def _tell_what_is_left(self, trial: StoreUrl, draft: Draft, comparison: Comparison) -> None:
        """Tell each difference that is there although its statements were written."""
        comparison.made = self.compared(read_side(trial, self.timing))
        told = {each.subject for each in draft.operations if each.by_hand or each.left_out}
        left = [each for each in comparison.differences() if each.name not in told]
        draft.operations += [each.operation(by_hand=True) for each in left]

    @contextmanager
    def _with_draft_applied(self, head: StoreUrl, path: Path | None) -> Iterator[StoreUrl]:
        """A scratch database that has the revision too. That is `head` when there is none."""
        if path is None:
            yield head
            return
        with self._copy(head) as trial, self.counted(path):
            bring(trial, self.blueprint, None, self.timing)
            yield trial

    @contextmanager
    def _copy(self, head: StoreUrl) -> Iterator[StoreUrl]:
        with (
            new_database(head, self.timing, template=head) as trial,
            named_by_environment(trial, self.timing),
        ):
            yield trial

    def counted(self, path: Path) -> Any:
        """Let the draft count as a revision of the blueprint's folder."""
        folder = self.blueprint.migrations
        return with_draft(folder, path) if folder else nullcontext()

    def _sorted_out(
        self, connection: psycopg.Connection[Any], left: Sequence[Difference]
    ) -> tuple[list[Difference], list[Operation]]:
        """Try the statements of each difference. What the server takes can be written."""
        is_dropped = [each for each in left if each.declared is None]
        kept = [] if self.wanted.allow_drops else is_dropped
        pending = [each for each in left if each.up and each not in kept]
        told = [each.operation(left_out=True) for each in kept]
        told += [each.operation(by_hand=True) for each in left if not each.up]
        if self.is_portable:
            reason = "the revision also runs on MariaDB and SQLite"
            told += [replace(e, reason=reason).operation(by_hand=True) for e in pending]
            return [], told
        additions: list[Difference] = []
        refused: dict[str, Difference] = {}
        with connection.transaction(force_rollback=True):
            while pending:
                taken = [each for each in pending if self._is_taken(connection, each, refused)]
                if not taken:
                    break
                additions += taken
                pending = [each for each in pending if each not in taken]
        told += [refused[each.name].operation(by_hand=True) for each in pending]
        return additions, told

    @staticmethod
    def _is_taken(
        connection: psycopg.Connection[Any], found: Difference, refused: dict[str, Difference]
    ) -> bool:
        """Whether the server takes the statements of a difference. Else `refused` says why not."""
        try:
            with connection.transaction():
                for statement in found.up:
                    connection.execute(statement.encode())
        except psycopg.Error as exc:
            reason = exc.diag.message_primary or str(exc)
            refused[found.name] = replace(found, reason=f"PostgreSQL refuses it: {reason}")
            return False
        return True

    # --- upgrade, downgrade, upgrade

    def _finish(self, head: StoreUrl, trial: StoreUrl, draft: Draft) -> None:
        """Note the files that go with the draft, which `trial` has, and try to undo it there."""
        if draft.path is None:
            return
        catalogue = read_catalogue(trial, self.blueprint, self.timing)
        draft.generated = file_texts(self.blueprint, catalogue, self.warn)
        self._try_downgrade(head, trial)

    def _try_downgrade(self, head: StoreUrl, trial: StoreUrl) -> None:
        """Undo the draft and apply it again. What fails is told: only a person can mend it."""
        step = "downgrade"
        try:
            self.undo(trial)
            left = _changed(read_side(head, self.timing), read_side(trial, self.timing))
            if left:
                self.warn(f"The downgrade does not bring back what was: {', '.join(left)}.")
            step = "upgrade after the downgrade"
            bring(trial, self.blueprint, None, self.timing)
        except (BootstrapError, psycopg.Error, DBAPIError) as exc:
            reason = str(getattr(exc, "orig", None) or exc).partition("\n")[0]
            self.warn(f"The {step} fails: {reason} Write it by hand.")

    def undo(self, trial: StoreUrl) -> None:
        """Undo the draft in a scratch database."""

        def opened(connection: psycopg.Connection[Any]) -> None:
            connection.cursor_factory = ScratchCursor

        found = engine(trial, path_schema_of(trial), self.timing, opened)
        try:
            with failures_told(self.blueprint):
                downgrade(found, self.blueprint, "public", self.wanted.revision)
        finally:
            found.dispose()


def _changed(before: Side, after: Side) -> list[str]:
    """Every object that is not as it was, in words."""
    return [
        f"{kind} {name if schema == 'public' else f'{schema}.{name}'}"
        for schema in {**before.objects, **after.objects}
        for kind in {**before.objects.get(schema, {}), **after.objects.get(schema, {})}
        for name in _differing(
            before.objects.get(schema, {}).get(kind, {}),
            after.objects.get(schema, {}).get(kind, {}),
        )
    ]


def _differing(before: Any, after: Any) -> list[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]
