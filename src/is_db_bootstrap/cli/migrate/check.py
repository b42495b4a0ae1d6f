"""`is-db-bootstrap migrate check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._answer import answer, fail, give_document
from is_db_bootstrap.cli._endings import FAILED
from is_db_bootstrap.cli._output import print_line, tell_error
from is_db_bootstrap.cli.migrate._options import Database, database_options, migrate_exit_codes

if TYPE_CHECKING:
    from is_db_bootstrap.migrate import Check

HINTS = """\
Does the server run, and listen at this address?
Are POSTGRES_URL, DATABASE_URL or DB_* right?
Has the database been created (is-db-bootstrap migrate init)?
Is the password right?"""


@click.command("check")
@migrate_exit_codes
@database_options()
def command(database: Database) -> int:
    """Connect and print what is there.

    The lines are target, latency, server version, extensions, revision and head. Where an upgrade
    would refuse the revisions that are recorded, it says why and ends with 1.
    """
    from is_db_bootstrap import migrate
    from is_db_bootstrap.errors import BootstrapError, ConfigurationError

    try:
        found = migrate.check(database.blueprint, **database.arguments)
    except ConfigurationError:
        raise
    except BootstrapError as exc:
        answer().error = exc
        tell_error(exc)
        click.echo(HINTS, err=True)
        return FAILED
    code = _code_of(found)
    if give_document(_document_of(found, code)):
        return code
    product = "" if database.other_url else "PostgreSQL "
    print_line(f"target      {found.target}")
    print_line(f"latency     {found.latency_ms:.1f} ms")
    print_line(f"server      {product}{found.server_version}")
    for name, is_available in found.extensions.items():
        print_line(f"extension   {name} {'available' if is_available else 'NOT AVAILABLE'}")
    print_line(f"revision    {found.revision or '(none)'}")
    print_line(f"head        {found.head}")
    return code


def _code_of(found: Check) -> int:
    """The exit code, after the reason why an upgrade would refuse what is recorded."""
    if found.conflict is None:
        return 0
    return fail(FAILED, found.conflict)


def _document_of(found: Check, code: int) -> dict[str, object]:
    return {
        **answer().document(code, answer().error),
        "target": found.target,
        "latency_ms": round(found.latency_ms, 1),
        "server_version": found.server_version,
        "extensions": dict(found.extensions),
        "revision": found.revision or None,
        "head": found.head,
    }
