"""The next revision of a team's own environment, as the team's Alembic would write it.

The team's `script.py.mako`, `file_template`, folders, branches and hooks hold, and so does what
`env.py` gives to `context.configure` in its offline branch. The comparison and the trial happen in
scratch databases, by our own environment and the team's driver (`team_trial`).
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alembic.autogenerate.api import RevisionContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory, write_hooks
from alembic.script.revision import RevisionMap
from alembic.util import load_python_file

from is_db_bootstrap import files
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.postgres.alembic import (
    config,
    failures_told,
    render_team_type,
    undo,
)
from is_db_bootstrap.stores.postgres.alembic_turn import running_alembic
from is_db_bootstrap.stores.postgres.differences import Difference, Side
from is_db_bootstrap.stores.postgres.models import Models, together
from is_db_bootstrap.stores.postgres.models_database import ModelsUnmade, models_made
from is_db_bootstrap.stores.postgres.own_schema import SCHEMA
from is_db_bootstrap.stores.postgres.revision_contents import Contents
from is_db_bootstrap.stores.postgres.revision_draft import Draft, DraftWriter, NewRevision
from is_db_bootstrap.stores.postgres.scratch import at_head
from is_db_bootstrap.stores.postgres.team_environment import (
    TeamEnvironment,
    as_before,
    read_environment,
    with_team_draft,
)
from is_db_bootstrap.stores.postgres.team_trial import TeamTrial, refusing_server_wide
from is_db_bootstrap.stores.postgres.team_watch import TeamWatch

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy.engine import Connection

    from is_db_bootstrap.blueprint import AlembicEnvironment, Blueprint
    from is_db_bootstrap.settings import StoreUrl, Timing

#: The partitions of a schema, and of every one that is on the search path.
_PARTITIONS = """
    SELECT n.nspname::text, c.relname::text FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relispartition
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new revision belongs, in the words of `alembic revision`.

    `head` is what it goes on from. With `splice`, that may be no head.
    """

    head: str = "head"
    splice: bool = False
    branch_label: str = ""
    version_path: str = ""
    depends_on: tuple[str, ...] = ()
    rev_id: str = ""

    def arguments(self, message: str) -> dict[str, Any]:
        """What Alembic's command is given."""
        return {
            "message": message or None,
            "sql": False,
            "head": self.head,
            "splice": self.splice,
            "branch_label": self.branch_label or None,
            "version_path": self.version_path or None,
            "rev_id": self.rev_id or None,
            "depends_on": list(self.depends_on) or None,
        }


class _DraftDirectory(ScriptDirectory):
    """The team's folder of scripts, which writes into another folder and runs our environment.

    `place` is where the last revision belongs. Its hooks run when it is there.
    """

    drafts = Path()
    place: Path | None = None

    @classmethod
    def of(cls, environment: TeamEnvironment, wanted: Config, drafts: Path) -> _DraftDirectory:
        """The folder of scripts of `environment`, whose new revisions lie in `drafts`."""
        wanted.set_main_option("script_location", str(environment.folder).replace("%", "%%"))
        made = ScriptDirectory.from_config(wanted)
        made.__class__ = cls  # Alembic makes its own class, whichever is asked
        found = cast("_DraftDirectory", made)
        found.drafts = drafts
        found.hooks = []
        # An env.py may have told `context.script` others.
        found.version_locations = [*map(str, environment.version_locations)]
        vars(found)["_version_locations"] = [*environment.version_locations]
        found.revision_map = RevisionMap(lambda: iter([*environment.fresh_scripts()]))
        return found

    def run_env(self) -> None:
        """Run our own environment."""
        load_python_file(str(files.root() / "migrations"), "env.py")

    def _rev_path(
        self,
        path: str | PathLike[str],
        rev_id: str,
        message: str | None,
        create_date: datetime,
    ) -> Any:
        self.place = Path(super()._rev_path(path, rev_id, message, create_date))
        return self.drafts / self.place.name

    def _ensure_directory(self, path: str | PathLike[str]) -> None:
        """Make no folder of the team's: a draft may never get there."""


