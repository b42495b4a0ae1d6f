"""`is-db-bootstrap selftest`."""

import click

from is_db_bootstrap.cli._options import Options, common_options


@click.command("selftest")
@common_options
def command(options: Options) -> int:
    """Try what was declared: write, read, search, expire, and trip every constraint.

    Leaves nothing. Run it after an installation.

    PostgreSQL and Neo4j are tried in transactions that are rolled back, Milvus and Redis under
    probe names. Each check is one line on stdout. Exit 0, or 3 when a store did not do what was
    declared.
    """
    from is_db_bootstrap.cli._selftest import run_selftest

    return run_selftest(options)
