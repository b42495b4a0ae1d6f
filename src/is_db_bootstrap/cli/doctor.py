"""`is-db-bootstrap doctor`."""

import click

from is_db_bootstrap.cli._options import Options, common_options


@click.command("doctor")
@common_options
def command(options: Options) -> int:
    """Print one page about every store, to paste into a bug report.

    Looks once, does not wait, changes nothing. Secrets are masked.

    The page tells how far each store is: its name resolves, its port answers, TLS, login, the
    target exists, it is writable, and our user may create there. It adds versions, clocks, what
    stands in between, privileges, locks, and the settings in effect. A store that fails keeps no
    other store from being looked at. Exit 0 when every store is ready, else as apply would end.
    """
    from is_db_bootstrap.cli._doctor import run_doctor

    return run_doctor(options)
