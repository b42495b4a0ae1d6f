"""`is-db-bootstrap migrate stamp`."""

import click

from is_db_bootstrap.cli._endings import FAILED, WRONG_USAGE
from is_db_bootstrap.cli.migrate._options import (
    Database,
    ask_user,
    database_options,
    migrate_exit_codes,
    print_revisions,
)


@click.command("stamp")
@migrate_exit_codes
@database_options(with_cypher=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("revision")
def command(database: Database, revision: str, yes: bool) -> int:
    """Record REVISION (an id, head or base) as applied.

    Writes the version only: no table is touched. REVISION may be all that Alembic takes. With
    --cypher it is the name or the version of a Cypher file.
    """
    from is_db_bootstrap import migrate, migrate_cypher

    question = f"Record {revision} as the revision of {database.target}, and change nothing else?"
    answer = ask_user(question, yes=yes)
    if answer is None:
        click.echo("Nothing was changed: there is no terminal to ask at. Say --yes.", err=True)
        return WRONG_USAGE
    if not answer:
        click.echo("Nothing was changed.", err=True)
        return FAILED
    write = migrate_cypher.stamp if database.is_cypher else migrate.stamp
    stamped = write(database.blueprint, revision, **database.arguments)
    untouched = "nothing else was touched" if database.is_cypher else "no table was touched"
    print_revisions(stamped, f"recorded; {untouched}", "recorded already")
    return 0
