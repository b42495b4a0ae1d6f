"""Options that every command takes, and what they become."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from is_db_bootstrap.cli._times import Seconds
from is_db_bootstrap.names import STORE_ORDER

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import RunOptions, Settings

F = TypeVar("F", bound=Callable[..., Any])

_STORE = click.Choice(STORE_ORDER)
_FILE = click.Path(path_type=Path, dir_okay=False)


class Options(NamedTuple):
    """The common options of one call, as parsed; times are seconds."""

    blueprint: str | None
    only: tuple[str, ...]
    skip: tuple[str, ...]
    timeout: float | None
    apply_timeout: float | None
    output: str
    verbose: bool
    quiet: bool
    config: Path | None
    env_file: Path | None
    use_local: bool
    data_dir: Path | None
    urls: dict[str, str | None]
    termination_log: Path | None = None

    def __repr__(self) -> str:
        """Without addresses, which may have passwords in them."""
        shown = self._asdict() | {"urls": {name: "…" for name, url in self.urls.items() if url}}
        return f"Options({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def asked_for(self) -> str:
        """The blueprint that is asked for, as it is called."""
        from is_db_bootstrap.blueprint.load import DEFAULT
        from is_db_bootstrap.settings import blueprint_name

        return self.blueprint or blueprint_name(os.environ, self.config, self.env_file) or DEFAULT

    def declared(self, *, may_have_no_files: bool = False) -> Blueprint:
        """The blueprint itself; `may_have_no_files` is that of `load_blueprint`."""
        from is_db_bootstrap.blueprint.load import load_blueprint

        return load_blueprint(self.asked_for(), may_have_no_files=may_have_no_files)

    def run_options(self, **flags: bool) -> RunOptions:
        """What the engine is told: the stores of this call, and the `flags` of its command."""
        from is_db_bootstrap.settings import RunOptions

        return RunOptions(only=self.only, skip=self.skip, **flags)

    def settings(self, blueprint: Blueprint, identities: Collection[StoreName] = ()) -> Settings:
        """Everything else. Starts the local stack when `--local` asks for it.

        `identities` is that of `Settings.load`.
        """
        from is_db_bootstrap.settings import Settings

        flags: dict[str, Any] = {
            **self.urls,
            "timeout_s": self.timeout,
            "apply_timeout_s": self.apply_timeout,
        }
        load = partial(
            Settings.load,
            blueprint,
            flags=flags,
            file=self.config,
            env_file=self.env_file,
            identities=identities,
        )
        found = load()
        if not self.use_local:
            return found
        from is_db_bootstrap.cli._local_stack import local_environment

        return load(environ=local_environment(found, self.data_dir, quiet=self.quiet))


_COMMON = (
    click.option(
        "--blueprint",
        "-b",
        metavar="NAME",
        help="A built-in name, or module:BLUEPRINT. [default: novel_genesis]",
    ),
    click.option("--only", type=_STORE, multiple=True, help="Only this store; may be repeated."),
    click.option("--skip", type=_STORE, multiple=True, help="All but this store; may be repeated."),
    click.option(
        "--timeout",
        cls=Seconds,
        field="timeout",
        help="For waiting and locking together.",
    ),
    click.option(
        "--apply-timeout",
        cls=Seconds,
        field="apply_timeout",
        help="For apply and verify.",
    ),
    click.option(
        "--output",
        "-o",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="What stdout gets.",
    ),
    click.option("--verbose", "-v", is_flag=True, help="Every change and every address on stderr."),
    click.option("--quiet", "-q", is_flag=True, help="Nothing but failures."),
    click.option(
        "--config",
        type=_FILE,
        help="A TOML file. [default: is-db-bootstrap.toml, then pyproject.toml]",
    ),
    click.option(
        "--env-file", type=_FILE, help="Variables from a file, below the real environment."
    ),
    click.option(
        "--local", "use_local", is_flag=True, help="Start (or find) a local stack and use it."
    ),
    click.option(
        "--data-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Where the local stack keeps its data.",
    ),
    click.option(
        "--termination-log", type=_FILE, help="Leave a summary of at most 4 kB there, as JSON."
    ),
    *(
        click.option(f"--{store}-url", metavar="URL", help=f"Address of {store}.")
        for store in STORE_ORDER
    ),
)


def common(command: F) -> F:
    """Give `command` the common options; it receives them as one `Options`, first."""

    def wrapped(**given: Any) -> Any:
        urls = {f"{store}_url": given.pop(f"{store}_url") for store in STORE_ORDER}
        names = [n for n in Options._fields if n != "urls"]
        return command(Options(**{n: given.pop(n) for n in names}, urls=urls), **given)

    wrapped.__doc__ = command.__doc__
    own = getattr(command, "__click_params__", [])
    wrapped.__click_params__ = own  # type: ignore[attr-defined]  # click's own place
    for option in reversed(_COMMON):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]  # click reads it by its attributes
