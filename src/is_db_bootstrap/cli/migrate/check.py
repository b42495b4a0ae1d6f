"""`is-db-bootstrap migrate check`."""

import click

from is_db_bootstrap.cli.migrate._options import Where, exits, placed

HINTS = """\
Does the server run, and listen at this address?
Are POSTGRES_URL, DATABASE_URL or DB_* right?
Has the database been created (is-db-bootstrap migrate init)?
Is the password right?"""


@click.command("check")
@exits
@placed
def command(where: Where) -> int:
    """Connect and print what is there: target, latency, server version, extensions, revision and head."""
    from is_db_bootstrap import migrate
    from is_db_bootstrap.errors import BootstrapError, ConfigurationError

    try:
        found = migrate.check(where.blueprint, **where.how)
    except ConfigurationError:
        raise
    except BootstrapError as exc:
        click.echo(f"is-db-bootstrap: {exc}\n{HINTS}", err=True)
        return 1
    click.echo(f"target      {found.target}")
    click.echo(f"latency     {found.latency_ms:.1f} ms")
    click.echo(f"server      {'' if where.other else 'PostgreSQL '}{found.server_version}")
    for name, available in found.extensions.items():
        click.echo(f"extension   {name} {'available' if available else 'NOT AVAILABLE'}")
    click.echo(f"revision    {found.revision or '(none)'}")
    click.echo(f"head        {found.head}")
    return 0
