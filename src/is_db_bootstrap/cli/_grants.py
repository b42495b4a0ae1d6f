"""From options to printed privileges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from is_db_bootstrap import app
from is_db_bootstrap.cli._output import print_text, tell
from is_db_bootstrap.cli._result_file import deliver
from is_db_bootstrap.cli._run import prepare_clients
from is_db_bootstrap.cli._termination_log import log_refusals
from is_db_bootstrap.grant_list import Purpose
from is_db_bootstrap.grants import list_grants, wishes
from is_db_bootstrap.render.grants import grants_document, grants_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from is_db_bootstrap.cli._options import Options


def print_grants(
    options: Options, purposes: Sequence[str], role: str, *, creates_database: bool
) -> int:
    """Print what an administrator runs, and return the exit code."""
    prepare_clients()
    with log_refusals(options.termination_log):
        blueprint = options.load_blueprint()
        settings = options.load_settings(blueprint)
        resolved = app.checked(blueprint, settings)
        stores = app.chosen_stores(resolved, options.only, options.skip)
        chosen = [each for each in Purpose if each in purposes]
        wanted = wishes(blueprint.name, chosen, role, creates_database=creates_database)
        listed = list_grants(resolved, settings, stores, wanted)
    document = grants_document(blueprint.name, options.choice().source, listed)

    def show(_: int) -> None:
        if options.output == "json":
            print_text(document)
        elif not options.quiet:
            pasted, beside = grants_text(listed)
            print_text(pasted)
            for line in beside.splitlines():
                tell(line)

    return deliver(0, text_of=lambda _: document, show=show)
