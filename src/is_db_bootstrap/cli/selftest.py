"""`is-db-bootstrap selftest`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("selftest")
@common
def command(options: Options) -> int:
    """Try what was declared: write, read, search, expire, and trip every constraint.

    Leaves nothing.

    For after an installation. PostgreSQL and Neo4j are tried in transactions that are rolled back,
    Milvus and Redis under probe names. One line a check on stdout; exit 0, or 3 when a store did
    not do what was declared.
    """
    from is_db_bootstrap.cli._run import selftest

    return selftest(options)
