"""The wiring: bootstrappers of stores, and orchestrators, from a blueprint and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from is_db_bootstrap import client_imports
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprint.check import check, check_types
from is_db_bootstrap.blueprint.fingerprint import fingerprint as fingerprint_of
from is_db_bootstrap.blueprint.load import is_reference_blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator, LockPolicy, default_blueprint
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.engine.store import CanTellBlueprints
from is_db_bootstrap.errors import ConfigurationError, StoreUnavailable
from is_db_bootstrap.names import STORE_ORDER, StoreName
from is_db_bootstrap.results import Mode
from is_db_bootstrap.settings import DEFAULT_SOURCE, RunOptions, Settings, StoreUrl
from is_db_bootstrap.settings.hidden import without_variables
from is_db_bootstrap.stores.kinds import KINDS

if TYPE_CHECKING:
    from is_db_bootstrap.engine.bystanders import Bystander
    from is_db_bootstrap.engine.store import DatabaseBootstrapper
    from is_db_bootstrap.events import Observer
    from is_db_bootstrap.stores.kind import StoreKind

#: Longest pause in seconds of `wait_ready`, whose servers have just been started.
_READY_PAUSE_S = 0.25


def bootstrapper(
    store: StoreName,
    url: StoreUrl,
    blueprint: Blueprint,
    settings: Settings,
    *,
    seed: bool = False,
    here: bool = False,
    try_url: str = "",
) -> DatabaseBootstrapper:
    """The bootstrapper of one store, which writes the blueprint's demo data too if `seed` is set.

    With `here`, its self-test runs on the store itself. A plan may run on the server of `try_url`
    what it cannot see otherwise, where that is of the same kind.

    Raises `ConfigurationError`, which names the extra, when the store's client is not installed.
    """
    kind = KINDS[store]
    store_class = _bootstrapper_class(kind)
    options: dict[str, Any] = {}
    if kind.has_schemas:
        options["schema"] = settings.named_schema
    if kind.ignored_variable:
        options["ignored_version_tables"] = settings.ignored_version_tables
    if kind.unknown_variable:
        options["unknown_is_ahead"] = settings.unknown_is_ahead
    if kind.privileges_variable:
        options["compare_privileges"] = settings.compare_privileges
    if kind.takes_seed:
        options["seed"] = seed
    if kind.tests_elsewhere and not here:
        options["make_trial"] = partial(_selftest_trial, kind)
    if kind.tests_elsewhere:
        options["make_catalogue_trial"] = partial(_catalogue_trial, kind)
    if kind.tests_elsewhere and try_url:
        server = StoreUrl.parse(store, try_url, "--try")
        options["make_plan_trial"] = partial(_plan_trial, kind, server)
    made = store_class(url, blueprint, timing=settings.timing, **options)
    return cast("DatabaseBootstrapper", made)


def _selftest_trial(kind: StoreKind, *given: Any) -> Any:
    """A self-test of a kind of store in a place of its own. It runs a bootstrapper there itself."""
    module = client_imports.import_module(kind.module_name("selftest_trial"))
    return module.SelfTestTrial(*given)


def _catalogue_trial(kind: StoreKind, *given: Any) -> Any:
    """A trial of all revisions in a place of its own. It runs a bootstrapper there itself."""
    module = client_imports.import_module(kind.module_name("catalogue_trial"))
    return module.CatalogueTrial(*given)


def _plan_trial(kind: StoreKind, server: StoreUrl, *given: Any) -> Any:
    """A trial of pending changes on another server. It runs a bootstrapper there itself."""
    module = client_imports.import_module(kind.module_name("plan_trial"))
    return module.PlanTrial(server, *given)


def import_bootstrappers(stores: Sequence[StoreName]) -> None:
    """Import the clients of `stores`, one after the other, before threads need them.

    Raises `ConfigurationError`, which names the extra, when a store's client is not installed.
    """
    for store in stores:
        _bootstrapper_class(KINDS[store])


def _bootstrapper_class(kind: StoreKind) -> Any:
    """The class of a kind of store, for which its client is imported."""
    try:
        module = _imported(kind, "bootstrapper")
    except ModuleNotFoundError as exc:
        is_our_own_module = (exc.name or "").startswith(f"{__package__}.")
        if is_our_own_module:
            raise
        raise ConfigurationError(
            f"{kind.name}: its client library is not installed ({exc}).",
            hint=f"pip install 'is-db-bootstrap[{kind.client_extra}]'",
        ) from exc
    return getattr(module, kind.bootstrapper_class)


def _imported(kind: StoreKind, name: str) -> Any:
    """A module of a kind of store, with its client.

    Where a variable ends the import of the client, it is another program's. The client is then
    imported once more without it.
    """
    try:
        return client_imports.import_module(kind.module_name(name))
    except ImportError:
        raise
    except Exception:
        if not kind.import_variables:
            raise
    client_imports.forget(kind.client_package)
    with without_variables(kind.import_variables):
        return client_imports.import_module(kind.module_name(name))


def chosen_stores(
    blueprint: Blueprint, only: Sequence[str] = (), skip: Sequence[str] = ()
) -> tuple[StoreName, ...]:
    """The blueprint's stores without those that `only` and `skip` leave out.

    Raises `ConfigurationError` for a store that the blueprint does not have, when no store is left,
    and for a blueprint that declares nothing about any.
    """
    if not blueprint.stores:
        raise ConfigurationError(
            f"{blueprint.name} declares nothing about any store.",
            hint="A folder of migrations beside its module counts, and may be missing after a "
            "checkout: git keeps no empty folder.",
        )
    for name in (*only, *skip):
        if name not in blueprint.stores:
            raise ConfigurationError(
                f"{blueprint.name} has no store {name}.",
                hint=f"It has {', '.join(blueprint.stores)}.",
            )
    wanted = only or blueprint.stores
    chosen = tuple(store for store in blueprint.stores if store in wanted and store not in skip)
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
    resolved = checked(blueprint, settings)
    chosen = chosen_stores(resolved, options.only, options.skip)
    if options.try_url and not any(KINDS[store].tests_elsewhere for store in chosen):
        raise ConfigurationError(
            "--try is for stores that can be tried elsewhere, and this run has none of them.",
            hint="Leave --try out.",
        )
    for name in options.accept_reset:
        if name not in chosen:
            raise ConfigurationError(
                f"--accept-reset {name} is for a store of this run, which has {', '.join(chosen)}.",
                hint="Leave it out.",
            )
    urls = settings.need_each(chosen)
    built = [
        bootstrapper(
            store,
            url,
            resolved,
            settings,
            seed=options.seed,
            here=options.here,
            try_url=options.try_url,
        )
        for store, url in urls.items()
    ]
    lending = lending_stores(resolved, settings, chosen)
    return over(
        built,
        blueprint,
        settings,
        options,
        observers=observers,
        borrow=lending,
        fingerprint=fingerprint_of(blueprint, settings, resolved) if options.remembers else "",
        bystanders=bystanders_of(resolved, settings, chosen) if options.remembers else (),
    )


def checked(blueprint: Blueprint, settings: Settings) -> Blueprint:
    """The blueprint for these settings, whose declarations are right.

    Those of the reference systems are not checked: their tests do that.
    """
    if is_reference_blueprint(blueprint):
        return blueprint.resolve(settings.values)
    check_types(blueprint)
    resolved = blueprint.resolve(settings.values)
    check(resolved)
    return resolved


def over(
    stores: Sequence[DatabaseBootstrapper],
    blueprint: Blueprint,
    settings: Settings,
    options: RunOptions | None = None,
    *,
    observers: Sequence[Observer] = (),
    borrow: tuple[DatabaseBootstrapper, ...] = (),
    fingerprint: str = "",
    bystanders: Sequence[Bystander] = (),
) -> BootstrapOrchestrator:
    """An orchestrator over ready bootstrappers, with the times of `settings`.

    Without a `fingerprint`, the stores remember nothing of the run. What they remember of earlier
    runs counts all the same, unless `options` say otherwise.
    """
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
        retry_changes=options.retry_changes,
        accepted=options.accepted,
        blueprint_source=options.blueprint_source,
        is_default_blueprint=options.is_default_blueprint,
        run_id=options.run_id,
        fingerprint=fingerprint,
        accept_reset=options.accept_reset,
        judges_losses=options.remembers,
        declared_stores=blueprint.stores,
        is_one_of_many=options.is_one_of_many,
        climbs=options.climbs,
        bystanders=bystanders,
    )


def lending_stores(
    blueprint: Blueprint, settings: Settings, chosen: Sequence[StoreName]
) -> tuple[DatabaseBootstrapper, ...]:
    """Stores outside of this run that can lend this run a lock, so that two runs meet there.

    In store order, such a store comes before all stores of the run. Somebody has set the address of
    such a store.
    """
    before = STORE_ORDER[: STORE_ORDER.index(chosen[0])]
    able = [store for store in before if store in blueprint.stores and KINDS[store].can_lock]
    lending = []
    for store in able:
        url = settings.stores.get(store)
        if url is not None and url.source != DEFAULT_SOURCE:
            lending.append(bootstrapper(store, url, blueprint, settings))
    return tuple(lending)


def bystanders_of(
    blueprint: Blueprint, settings: Settings, chosen: Sequence[StoreName]
) -> tuple[Bystander, ...]:
    """The stores of the blueprint outside of this run, where somebody has set the address."""
    left_out = [store for store in blueprint.stores if store not in chosen]
    if not left_out:
        return ()
    from is_db_bootstrap.engine.bystanders import Bystander

    found = []
    for store in left_out:
        url = settings.stores.get(store)
        if url is not None and url.source != DEFAULT_SOURCE:
            make = partial(bootstrapper, store, url, blueprint, settings)
            found.append(Bystander(store, make))
    return tuple(found)


def refuse_other_blueprints(
    blueprint: Blueprint, settings: Settings, stores: Sequence[StoreName]
) -> None:
    """Raise `StoreConflict` when one of the stores carries other blueprints only, by its records.

    A command asks before it works on stores by a blueprint that nobody has named.
    """
    for name in stores:
        store = bootstrapper(name, settings.need(name), blueprint, settings)
        if not isinstance(store, CanTellBlueprints):
            continue
        try:
            recorded = store.recorded_blueprints()
            default_blueprint.refuse_other_blueprints(name, store.target, recorded, blueprint.name)
        finally:
            store.close()


def wait_ready(environ: Mapping[str, str], stores: Sequence[str], deadline_s: float) -> None:
    """Wait until every one of `stores` is usable at its address in `environ`.

    `deadline_s` is seconds. Raises the error of the first store that is not usable in time.
    """
    blueprint = Blueprint("postgres", "readiness of servers that carry no blueprint yet")
    settings = Settings.load(blueprint, environ=environ, flags={"timeout_s": deadline_s})
    names = [store for store in STORE_ORDER if store in stores]
    built = [bootstrapper(store, settings.need(store), blueprint, settings) for store in names]
    timing = replace(settings.timing, retry_maximum_s=_READY_PAUSE_S)
    result = BootstrapOrchestrator(built, retry=RetryPolicy.of(timing)).run(Mode.WAIT)
    if not result.ok:
        result.raise_for_failure()
        raise StoreUnavailable(names[0], "The wait was interrupted.")
