"""`is-db-bootstrap unlock`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from is_db_bootstrap.cli._answer import answer, give_document, print_note
from is_db_bootstrap.cli._options import (
    ADDRESSES,
    BLUEPRINT,
    CONFIG,
    DATA_DIR,
    ENV_FILE,
    LOCAL,
    TIMEOUT,
    WORK_ANSWER_OPTIONS,
    Options,
    add_options,
    refuse_missing_folder,
)
from is_db_bootstrap.cli._output import print_line, tell
from is_db_bootstrap.cli._question import code_of_refusal, refuse_unanswerable
from is_db_bootstrap.names import STORE_ORDER

if TYPE_CHECKING:
    from is_db_bootstrap.engine.store import PresentLock
    from is_db_bootstrap.unlock import LeftLock, Unlocked

_OPTIONS = (
    BLUEPRINT,
    *ADDRESSES,
    TIMEOUT,
    CONFIG,
    ENV_FILE,
    LOCAL,
    DATA_DIR,
    *WORK_ANSWER_OPTIONS,
)
_PLAIN = ("blueprint", "timeout", "config", "env_file", "use_local", "data_dir")


@click.option("--holder", metavar="TEXT", default="", help="Who holds it, as status says it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.argument("store", metavar="STORE", type=click.Choice(STORE_ORDER))
def _unlock(*, store: Any, holder: str, yes: bool, **parameters: Any) -> int:
    """Remove the lock of STORE that a dead run has left.

    A holder that is at work is refused. Where nobody can tell whether it is, name it with
    --holder. Exit codes: 0 removed, or not locked; 7 the holder is at work; 6 nobody can tell.
    """
    from is_db_bootstrap.cli._log import records_observer
    from is_db_bootstrap.cli._run import prepare_clients
    from is_db_bootstrap.unlock import LeftLock

    refuse_unanswerable(yes=yes)
    refuse_missing_folder(answer().result_file)
    urls = {f"{name}_url": parameters.pop(f"{name}_url") for name in STORE_ORDER}
    options = Options(only=(store,), urls=urls, **{name: parameters[name] for name in _PLAIN})
    prepare_clients()
    blueprint = options.load_blueprint()
    settings = options.load_settings(blueprint)
    options.refuse_others(blueprint, settings, (store,))
    records = records_observer(verbose=False, quiet=answer().is_quiet)
    observers = [] if records is None else [records]
    with LeftLock(blueprint, settings, store, observers=observers, run_id=answer().run_id) as left:
        seen = left.look()
        if seen is None:
            return _tell(left, None)
        left.refuse(seen, holder)
        return _remove(left, seen, yes=yes)


command = click.command("unlock")(add_options(_unlock, _OPTIONS))


def _remove(left: LeftLock, seen: PresentLock, *, yes: bool) -> int:
    from is_db_bootstrap.render.report import holder_text

    if not yes:
        tell(f"{left.name}: locked by {holder_text(seen.holder)}. {seen.why}")
    code = code_of_refusal(f"Remove this lock of {left.target}?", yes=yes)
    if code is not None:
        return code
    return _tell(left, left.remove(seen), seen)


def _tell(left: LeftLock, done: Unlocked | None, seen: PresentLock | None = None) -> int:
    """Print what was removed, and who holds the lock now."""
    from is_db_bootstrap.render.report import holder_text
    from is_db_bootstrap.results import json_value

    document = {
        **answer().document(0),
        "outcome": "changed" if done else "unchanged",
        "store": left.name,
        "target": left.target,
        "removed": json_value(done.removed) if done else None,
        "why": seen.why if seen else None,
        "lock": json_value(done.now) if done and done.now else None,
    }
    if give_document(document):
        return 0
    if done is None:
        print_line(f"{left.name}: not locked")
        return 0
    print_line(f"{left.name}: removed the lock of {holder_text(done.removed)}")
    if done.now is not None:
        print_note(f"{left.name}: locked since then by {holder_text(done.now)}")
    return 0
