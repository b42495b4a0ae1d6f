"""Stores that live longer than a test: for the tests of a module, or for the whole session.

They are clean when they are first used. What one test writes, the next one finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

from is_db_bootstrap.testing.fixture_stores import (
    configured_blueprint,
    marked_blueprint,
    open_client,
    stores_of_scope,
    take_all,
)

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Blueprint
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.testing.session import Stores

_Scope = Literal["module", "session"]


@pytest.fixture(scope="session")
def is_db_shared_blueprint(request: pytest.FixtureRequest) -> str | Blueprint:
    """The blueprint of `session_…`, and of `module_…` where the module has no marker.

    Override this fixture, with the scope "session", to choose another blueprint.
    """
    return configured_blueprint(request.config)


@pytest.fixture(scope="module")
def _is_db_module_stores(request: pytest.FixtureRequest) -> Iterator[Stores]:
    blueprint = marked_blueprint(request) or request.getfixturevalue("is_db_shared_blueprint")
    with stores_of_scope(request, "module", blueprint) as stores:
        yield stores


@pytest.fixture(scope="session")
def _is_db_session_stores(
    request: pytest.FixtureRequest, is_db_shared_blueprint: str | Blueprint
) -> Iterator[Stores]:
    with stores_of_scope(request, "session", is_db_shared_blueprint) as stores:
        yield stores


def _client_fixture(scope: _Scope, store: StoreName) -> Any:
    """The fixture that gives a client on the store of a scope."""

    def client(request: pytest.FixtureRequest) -> Any:
        return open_client(request.getfixturevalue(f"_is_db_{scope}_stores"), store)

    client.__doc__ = f"As `{store}`, but one for the {scope}. Its tests see what each other wrote."
    return pytest.fixture(scope=scope, name=f"{scope}_{store}")(client)


def _stores_fixture(scope: _Scope) -> Any:
    """The fixture that gives all stores of a scope."""

    def all_stores(request: pytest.FixtureRequest) -> Stores:
        return take_all(request.getfixturevalue(f"_is_db_{scope}_stores"))

    all_stores.__doc__ = f"As `stores`, but for the {scope}."
    return pytest.fixture(scope=scope, name=f"{scope}_stores")(all_stores)


module_postgres = _client_fixture("module", "postgres")
module_neo4j = _client_fixture("module", "neo4j")
module_milvus = _client_fixture("module", "milvus")
module_redis = _client_fixture("module", "redis")
module_stores = _stores_fixture("module")
session_postgres = _client_fixture("session", "postgres")
session_neo4j = _client_fixture("session", "neo4j")
session_milvus = _client_fixture("session", "milvus")
session_redis = _client_fixture("session", "redis")
session_stores = _stores_fixture("session")
