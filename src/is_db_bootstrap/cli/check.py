"""`is-db-bootstrap check`."""

from pathlib import Path

import click

from is_db_bootstrap.cli._options import Options
from is_db_bootstrap.cli.migrate._options import BLUEPRINT


@click.command("check")
@BLUEPRINT
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A TOML file that names the blueprint.",
)
def command(blueprint: str | None, config: Path | None) -> int:
    """See that a blueprint loads and that its generated files are current; needs no server.

    Declarations, Cypher files and the chain of revisions are checked as for every run;
    catalogue.json and schema.sql must be those of the newest revision. Exit 3 when one is not. For
    a pre-commit hook.
    """
    from is_db_bootstrap import revision
    from is_db_bootstrap.blueprint.check import check
    from is_db_bootstrap.stores.neo4j import cypher_file

    options = Options(
        blueprint=blueprint,
        only=(),
        skip=(),
        timeout=None,
        apply_timeout=None,
        output="text",
        verbose=False,
        quiet=False,
        config=config,
        env_file=None,
        use_local=False,
        data_dir=None,
        urls={},
    )
    declared = options.declared()
    check(declared)
    if declared.cypher:
        cypher_file.load(declared.cypher)
    found = revision.stale(declared)
    for line in found:
        click.echo(line, err=True)
    if found:
        click.echo("is-db-bootstrap revision --refresh writes it.", err=True)
        return 3
    click.echo(f"{declared.name}: as its newest revision says")
    return 0
