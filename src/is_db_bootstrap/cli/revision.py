"""`is-db-bootstrap revision`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from is_db_bootstrap.cli._answer import give_document, print_note
from is_db_bootstrap.cli._options import refuse_beside
from is_db_bootstrap.cli._output import print_line
from is_db_bootstrap.cli.migrate._options import Database, database_options
from is_db_bootstrap.errors import ConfigurationError

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.operations import Operation
    from is_db_bootstrap.stores.postgres.team_revision import Place


#: What is given for a database, and for the comparison with it.
_OF_DATABASE = ("url", "timeout", "use_local", "data_dir")
_OF_COMPARISON = ("allow_drops", "allow_server_wide", *_OF_DATABASE)
_OF_TEAM = ("head", "splice", "branch_label", "version_path", "depends_on", "rev_id")


@click.command("revision")
@refuse_beside("refresh", ("message", "cypher", "empty", "allow_drops", *_OF_TEAM))
@refuse_beside("cypher", ("empty", *_OF_COMPARISON, *_OF_TEAM))
@refuse_beside("empty", _OF_COMPARISON)
@database_options(may_have_no_files=True)
@click.option("--message", "-m", default="", help="What it does, such as 'add orders'.")
@click.option("--cypher", is_flag=True, help="The next Cypher file instead.")
@click.option("--empty", is_flag=True, help="Nothing but its frame. Needs no server.")
@click.option(
    "--refresh",
    is_flag=True,
    help="Only catalogue.json and schema.sql again, after a revision was written by hand.",
)
@click.option(
    "--allow-drops",
    is_flag=True,
    help="Also drop what the models do not declare. Without it, such a drop is told and left out.",
)
@click.option(
    "--allow-server-wide",
    is_flag=True,
    help="Let revisions act on the whole server, such as by CREATE ROLE. For a server that nobody "
    "else uses.",
)
@click.option("--head", default="", help="What the revision goes on from. Default: head.")
@click.option("--splice", is_flag=True, help="Let it go on from a revision that is no head.")
@click.option("--branch-label", default="", help="A label for its branch.")
@click.option("--version-path", default="", help="The folder of revisions in which it is written.")
@click.option("--depends-on", multiple=True, help="A revision that it needs. Repeatable.")
@click.option("--rev-id", default="", help="Its id, in the place of one that is made.")
def command(
    database: Database,
    *,
    message: str,
    cypher: bool,
    empty: bool,
    refresh: bool,
    allow_drops: bool,
    allow_server_wide: bool,
    **place: Any,
) -> int:
    """Write the next revision: what the models have and the revisions lack, or an empty one.

    The models are compared with a scratch database at head, on the server of --url or --local.
    Prints the files that were written, and on stderr each operation of the revision. No file is
    overwritten, and a failure leaves none.
    """
    from is_db_bootstrap import revision

    operations: list[Operation] = []
    warnings: list[str] = []
    blueprint = database.blueprint
    if refresh:
        written = revision.refresh(
            blueprint,
            database.settings,
            warnings.append,
            allow_server_wide=allow_server_wide,
        )
    elif cypher:
        written = [revision.cypher(blueprint, message)]
    elif blueprint.alembic is not None:
        written = revision.team(
            blueprint,
            message,
            None if empty else database.settings,
            _team_place(place),
            allow_drops=allow_drops,
            allow_server_wide=allow_server_wide,
            report=operations.append,
            warn=warnings.append,
        )
    else:
        _refuse_place(place)
        needs_server = not empty and blueprint.models
        written = revision.postgres(
            blueprint,
            message,
            database.settings if needs_server else None,
            allow_drops=allow_drops,
            allow_server_wide=allow_server_wide,
            report=operations.append,
            warn=warnings.append,
        )
    paths = [_short_path(path) for path in written]
    if give_document(_revision_document(paths, operations, warnings)):
        return 0
    for path in paths:
        print_line(path)
    _print_operations(operations)
    for warning in warnings:
        print_note(warning)
    if not paths:
        _print_no_difference(operations)
    elif len(paths) == 1 and not (refresh or cypher):
        print_note(
            "Write what it does, then run `is-db-bootstrap revision --refresh` with the options "
            "that name your database, so that verify knows what it makes."
        )
    return 0


def _team_place(given: dict[str, Any]) -> Place:
    """Where a team's new revision belongs."""
    from is_db_bootstrap.stores.postgres.team_revision import Place

    return Place(**{name: value for name, value in given.items() if value})


def _refuse_place(given: dict[str, Any]) -> None:
    """Refuse what only a team's own environment has."""
    for name, value in given.items():
        if value:
            raise ConfigurationError(
                f"--{name.replace('_', '-')} is for a blueprint that names an alembic.ini.",
                hint="A folder of revisions has one head, and the new one goes on from it.",
            )


def _short_path(path: Path) -> str:
    """The path from the working directory, if it is below it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _revision_document(
    paths: list[str], operations: list[Operation], warnings: list[str]
) -> dict[str, Any]:
    from is_db_bootstrap.results import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "files": paths,
        "operations": [
            each.to_dict() for each in operations if not each.left_out and not each.by_hand
        ],
        "left_out": [each.to_dict() for each in operations if each.left_out],
        "by_hand": [each.to_dict() for each in operations if each.by_hand],
        "notes": warnings,
    }


def _print_operations(operations: list[Operation]) -> None:
    """Print each operation on stderr, and what to do about those that were not written."""
    for operation in operations:
        prefix = "by hand: " if operation.by_hand else "left out: " if operation.left_out else ""
        print_note(f"{prefix}{operation}")
    if any(operation.left_out for operation in operations):
        print_note("What was left out is not declared by the models; --allow-drops writes it too.")
    if any(operation.by_hand for operation in operations):
        print_note(
            "Write what is to be done by hand into a revision, then: "
            "is-db-bootstrap revision --refresh"
        )


def _print_no_difference(operations: list[Operation]) -> None:
    more = " in anything else" if operations else ""
    print_note(f"The models and the revisions do not differ{more}; nothing was written.")
