"""`is-db-bootstrap revision`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from is_db_bootstrap.cli.migrate._options import Where, placed
from is_db_bootstrap.results import SCHEMA_VERSION

if TYPE_CHECKING:
    from is_db_bootstrap.stores.postgres.operations import Operation


@click.command("revision")
@partial(placed, may_have_no_files=True)
@click.option("--message", "-m", default="", help="What it does, such as 'add orders'.")
@click.option("--cypher", is_flag=True, help="The next Cypher file instead.")
@click.option("--empty", is_flag=True, help="Nothing but its frame; needs no server.")
@click.option(
    "--refresh",
    is_flag=True,
    help="Only catalogue.json and schema.sql again, after a revision was written by hand.",
)
@click.option(
    "--allow-drops",
    is_flag=True,
    help="Also drop what the models do not declare; else that is told and left out.",
)
@click.option(
    "--output",
    "-o",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What stdout gets.",
)
def command(
    where: Where,
    *,
    message: str,
    cypher: bool,
    empty: bool,
    refresh: bool,
    allow_drops: bool,
    output: str,
) -> int:
    """Write the next revision of a blueprint: what its models have and its revisions lack, or an empty one.

    It is found by comparing the models with a scratch database at head, on the server of --url or --local. The files that
    were written are printed, and on stderr each operation of the revision. No file is overwritten, and a failure leaves none.
    """
    from is_db_bootstrap import revision

    operations: list[Operation] = []
    warnings: list[str] = []
    if refresh:
        written = revision.refresh(where.blueprint, where.settings, warnings.append)
    elif cypher:
        written = [revision.cypher(where.blueprint, message)]
    else:
        settings = None if empty or not where.blueprint.models else where.settings
        written = revision.postgres(
            where.blueprint,
            message,
            settings,
            allow_drops=allow_drops,
            report=operations.append,
            warn=warnings.append,
        )
    paths = [str(p.relative_to(Path.cwd()) if p.is_relative_to(Path.cwd()) else p) for p in written]
    if output == "json":
        click.echo(json.dumps(_document(paths, operations, warnings), indent=2, ensure_ascii=False))
        return 0
    for path in paths:
        click.echo(path)
    _tell(operations, warnings)
    if not written:
        more = " in anything else" if operations else ""
        click.echo(
            f"The models and the revisions do not differ{more}; nothing was written.", err=True
        )
    elif not refresh and not cypher and len(written) == 1:
        click.echo(
            "Write it, then run the same with --refresh, so that verify knows what it makes.",
            err=True,
        )
    return 0


def _document(paths: list[str], operations: list[Operation], warnings: list[str]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "files": paths,
        "operations": [each.to_dict() for each in operations if not each.left_out],
        "left_out": [each.to_dict() for each in operations if each.left_out],
        "notes": warnings,
    }


def _tell(operations: list[Operation], warnings: list[str]) -> None:
    for each in operations:
        click.echo(f"left out: {each}" if each.left_out else f"{each}", err=True)
    if any(each.left_out for each in operations):
        click.echo(
            "What was left out is not declared by the models; --allow-drops writes it too.",
            err=True,
        )
    for warning in warnings:
        click.echo(warning, err=True)
