"""`is-db-bootstrap vector prune`."""

import click

from is_db_bootstrap.cli._answer import fail
from is_db_bootstrap.cli._endings import FAILED
from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli._question import ask_user, refuse_unasked
from is_db_bootstrap.cli.vector._options import COLLECTION, Vectors, tell, vector_options


@click.command("prune")
@vector_options
@click.option("--yes", is_flag=True, help="Drop without asking.")
@COLLECTION
def command(vectors: Vectors, collection: str, *, yes: bool) -> int:
    """Drop the versions before the one that the alias leads to, after asking.

    COLLECTION is the name of a declared collection or its alias. Without it, all are looked at.
    The question names each version with its rows. Without a terminal and --yes, nothing changes.
    """
    from is_db_bootstrap import vector
    from is_db_bootstrap.render.vectors import prune_question, pruned_text, vectors_document

    old = vector.prunable(vectors.blueprint, vectors.settings, collection)
    names = [version.name for version in old]
    if old:
        question = prune_question(old)
        answer = ask_user(question, yes=yes)
        if answer is None:
            return refuse_unasked(question)
        if not answer:
            return fail(FAILED, "Nothing was dropped.")
        vector.prune(vectors.blueprint, vectors.settings, names, on_note=tell)
    if vectors.output == "json":
        print_text(vectors_document("dropped", names))
    else:
        print_text(pruned_text(old))
    return 0
