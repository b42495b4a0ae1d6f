"""Options that many commands take, and what they become."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import click

from is_db_bootstrap.cli._answer import answer, note_option
from is_db_bootstrap.cli._choices import WordChoice
from is_db_bootstrap.cli._times import Seconds
from is_db_bootstrap.names import STORE_ORDER

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import Choice, RunOptions, Settings

F = TypeVar("F", bound=Callable[..., Any])
Decorator = Callable[[Any], Any]

#: A file, which need not exist.
FILE = click.Path(path_type=Path, dir_okay=False)
_STORE = WordChoice(STORE_ORDER)


BLUEPRINT = click.option(
    "--blueprint",
    "-b",
    metavar="NAME",
    help="An installed one, module:BLUEPRINT, or a folder. [default: the project file's]",
)
TIMEOUT = click.option(
    "--timeout",
    cls=Seconds,
    field="timeout",
    help="For waiting and locking together.",
)


def _output(*formats: str, is_passed: bool) -> Decorator:
    return click.option(
        "--output",
        "-o",
        type=WordChoice(formats),
        default="text",
        show_default=True,
        is_eager=True,
        callback=note_option,
        expose_value=is_passed,
        help="What stdout gets.",
    )


def _quiet(*, is_passed: bool) -> Decorator:
    return click.option(
        "--quiet",
        "-q",
        is_flag=True,
        is_eager=True,
        callback=note_option,
        expose_value=is_passed,
        help="Nothing but failures.",
    )


RESULT_FILE = click.option(
    "--result-file",
    type=FILE,
    is_eager=True,
    callback=note_option,
    expose_value=False,
    help="Leave the document of --output json there too, all of it or none.",
)
LOG_FORMAT = click.option(
    "--log-format",
    type=WordChoice(("text", "json")),
    default="text",
    show_default=True,
    is_eager=True,
    callback=note_option,
    expose_value=False,
    help="What stderr gets. JSON is one record a line.",
)


def _termination_log(*, is_passed: bool) -> Decorator:
    return click.option(
        "--termination-log",
        type=FILE,
        is_eager=True,
        callback=note_option,
        expose_value=is_passed,
        help="Leave a summary of at most 4 kB there, as JSON.",
    )


OUTPUT = _output("text", "json", is_passed=True)
_PLAN_OUTPUT = _output("text", "json", "markdown", is_passed=True)
_CHECK_OUTPUT = _output("text", "json", "junit", is_passed=True)
#: The same for a command that asks `answer()`: none of these three is a parameter of its function.
NOTED_OUTPUT = _output("text", "json", is_passed=False)
NOTED_QUIET = _quiet(is_passed=False)
NOTED_TERMINATION_LOG = _termination_log(is_passed=False)
ANSWER_OPTIONS = (NOTED_OUTPUT, NOTED_QUIET, NOTED_TERMINATION_LOG)
#: The same for such a command that works on a store.
WORK_ANSWER_OPTIONS = (*ANSWER_OPTIONS, RESULT_FILE, LOG_FORMAT)
CONFIG = click.option(
    "--config",
    type=FILE,
    help="A TOML file. [default: is-db-bootstrap.toml or pyproject.toml, here or above]",
)
ENV_FILE = click.option(
    "--env-file", type=FILE, help="Variables from a file, below the real environment."
)
LOCAL = click.option(
    "--local",
    "use_local",
    is_flag=True,
    help="Start (or find) a local stack with the stores of this call, and use it.",
)
DATA_DIR = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the local stack keeps its data.",
)
SEED = click.option(
    "--seed", is_flag=True, help="Add the blueprint's demo data where it is missing."
)
NO_AHEAD = click.option(
    "--no-ahead", is_flag=True, help="A store that a newer version has migrated is a conflict."
)


def _accept_reset(meaning: str) -> Decorator:
    return click.option(
        "--accept-reset",
        type=_STORE,
        multiple=True,
        help=f"{meaning}, which was converged and is lost. May be repeated.",
    )


ACCEPT_RESET = _accept_reset("Make this store anew")
#: The same for a command that makes nothing.
ACCEPT_RESET_AS_IT_IS = _accept_reset("Take this store as it is")

#: One address for each store.
ADDRESSES = tuple(
    click.option(f"--{store}-url", metavar="URL", help=f"Address of {store}.")
    for store in STORE_ORDER
)

APPLY_TIMEOUT = click.option(
    "--apply-timeout",
    cls=Seconds,
    field="apply_timeout",
    help="For apply.",
)
PHASE_TIMEOUT = click.option(
    "--phase-timeout",
    cls=Seconds,
    field="phase_timeout",
    help="For each plan, verify, status and check.",
)

_COMMON_OPTIONS = (
    BLUEPRINT,
    click.option("--only", type=_STORE, multiple=True, help="Only this store. May be repeated."),
    click.option("--skip", type=_STORE, multiple=True, help="All but this store. May be repeated."),
    TIMEOUT,
    PHASE_TIMEOUT,
    OUTPUT,
    click.option(
        "--verbose",
        "-v",
        is_flag=True,
        callback=note_option,
        help="Every change and every address on stderr.",
    ),
    _quiet(is_passed=True),
    CONFIG,
    ENV_FILE,
    LOCAL,
    DATA_DIR,
    _termination_log(is_passed=True),
    RESULT_FILE,
    LOG_FORMAT,
    *ADDRESSES,
)


class Options(NamedTuple):
    """The options of one call, as parsed.

    Times are seconds. A command that lacks one of the options leaves it at the default here.
    """

    blueprint: str | None = None
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    timeout: float | None = None
    apply_timeout: float | None = None
    phase_timeout: float | None = None
    output: str = "text"
    verbose: bool = False
    quiet: bool = False
    config: Path | None = None
    env_file: Path | None = None
    use_local: bool = False
    data_dir: Path | None = None
    #: Addresses by the names of their settings, such as `postgres_url`.
    urls: Mapping[str, str | None] = MappingProxyType({})
    termination_log: Path | None = None

    def __repr__(self) -> str:
        """Without addresses, which may have passwords in them."""
        urls = {name: "…" for name, url in self.urls.items() if url}
        values = self._asdict() | {"urls": urls}
        fields = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"Options({fields})"

    def choice(self) -> Choice:
        """The blueprint of this call, and who named it.

        Raises `ConfigurationError` when nobody did, and the working directory is a blueprint.
        """
        from is_db_bootstrap.settings.choice import chosen_blueprint, refuse_overlooked

        choice = chosen_blueprint(self.blueprint, file=self.config, env_file=self.env_file)
        refuse_overlooked(choice)
        return choice

    def load_blueprint(self, *, may_have_no_files: bool = False) -> Blueprint:
        """The blueprint itself, after it was told on stderr which one it is if nobody named it.

        `load_blueprint` of the package `blueprint` explains `may_have_no_files`.
        """
        from is_db_bootstrap.blueprint.load import load_chosen

        choice = self.choice()
        self._tell_choice(choice)
        return load_chosen(choice, may_have_no_files=may_have_no_files)

    def _tell_choice(self, choice: Choice) -> None:
        """Print a choice that nobody has typed or set here: a default, or a file above."""
        is_silent_one = choice.is_default or self._is_above(choice.file)
        if self.verbose or (is_silent_one and not self.quiet):
            click.echo(f"is-db-bootstrap: blueprint {choice}", err=True)

    def _is_above(self, file: Path | None) -> bool:
        """Whether a TOML file was found above the working directory."""
        return file is not None and self.config is None and file.is_absolute()

    def refuse_others(
        self, blueprint: Blueprint, settings: Settings, stores: Sequence[StoreName]
    ) -> None:
        """Raise `StoreConflict` when nobody named the blueprint and a store carries others only."""
        from is_db_bootstrap.app import refuse_other_blueprints

        if self.choice().is_default:
            refuse_other_blueprints(blueprint, settings, stores)

    def with_choice(self, run_options: RunOptions) -> RunOptions:
        """`run_options` with who has named the blueprint of this call."""
        choice = self.choice()
        return replace(
            run_options,
            blueprint_source=choice.source,
            is_default_blueprint=choice.is_default,
            run_id=answer().run_id,
        )

    def run_options(
        self, *, retry_changes: tuple[str, ...] = (), try_url: str = "", **flags: Any
    ) -> RunOptions:
        """What the engine is told: the stores of this call, and the `flags` of its command."""
        from is_db_bootstrap.settings import RunOptions

        return RunOptions(
            only=self.only, skip=self.skip, retry_changes=retry_changes, try_url=try_url, **flags
        )

    def load_settings(
        self,
        blueprint: Blueprint,
        identities: Collection[StoreName] = (),
        without: Collection[StoreName] = (),
    ) -> Settings:
        """The settings of this call.

        The local stack is started when `--local` asks for it. `Settings.load` explains
        `identities` and `without`.
        """
        from is_db_bootstrap.settings import Settings

        flags: dict[str, Any] = {
            **self.urls,
            "timeout_s": self.timeout,
            "apply_timeout_s": self.apply_timeout,
            "phase_timeout_s": self.phase_timeout,
        }
        load = partial(
            Settings.load,
            blueprint,
            flags=flags,
            file=self.config,
            env_file=self.env_file,
            identities=identities,
            without=without,
        )
        if self.data_dir is not None and not self.use_local:
            raise click.UsageError("--data-dir without --local.")
        settings = load()
        if self.use_local:
            from is_db_bootstrap.cli._local_stack import local_environment

            chosen = [store for store in blueprint.stores if self._is_chosen(store)]
            environ = local_environment(settings, self.data_dir, chosen, quiet=self.quiet)
            settings = load(environ=environ)
        self._tell_settings(settings)
        return settings

    def _is_chosen(self, store: StoreName) -> bool:
        """Whether `--only` and `--skip` let this call use the store."""
        return store not in self.skip and (not self.only or store in self.only)

    def _tell_settings(self, settings: Settings) -> None:
        """Print on stderr a file above, and what is set and most likely not as it was meant.

        With `--verbose`, also what is passed over by rule.
        """
        told = [] if self.quiet else [f"warning: {each}" for each in settings.warnings]
        is_told_already = self.quiet or self.choice().file is not None
        if self._is_above(settings.file) and not is_told_already:
            told.append(f"settings of {settings.file}")
        told += settings.details if self.verbose else ()
        for each in told:
            click.echo(f"is-db-bootstrap: {each}", err=True)


def add_options(command: F, options: Sequence[Decorator]) -> F:
    """Give `command` these options. Its help lists them in this order."""
    decorated: Any = command
    for option in reversed(options):
        decorated = option(decorated)
    return cast("F", decorated)


def common_options(command: F) -> F:
    """Give `command` the common options. It receives them as one `Options`, first."""
    return _with_options(command, _COMMON_OPTIONS)


def plan_options(command: F) -> F:
    """Give a plan the common options. Its output may be a comment for a pull request too."""
    options = tuple(_PLAN_OUTPUT if option is OUTPUT else option for option in _COMMON_OPTIONS)
    return _with_options(command, options)


def check_options(command: F) -> F:
    """Give a command that checks the common options. Its output may be a report for CI too."""
    options = tuple(_CHECK_OUTPUT if option is OUTPUT else option for option in _COMMON_OPTIONS)
    return _with_options(command, options)


def apply_options(command: F) -> F:
    """Give `command` the common options, and the one that only bounds what is applied."""
    return _with_options(command, (*_COMMON_OPTIONS, APPLY_TIMEOUT))


def wait_options(command: F) -> F:
    """Give `command` the common options without the one for phases, because it only waits."""
    chosen = tuple(option for option in _COMMON_OPTIONS if option is not PHASE_TIMEOUT)
    return _with_options(command, chosen)


def refuse_missing_folder(result_file: Path | None) -> None:
    """Raise `click.UsageError` when no file can be made at the end in the place that was named."""
    if result_file is None:
        return
    folder = result_file.resolve().parent
    if not folder.is_dir():
        raise click.UsageError(f"--result-file: the folder {str(folder)!r} does not exist.")
    if not os.access(folder, os.W_OK):
        raise click.UsageError(f"--result-file: no file can be made in {str(folder)!r}.")


def _with_options(command: F, options: Sequence[Decorator]) -> F:
    @functools.wraps(command)
    def with_options(**parameters: Any) -> Any:
        urls = {f"{store}_url": parameters.pop(f"{store}_url") for store in STORE_ORDER}
        fields = [name for name in Options._fields if name != "urls"]
        values = {name: parameters.pop(name) for name in fields if name in parameters}
        refuse_missing_folder(answer().result_file)
        if values["quiet"] and values["verbose"]:
            raise click.UsageError("--quiet and --verbose exclude each other.")
        return command(Options(**values, urls=urls), **parameters)

    return add_options(cast("F", with_options), options)


def is_given(name: str) -> bool:
    """Whether the parameter `name` of the command that runs was typed on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def typed_name(name: str) -> str:
    """The option of the parameter `name`, as a person types it."""
    parameters = click.get_current_context().command.params
    return next(each.opts[0] for each in parameters if each.name == name)


def refuse_beside(flag: str, names: Sequence[str]) -> Callable[[F], F]:
    """A decorator: with the option `flag`, none of the parameters `names` may be given.

    The command would not obey them. Such a call ends with `click.UsageError`.
    """

    def add_to_command(command: F) -> F:
        @functools.wraps(command)
        def with_refusal(*args: Any, **parameters: Any) -> Any:
            others = [name for name in names if is_given(name)]
            if is_given(flag) and others:
                raise click.UsageError(
                    f"{typed_name(others[0])} has no meaning beside {typed_name(flag)}."
                )
            return command(*args, **parameters)

        return cast("F", with_refusal)

    return add_to_command
