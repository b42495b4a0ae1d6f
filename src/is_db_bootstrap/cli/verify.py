"""`is-db-bootstrap verify`."""

import click

from is_db_bootstrap.cli._options import Options, common


@click.command("verify")
@common
@click.option("--strict", is_flag=True, help="Undeclared objects and careless data are drift too.")
@click.option(
    "--no-ahead", is_flag=True, help="A store that a newer version has migrated is a conflict."
)
def command(options: Options, strict: bool, no_ahead: bool) -> int:
    """Compare every declared object with the live one.

    Exit 3 when they differ. Changes nothing.
    """
    from is_db_bootstrap.cli._run import run
    from is_db_bootstrap.results import Mode

    return run(options, Mode.VERIFY, options.run_options(strict=strict, allow_ahead=not no_ahead))
