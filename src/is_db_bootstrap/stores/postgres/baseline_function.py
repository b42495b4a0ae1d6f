"""A team's own function that makes its tables, and what it is called with."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.errors import ConfigurationError

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Baseline

#: A parameter of this name gets an engine, and one of the other name the address.
ENGINE, ADDRESS = "engine", "url"


class Call(Enum):
    """What a function is called with."""

    #: A connection of ours, in whose transaction the revision is recorded too.
    CONNECTION = "connection"
    #: An engine of ours, from which it takes connections itself.
    ENGINE = "engine"
    #: The address of the run, with its password.
    ADDRESS = "address"
    #: Nothing: it knows its database by its own settings.
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class BaselineFunction:
    """A function that was found, and how it is called."""

    function: Callable[..., Any]
    call: Call

    def run(self, *given: Any) -> None:
        """Call it, and wait for what an `async` function does."""
        made = self.function(*given)
        if inspect.iscoroutine(made):
            asyncio.run(made)


@contextmanager
def importable(declared: Baseline) -> Iterator[None]:
    """Let modules be found in the folder that declares the baseline, meanwhile."""
    before = list(sys.path)
    if declared.folder is not None:
        sys.path.insert(0, str(declared.folder))
    try:
        yield
    finally:
        sys.path[:] = before


def found_function(declared: Baseline) -> BaselineFunction:
    """The function that is declared. What its module raises at its import passes.

    Raises `ConfigurationError` when there is none, or when it needs several arguments.
    """
    dotted, _, path = declared.source.partition(":")
    found: Any = importlib.import_module(dotted)
    for name in path.split("."):
        if not hasattr(found, name):
            raise ConfigurationError(f"baseline {declared.source!r}: there is no {name}.")
        found = getattr(found, name)
    if not callable(found):
        raise ConfigurationError(f"baseline {declared.source!r} is no function.")
    return BaselineFunction(found, _call_of(declared, found))


def _call_of(declared: Baseline, function: Callable[..., Any]) -> Call:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as exc:
        raise ConfigurationError(
            f"baseline {declared.source!r}: Python cannot tell what it takes: {exc}.",
            hint="Name a function of your own that calls it.",
        ) from exc
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        each
        for each in parameters
        if each.default is inspect.Parameter.empty and each.kind not in variable
    ]
    is_keyword = any(each.kind is inspect.Parameter.KEYWORD_ONLY for each in needed)
    if len(needed) > 1 or is_keyword:
        names = ", ".join(each.name for each in needed)
        raise ConfigurationError(
            f"baseline {declared.source!r} needs {names}, and gets one argument at most.",
            hint="Name a function of your own that takes a connection, an engine, a url or "
            "nothing, and calls it.",
        )
    if not needed:
        return Call.NOTHING
    return {ENGINE: Call.ENGINE, ADDRESS: Call.ADDRESS}.get(needed[0].name, Call.CONNECTION)
