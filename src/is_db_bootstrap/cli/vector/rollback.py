"""`is-db-bootstrap vector rollback`."""

import click

from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli.vector._options import COLLECTION, Vectors, tell, vector_options


@click.command("rollback")
@vector_options
@COLLECTION
def command(vectors: Vectors, collection: str) -> int:
    """Move the alias back to the version before. No row is changed.

    COLLECTION is the name of a declared collection or its alias. A blueprint with one collection
    needs none.
    """
    from is_db_bootstrap import vector
    from is_db_bootstrap.render.vectors import moved_text, vectors_document

    moved = vector.rollback(vectors.blueprint, vectors.settings, collection, on_note=tell)
    if vectors.output == "json":
        print_text(vectors_document("moved", [each.to_dict() for each in moved]))
    else:
        print_text(moved_text(moved))
    return 0
