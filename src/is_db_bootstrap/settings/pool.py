"""The pool of connections that an application asks for in its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from is_db_bootstrap.blueprint import PoolProfile
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings.sources import as_number

#: The field of each variable, the kind of its number, and the least that is taken.
_FIELDS = {
    "DB_POOL_MIN_SIZE": ("min_size", int, 0),
    "DB_POOL_MAX_SIZE": ("max_size", int, 1),
    "DB_POOL_TIMEOUT": ("acquire_timeout", float, 0),
    "DB_POOL_RECYCLE": ("recycle", float, 0),
    "DB_COMMAND_TIMEOUT": ("command_timeout", float, 0.001),
    "DB_PREPARE_THRESHOLD": ("prepare_threshold", int, 0),
}
#: What `none` switches off.
_OPTIONAL = {"command_timeout", "prepare_threshold"}


def pool_profile(declared: PoolProfile, environ: Mapping[str, str] | None = None) -> PoolProfile:
    """The blueprint's profile with what the environment says otherwise.

    `none` switches the command timeout and the prepare threshold off. Raises `ConfigurationError`
    that names the variable.
    """
    variables = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    for variable, (name, kind, least) in _FIELDS.items():
        text = variables.get(variable)
        if text and text.lower() == "none" and name in _OPTIONAL:
            given[name] = None
        elif text:
            given[name] = as_number(text, kind, variable, least)
    try:
        return replace(declared, **given)
    except ValueError as exc:
        raise ConfigurationError(f"DB_POOL_MIN_SIZE and DB_POOL_MAX_SIZE: {exc}") from exc
