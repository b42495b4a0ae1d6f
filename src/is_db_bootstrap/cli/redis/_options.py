"""What the commands on keys share: their options, and how the store is opened."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from is_db_bootstrap.cli._options import (
    BLUEPRINT,
    CONFIG,
    DATA_DIR,
    ENV_FILE,
    LOCAL,
    NOTED_QUIET,
    NOTED_TERMINATION_LOG,
    OUTPUT,
    Options,
    add_options,
)

if TYPE_CHECKING:
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.stores.redis.keyspace import Keyspace

F = TypeVar("F", bound=Callable[..., Any])

_STORE: StoreName = "redis"
_KEY_OPTIONS = (
    BLUEPRINT,
    click.option("--redis-url", metavar="URL", help="Address of redis."),
    OUTPUT,
    NOTED_QUIET,
    NOTED_TERMINATION_LOG,
    CONFIG,
    ENV_FILE,
    LOCAL,
    DATA_DIR,
)
_PLAIN_PARAMETERS = ("blueprint", "output", "config", "env_file", "use_local", "data_dir")


def key_options(command: F) -> F:
    """Give `command` the options that name a blueprint and its Redis.

    It receives the names of the blueprint and of the server, the store that is not open yet, and
    what stdout gets.
    """

    @functools.wraps(command)
    def with_keyspace(*, redis_url: str | None, **parameters: Any) -> Any:
        from is_db_bootstrap.cli._run import prepare_clients

        values = {name: parameters.pop(name) for name in _PLAIN_PARAMETERS}
        options = Options(only=(_STORE,), urls={"redis_url": redis_url}, **values)
        prepare_clients()
        blueprint, target, keyspace = _open_keyspace(options)
        return command(blueprint, target, keyspace, output=options.output, **parameters)

    return add_options(cast("F", with_keyspace), _KEY_OPTIONS)


def _open_keyspace(options: Options) -> tuple[str, str, Keyspace]:
    from is_db_bootstrap.app import checked
    from is_db_bootstrap.stores.redis.keyspace import Keyspace

    declared = options.load_blueprint()
    settings = options.load_settings(declared)
    blueprint = checked(declared, settings)
    url = settings.need(_STORE)
    return blueprint.name, str(url), Keyspace(url, blueprint, settings.timing)