def draft_team_revision(
    url: StoreUrl | None,
    blueprint: Blueprint,
    timing: Timing,
    message: str,
    *,
    where: Place,
    folder: Path,
    allow_drops: bool = False,
    warn: Callable[[str], None] = lambda _: None,
) -> Draft:
    """Write the next revision of a team's environment into `folder`.

    With the address of a server, it has what the models declare and the revisions lack, and is
    tried as `revision_draft` does. Without, it is empty. Raises as `draft_from_models` does.
    """
    declared = _declared(blueprint)
    environment = read_environment(declared)
    if url is None:
        writer = _EmptyWriter(environment, blueprint, where.arguments(message), folder)
        return writer.written()
    options = environment.captured().comparing_options
    if not options.get("target_metadata"):
        raise ConfigurationError(
            f"{environment.folder / 'env.py'} gives no target_metadata to context.configure in its "
            "offline branch, so there is nothing to compare with.",
            hint="Let both branches give the same options, or write an empty one: --empty.",
        )
    wanted = NewRevision(message, "", "", allow_drops)
    found = _TeamWriter(blueprint, timing, wanted, folder, warn, where=where, options=options)
    with at_head(url, blueprint, timing, warn) as head:
        return found.written(head)


def run_hooks(blueprint: Blueprint, path: Path) -> None:
    """Run the team's `post_write_hooks` on a revision, where it belongs."""
    environment = read_environment(_declared(blueprint))
    with failures_told(blueprint), running_alembic(), as_before():
        script = ScriptDirectory.from_config(environment.config())
        write_hooks._run_hooks(str(path), script.hooks)  # noqa: SLF001 - as Alembic itself does


def _declared(blueprint: Blueprint) -> AlembicEnvironment:
    if blueprint.alembic is None:
        raise TypeError(blueprint)
    return blueprint.alembic


@dataclass(slots=True)
class _EmptyWriter:
    """Writes a revision that has nothing but its frame."""

    environment: TeamEnvironment
    blueprint: Blueprint
    arguments: Mapping[str, Any]
    folder: Path

    def written(self) -> Draft:
        """The revision. No server is asked, and no `env.py` is run."""
        with failures_told(self.blueprint), running_alembic(), as_before():
            wanted = self.environment.config()
            wanted.cmd_opts = Namespace(quiet=True)  # Alembic would print the name of the file
            script = _DraftDirectory.of(self.environment, wanted, self.folder)
            found = RevisionContext(wanted, script, dict(self.arguments))
            paths = [Path(each.path) for each in found.generate_scripts() if each]
        return Draft(paths[0], place=script.place)


