"""The machine and the program, as a bug report needs them. No secret is in it."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from is_db_bootstrap import __version__
from is_db_bootstrap.results import Fact, Machine
from is_db_bootstrap.settings.proxy import proxy_variables
from is_db_bootstrap.settings.timing import Timing
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.settings import Settings

#: The name under which this package is installed.
_OURS = "is-db-bootstrap"
#: Where a value comes from that nobody has set.
_DEFAULT = "default"


def this_machine(settings: Settings, stores: Collection[StoreName]) -> Machine:
    """What is known of this machine, with the settings in effect and the clients of `stores`."""
    return Machine(
        tool=__version__,
        python=f"{platform.python_version()} ({platform.python_implementation()}), {sys.prefix}",
        system=platform.platform(),
        versions=tuple(_versions({KINDS[store].client_extra for store in stores})),
        variables=tuple(Fact(name, value) for name, value in proxy_variables()),
        settings=tuple(_settings_in_effect(settings, stores)),
    )


def _versions(extras: Collection[str]) -> Iterator[Fact]:
    """The version of each package that these extras of ours install."""
    for requirement in importlib.metadata.requires(_OURS) or ():
        package = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        if extra is None or extra[1] not in extras:
            continue
        try:
            yield Fact(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield Fact(package, "not installed")


def _settings_in_effect(settings: Settings, stores: Collection[StoreName]) -> Iterator[Fact]:
    """Each setting with its value and its source. Values of a blueprint may be secrets."""
    for store in stores:
        url = settings.stores.get(store)
        if url is not None:
            yield Fact(f"address of {store}", f"{url} ({url.source})")
    if settings.file is not None:
        yield Fact("file", str(settings.file))
    yield Fact("schema", f"{settings.schema} ({settings.origins.get('schema', _DEFAULT)})")
    for each in fields(Timing):
        value = getattr(settings.timing, each.name)
        shown = "none" if value is None else f"{value:g}"
        yield Fact(each.name, f"{shown} ({settings.origins.get(each.name, _DEFAULT)})")
    for name in settings.values:
        yield Fact(name, f"not shown ({settings.origins.get(name, _DEFAULT)})")
    yield from (Fact("warning", warning) for warning in settings.warnings)
