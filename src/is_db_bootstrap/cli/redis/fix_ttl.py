"""`is-db-bootstrap redis fix-ttl`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from is_db_bootstrap.cli._answer import fail, refuse_unasked
from is_db_bootstrap.cli._endings import FAILED
from is_db_bootstrap.cli._output import print_text
from is_db_bootstrap.cli.migrate._options import ask_user
from is_db_bootstrap.cli.redis._options import key_options
from is_db_bootstrap.wording import counted

if TYPE_CHECKING:
    from is_db_bootstrap.stores.redis.keyspace import Keyspace
    from is_db_bootstrap.stores.redis.lifetimes import Mended

#: Keys lack a lifetime afterwards.
_LEFT_OVER = 3


@click.command("fix-ttl")
@key_options
@click.option(
    "--pattern", "names", multiple=True, metavar="NAME", help="Only this one. May be repeated."
)
@click.option("--dry-run", is_flag=True, help="Count only, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(
    blueprint: str,
    target: str,
    keyspace: Keyspace,
    *,
    output: str,
    source: str,
    names: tuple[str, ...],
    dry_run: bool,
    yes: bool,
) -> int:
    """Give keys without a lifetime the longest one that their pattern declares.

    Counts first, and asks. A lifetime that is there is neither made shorter nor longer. Exit 3
    when keys lack a lifetime afterwards.
    """
    from is_db_bootstrap.render.keys import lifetimes_document, lifetimes_text

    def show(missing: dict[str, int], mended: Mended | None) -> None:
        lifetimes = {name: keyspace.lifetime_s(name) for name in missing}
        found = (blueprint, target, missing, lifetimes, mended)
        if output == "json":
            print_text(lifetimes_document(*found, blueprint_source=source))
        else:
            print_text(lifetimes_text(*found))

    with keyspace:
        missing = dict(keyspace.count_missing(names))
        total = sum(missing.values())
        if dry_run or not total:
            show(missing, None)
            return 0
        if output != "json":
            show(missing, None)
        answer = ask_user(f"Set the lifetimes of {counted(total, 'key')} of {target}?", yes=yes)
        if answer is None:
            return refuse_unasked("Nothing was changed.")
        if not answer:
            return fail(FAILED, "Nothing was changed.")
        mended = keyspace.mend_missing(names)
        came_up = {name: 0 for name in (*mended.done, *mended.left) if name not in missing}
        show({**missing, **came_up}, mended)
    return _LEFT_OVER if mended.left else 0
