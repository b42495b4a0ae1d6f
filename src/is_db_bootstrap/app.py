"""The wiring: bootstrappers and an orchestrator over them, from a blueprint and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from is_db_bootstrap import client_imports
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import RunOptions, Settings, StoreUrl
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.engine.store import DatabaseBootstrapper
    from is_db_bootstrap.events import Observer


def bootstrapper(
    store: StoreName, url: StoreUrl, blueprint: Blueprint, settings: Settings, *, seed: bool = False
) -> DatabaseBootstrapper:
    """The bootstrapper of one store, with the demo data of the blueprint if `seed` says so.

    A `ConfigurationError` names the extra when the store's client is not installed.
    """
    kind = KINDS[store]
    try:
        module = client_imports.import_module(kind.module_name("bootstrapper"))
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith(f"{__package__}."):
            raise
        raise ConfigurationError(
            f"{store}: its client library is not installed ({exc}).",
            hint=f"pip install 'is-db-bootstrap[{kind.client_extra}]'",
        ) from exc
    options: dict[str, Any] = {"schema": settings.schema} if kind.has_schemas else {}
    if kind.takes_seed:
        options["seed"] = seed
    store_class = getattr(module, kind.bootstrapper_class)
    made = store_class(url, blueprint, timing=settings.timing, **options)
    return cast("DatabaseBootstrapper", made)


def chosen_stores(
    blueprint: Blueprint, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[StoreName, ...]:
    """The blueprint's stores without those left out.

    Raises `ConfigurationError` for a store that the blueprint does not have.
    """
    for name in (*only, *skip):
        if name not in blueprint.stores:
            raise ConfigurationError(
                f"{blueprint.name} has no store {name}.",
                hint=f"It has {', '.join(blueprint.stores)}.",
            )
    chosen = tuple(s for s in blueprint.stores if (not only or s in only) and s not in skip)
    if not chosen:
        raise ConfigurationError("--only and --skip leave no store.")
    return chosen


def orchestrator(
    blueprint: Blueprint,
    settings: Settings,
    options: RunOptions | None = None,
    *,
    observers: Sequence[Observer] = (),
) -> BootstrapOrchestrator:
    """A ready orchestrator over the stores of `blueprint`, each at its address in `settings`."""
    options = options or RunOptions()
    resolved = blueprint.resolve(settings.values)
    chosen = chosen_stores(resolved, options.only, options.skip)
    urls = {store: settings.need(store) for store in chosen}
    built = [
        bootstrapper(store, url, resolved, settings, seed=options.seed)
        for store, url in urls.items()
    ]
    lenders = _lenders(resolved, settings, chosen)
    return over(built, blueprint, settings, options, observers=observers, borrow=lenders)


def over(
    stores: Sequence[DatabaseBootstrapper],
    blueprint: Blueprint,
    settings: Settings,
    options: RunOptions | None = None,
    *,
    observers: Sequence[Observer] = (),
    borrow: tuple[DatabaseBootstrapper, ...] = (),
) -> BootstrapOrchestrator:
    """An orchestrator over ready bootstrappers, with the times of `settings`."""
    options = options or RunOptions()
    return BootstrapOrchestrator(
        stores,
        blueprint=blueprint.name,
        retry=RetryPolicy.of(settings.timing),
        lock=LockPolicy.of(settings.timing, borrow=borrow, follow=options.follow),
        observers=observers,
        strict=options.strict,
        allow_ahead=options.allow_ahead,
        verify=options.verify,
    )


def _lenders(
    blueprint: Blueprint, settings: Settings, chosen: Sequence[StoreName]
) -> tuple[DatabaseBootstrapper, ...]:
    """Stores outside of this run that can lend it a lock, so that two runs meet there.

    They come before all of its own stores, and have an address.
    """
    before = STORE_ORDER[: STORE_ORDER.index(chosen[0])]
    urls = {
        store: settings.stores.get(store)
        for store in before
        if store in blueprint.stores and KINDS[store].can_lock
    }
    return tuple(
        bootstrapper(s, url, blueprint, settings)
        for s, url in urls.items()
        if url and url.source != "default"
    )


def wait_ready(environ: Mapping[str, str], stores: Sequence[str], deadline_s: float) -> None:
    """Wait until every one of `stores` is usable at its address in `environ`.

    Raises the error of the first store that is not usable in time.
    """
    blueprint = Blueprint("postgres", "readiness of servers that carry no blueprint yet")
    settings = Settings.load(blueprint, environ=environ, flags={"timeout_s": deadline_s})
    names = [s for s in STORE_ORDER if s in stores]
    built = [bootstrapper(s, settings.need(s), blueprint, settings) for s in names]
    policy = RetryPolicy.of(replace(settings.timing, retry_maximum_s=0.25))
    result = BootstrapOrchestrator(built, retry=policy).run(Mode.WAIT)
    if not result.ok:
        result.raise_for_failure()
        raise StoreUnavailable(names[0], "The wait was interrupted.")
