"""`is-db-bootstrap vector upgrade`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli.vector._options import (
    COLLECTION,
    Vectors,
    progress_teller,
    tell,
    vector_options,
)
from is_db_bootstrap.errors import BootstrapError

if TYPE_CHECKING:
    from is_db_bootstrap.vector_results import Upgraded

#: The exit code when an alias does not lead to the declared version.
_NOT_AS_DECLARED = 3


@click.command("upgrade")
@vector_options
@click.option(
    "--from",
    "source",
    metavar="VERSION",
    default="",
    help="Copy from this earlier version. Rows that are behind the alias already stay.",
)
@click.option(
    "--drop-fields",
    metavar="FIELDS",
    default="",
    help="Fields of the old version to leave behind, with commas between them.",
)
@click.option(
    "--where",
    metavar="EXPR",
    default="",
    help="Only rows that this filter of Milvus fits, written again whatever is there.",
)
@click.option("--batch", type=click.IntRange(1, 16_384), help="Rows at a time. [default: 1000]")
@click.option("--keep-alias", is_flag=True, help="Copy and compare, and leave the alias.")
@click.option(
    "--move-anyway", is_flag=True, help="Move the alias although rows failed, miss or differ."
)
@COLLECTION
def command(
    vectors: Vectors,
    collection: str,
    *,
    source: str,
    drop_fields: str,
    where: str,
    batch: int | None,
    keep_alias: bool,
    move_anyway: bool,
) -> int:
    """Copy the rows to the declared version, or embed them again, and move the alias.

    COLLECTION is the name of a declared collection or its alias. Without it, all are upgraded.
    A call that was killed goes on where it ended. The old version keeps all its rows.
    A collection that cannot be upgraded does not keep the others from it.
    """
    from is_db_bootstrap import vector
    from is_db_bootstrap.render.vectors import upgraded_text, vectors_document

    if keep_alias and move_anyway:
        raise click.UsageError("--keep-alias and --move-anyway exclude each other.")
    is_json = vectors.output == "json"
    done: list[Upgraded] = []

    def note_result(result: Upgraded) -> None:
        done.append(result)
        if not is_json:
            print_text(upgraded_text([result]))

    try:
        vector.upgrade(
            vectors.blueprint,
            vectors.settings,
            collection,
            source=source,
            where=where,
            batch=batch,
            drop_fields=frozenset(filter(None, map(str.strip, drop_fields.split(",")))),
            keep_alias=keep_alias,
            move_anyway=move_anyway,
            on_progress=progress_teller(),
            on_note=tell,
            on_result=note_result,
        )
    except BootstrapError:
        if is_json and done:
            print_text(vectors_document("upgraded", [each.to_dict() for each in done]))
        raise
    if is_json:
        print_text(vectors_document("upgraded", [each.to_dict() for each in done]))
    elif not done:
        print_text(upgraded_text(done))
    is_open = any(each.notes and not each.is_moved for each in done)
    return _NOT_AS_DECLARED if is_open else 0