@dataclass(slots=True)
class _TeamWriter(DraftWriter):
    """Writes one draft of a team's revision. `options` are what `env.py` tells Alembic."""

    where: Place = field(default_factory=Place)
    options: Mapping[str, Any] = field(default_factory=dict)
    #: The id of the draft, which a hook of the team may have given.
    revision: str = ""

    @property
    def is_portable(self) -> bool:
        """Whether the revisions also run on SQLite, for which Alembic has its batches."""
        return bool(self.options.get("render_as_batch"))

    def write(self, head: StoreUrl, additions: Sequence[Difference]) -> tuple[Draft, Models | None]:
        """One run of Alembic over the database at head. It also returns what it has compared."""
        contents = Contents(
            allow_drops=self.wanted.allow_drops,
            only_postgres=not self.is_portable,
            additions=additions,
        )
        trial = TeamTrial(head, self.blueprint, self.timing, "public")
        with self.told_by_us(), failures_told(self.blueprint), running_alembic():
            draft = trial.work(lambda connection: self._run(connection, contents))
        return draft, contents.metadata

    def _run(self, connection: Connection, contents: Contents) -> Draft:
        environment = read_environment(_declared(self.blueprint))
        wanted = config(self.blueprint, "public", connection)
        wanted.attributes.update(
            options=self._comparing(connection),
            compares_models=True,
            created_types=contents.created_types,
            type_told=self.warn_once,
        )
        cast("Namespace", wanted.cmd_opts).quiet = True  # else Alembic prints the file's name
        script = _DraftDirectory.of(environment, wanted, self.folder)
        arranged = _Arranged(environment.captured().options or {}, contents)
        arguments = self.where.arguments(self.wanted.message)
        if self.revision:
            arguments["rev_id"] = self.revision  # a second run writes the same revision again
        made = RevisionContext(wanted, script, arguments, arranged)

        def compare(revision: Any, context: Any) -> list[Any]:
            made.run_autogenerate(revision, context)
            return []

        with EnvironmentContext(
            wanted,
            script,
            fn=compare,
            as_sql=False,
            template_args=made.template_args,
            revision_context=made,
        ):
            script.run_env()
        paths = [Path(each.path) for each in made.generate_scripts() if each]
        if not paths:
            return Draft(None, contents.operations)
        self.revision = str(made.generated_revisions[0].rev_id)
        return Draft(paths[0], contents.operations, place=script.place)

    def _comparing(self, connection: Connection) -> dict[str, Any]:
        """The team's options, with what autogenerate is to leave alone besides."""
        options = dict(self.options)
        options.setdefault("compare_server_default", False)
        options.setdefault("include_schemas", False)
        own_name = options.get("include_name")
        own_render = options.get("render_item")
        metadata = together(options["target_metadata"])
        tables = metadata.tables.values() if metadata else ()
        declared = {(each.schema, each.name) for each in tables}
        usual = connection.dialect.default_schema_name
        partitions = {
            (None if schema == usual else schema, name)
            for schema, name in connection.exec_driver_sql(_PARTITIONS)
        }
        connection.rollback()  # Alembic begins its own

        def include_name(name: Any, kind: str, parents: Any) -> bool:
            if kind == "schema" and name == SCHEMA:
                return False
            table = (parents.get("schema_name"), name)
            if kind == "table" and table in partitions and table not in declared:
                return False
            return True if own_name is None else bool(own_name(name, kind, parents))

        def render_item(kind: str, item: Any, context: Any) -> Any:
            found = own_render(kind, item, context) if own_render else False
            return render_team_type(kind, item, context) if found is False else found

        return options | {"include_name": include_name, "render_item": render_item}

    def made_models(self, metadata: Models, head: StoreUrl) -> Side | ModelsUnmade:
        """What the models make by themselves, by the team's driver."""

        def run_on(scratch: StoreUrl, act: Callable[[Connection], None]) -> None:
            def committed(connection: Connection) -> None:
                act(connection)
                connection.commit()

            TeamTrial(scratch, self.blueprint, self.timing, "public").work(committed)

        return models_made(metadata, self.timing, head, run_on)

    def compared(self, side: Side) -> Side:
        """A database without the tables that the team's `include_object` leaves out."""
        include = self.options.get("include_object")
        metadata = together(self.options["target_metadata"])
        if include is None or metadata is None:
            return side
        left_out: dict[str, set[str]] = {}
        reflected = False
        for table in metadata.tables.values():
            if not include(table, table.name, "table", reflected, None):
                left_out.setdefault(table.schema or "public", set()).add(table.name)
        return _without_tables(side, left_out)

    def counted(self, path: Path) -> AbstractContextManager[None]:
        """Let the draft count as a revision of the team's environment."""
        return with_team_draft(_declared(self.blueprint), path)

    def undo(self, trial: StoreUrl) -> None:
        """Undo the draft in a scratch database."""
        watch = TeamWatch(None)

        def act(connection: Connection) -> None:
            wanted = config(self.blueprint, "public", connection)
            wanted.attributes["watch"] = watch
            undo(wanted, self.revision)

        work = TeamTrial(trial, self.blueprint, self.timing, "public")
        with failures_told(self.blueprint), running_alembic(), refusing_server_wide(watch):
            work.work(act)


class _Arranged:
    """What is done with the operations that Alembic has found: the team's hook, then ours."""

    def __init__(self, options: Mapping[str, Any], contents: Contents) -> None:
        self._of_team = options.get("process_revision_directives")
        self._contents = contents

    def __call__(self, context: Any, revision: Any, directives: list[Any]) -> None:
        """Alembic's hook."""
        self._contents.metadata = together(context.opts["target_metadata"])
        first = directives[0]
        if self._of_team is not None:
            self._of_team(context, revision, directives)
        if not directives and self._contents.additions:
            directives[:] = [first]  # the hook knows nothing of what Alembic does not see
        if len(directives) > 1:
            raise ConfigurationError(
                "process_revision_directives of env.py makes several revisions at once.",
                hint="Write them by `alembic revision --autogenerate`, then run "
                "is-db-bootstrap revision --refresh.",
            )
        if directives:
            self._contents.fill(context, directives[0])
            if directives[0].upgrade_ops.is_empty():
                directives[:] = []


def _without_tables(side: Side, left_out: Mapping[str, set[str]]) -> Side:
    def kept(schema: str) -> Iterator[tuple[str, dict[str, str]]]:
        names = left_out.get(schema, set())
        for kind, objects in side.objects[schema].items():
            left = {
                name: text for name, text in objects.items() if name.partition(".")[0] not in names
            }
            yield kind, left

    return Side({schema: dict(kept(schema)) for schema in side.objects}, side.definitions)
