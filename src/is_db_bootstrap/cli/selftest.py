"""`is-db-bootstrap selftest`."""

import click

from is_db_bootstrap.cli._options import Options, check_options


@click.command("selftest")
@check_options
@click.option(
    "--here",
    is_flag=True,
    help="PostgreSQL in the database itself, and not in a scratch database at the same revision.",
)
def command(options: Options, *, here: bool) -> int:
    """Try what was declared: write, read, search, expire, and trip every constraint.

    Leaves nothing. Run it after an installation.

    PostgreSQL is tried in a scratch database on its server, Neo4j in transactions that are rolled
    back, Milvus and Redis under probe names. Each check is one line on stdout. What cannot be
    tried is said with its reason, and fails nothing. Exit 0, or 3 when a store did not do what was
    declared.
    """
    from is_db_bootstrap.cli._selftest import run_selftest

    return run_selftest(options, here=here)
