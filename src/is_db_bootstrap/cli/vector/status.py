"""`is-db-bootstrap vector status`."""

import click

from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli.vector._options import COLLECTION, Vectors, vector_options


@click.command("status")
@vector_options
@COLLECTION
def command(vectors: Vectors, collection: str) -> int:
    """Print the versions of each collection, their rows, and where the alias leads.

    COLLECTION is the name of a declared collection or its alias. Without it, all are printed.
    """
    from is_db_bootstrap import vector
    from is_db_bootstrap.render.vectors import vectors_document, versions_text

    found = vector.status(vectors.blueprint, vectors.settings, collection)
    if vectors.output == "json":
        print_text(vectors_document("collections", [each.to_dict() for each in found]))
    else:
        print_text(versions_text(found))
    return 0
