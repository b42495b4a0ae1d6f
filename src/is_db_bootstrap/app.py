"""The wiring: the only module that knows which class carries which store, and which blueprints there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from is_db_bootstrap import client_imports
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.orchestrator import BootstrapOrchestrator, LockPolicy
from is_db_bootstrap.results import STORE_ORDER, Mode, StoreName
from is_db_bootstrap.settings import Settings, StoreUrl

if TYPE_CHECKING:
    from is_db_bootstrap.bootstrapper import DatabaseBootstrapper
    from is_db_bootstrap.events import Observer

STORES: Mapping[StoreName, str] = {
    "postgres": "is_db_bootstrap.stores.postgres.bootstrapper:PostgreSQLBootstrapper",
    "neo4j": "is_db_bootstrap.stores.neo4j.bootstrapper:Neo4jBootstrapper",
    "milvus": "is_db_bootstrap.stores.milvus.bootstrapper:MilvusBootstrapper",
    "redis": "is_db_bootstrap.stores.redis.bootstrapper:RedisBootstrapper",
}


#: Stores whose bootstrappers write the demo data of a blueprint when they are told to.
_SEEDED: frozenset[StoreName] = frozenset({"postgres", "neo4j"})


def bootstrapper(
    store: StoreName, url: StoreUrl, blueprint: Blueprint, settings: Settings, *, seed: bool = False
) -> DatabaseBootstrapper:
    """The bootstrapper of one store, with the demo data of the blueprint if `seed` says so.

    A `ConfigurationError` names the extra when the store's client is not installed.
    """
    module, _, name = STORES[store].partition(":")
    try:
        kind = getattr(client_imports.import_module(module), name)
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith(f"{__package__}."):
            raise
        raise ConfigurationError(
            f"{store}: its client library is not installed ({exc}).",
            hint=f"pip install 'is-db-bootstrap[{store}]'",
        ) from exc
    extra: dict[str, Any] = {"schema": settings.schema} if store == "postgres" else {}
    if store in _SEEDED:
        extra["seed"] = seed
    return cast("DatabaseBootstrapper", kind(url, blueprint, timing=settings.timing, **extra))


def chosen_stores(
    blueprint: Blueprint, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[StoreName, ...]:
    """The blueprint's stores without those left out; a `ConfigurationError` for one it does not have."""
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
    *,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    seed: bool = False,
    observers: Sequence[Observer] = (),
    strict: bool = False,
    allow_ahead: bool = True,
    verify: bool = True,
    follow: bool = False,
) -> BootstrapOrchestrator:
    """A ready orchestrator over the stores of `blueprint`, each at its address in `settings`."""
    resolved = blueprint.resolve(settings.values)
    chosen = chosen_stores(resolved, only, skip)
    urls = {store: settings.need(store) for store in chosen}
    built = [bootstrapper(store, url, resolved, settings, seed=seed) for store, url in urls.items()]
    return over(
        built, blueprint, settings, observers=observers, borrow=_lenders(resolved, settings, chosen), strict=strict,
        allow_ahead=allow_ahead, verify=verify, follow=follow,
    )  # fmt: skip


def over(
    stores: Sequence[DatabaseBootstrapper], blueprint: Blueprint, settings: Settings, *,
    observers: Sequence[Observer] = (), borrow: tuple[DatabaseBootstrapper, ...] = (), strict: bool = False, allow_ahead: bool = True,
    verify: bool = True, follow: bool = False,
) -> BootstrapOrchestrator:  # fmt: skip
    """An orchestrator over ready bootstrappers, with the times of `settings`."""
    timing = settings.timing
    lock = LockPolicy(
        borrow=borrow,
        heartbeat_s=timing.heartbeat(),
        grace_s=timing.grace_s,
        apply_timeout_s=timing.apply_timeout_s,
        follow=follow,
    )
    return BootstrapOrchestrator(
        stores, blueprint=blueprint.name, retry=timing.retry(), lock=lock, observers=observers, strict=strict,
        allow_ahead=allow_ahead, verify=verify,
    )  # fmt: skip


def _lenders(
    blueprint: Blueprint, settings: Settings, chosen: Sequence[StoreName]
) -> tuple[DatabaseBootstrapper, ...]:
    """Stores outside of this run that are stronger than all of its own and have an address, so that two runs meet there."""
    before = STORE_ORDER[: STORE_ORDER.index(chosen[0])]
    urls = {
        store: settings.stores.get(store)
        for store in before
        if store in blueprint.stores and store != "milvus"
    }
    return tuple(
        bootstrapper(s, url, blueprint, settings)
        for s, url in urls.items()
        if url and url.source != "default"
    )


def wait_ready(environ: Mapping[str, str], stores: Sequence[str], deadline_s: float) -> None:
    """Wait until every one of `stores` is usable at its address in `environ`; the first store's error otherwise."""
    blueprint = Blueprint("postgres", "readiness of servers that carry no blueprint yet")
    settings = Settings.load(blueprint, environ=environ, flags={"timeout_s": deadline_s})
    names = [s for s in STORE_ORDER if s in stores]
    built = [bootstrapper(s, settings.need(s), blueprint, settings) for s in names]
    policy = replace(settings.timing, retry_maximum_s=0.25).retry()
    result = BootstrapOrchestrator(built, retry=policy).run(Mode.WAIT)
    if not result.ok:
        result.raise_for_failure()
        raise StoreUnavailable(names[0], "The wait was interrupted.")
