"""One function per store makes a client of an address.

What the engine takes, all others take too.
"""

from dataclasses import replace

import pytest
from sqlalchemy import text

from is_db_bootstrap.access import Database
from is_db_bootstrap.blueprint import Blueprint, PoolProfile
from is_db_bootstrap.blueprints.helpdesk import database as helpdesk
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.milvus.connection import client_arguments as milvus_arguments
from is_db_bootstrap.stores.postgres.bootstrapper import PostgreSQLBootstrapper
from is_db_bootstrap.testing.clients import open_async_client, open_client

pytestmark = pytest.mark.postgres

#: How one database may be written.
ADDRESSES = {
    "plain": "postgresql://{user}@{host}/{database}",
    "asyncpg with ssl": "postgresql+asyncpg://{user}@{host}/{database}?ssl=prefer",
    "asyncpg with its cache": (
        "postgresql+asyncpg://{user}@{host}/{database}?prepared_statement_cache_size=0"
    ),
    "psycopg2": "postgresql+psycopg2://{user}@{host}/{database}?sslmode=prefer",
    "two hosts": "postgresql://{user}@127.0.0.1:1,{host}/{database}",
    "two hosts of asyncpg": "postgresql+asyncpg://{user}@127.0.0.1:1,{host}/{database}?ssl=prefer",
    "all in the query": "postgresql://{host}/?user={name}&password={password}&dbname={database}",
    "options": "postgresql://{user}@{host}/{database}?options=-c%20work_mem%3D8MB",
}


def written(url, form):
    found = StoreUrl.parse("postgres", url)
    user = found.reveal().partition("://")[2].partition("@")[0]
    name, _, password = user.partition(":")
    return ADDRESSES[form].format(
        user=user, name=name, password=password, host=found.hosts, database=found.database
    )


def by_engine(url):
    store = PostgreSQLBootstrapper(url, Blueprint("story", ""))
    try:
        return store.ping(30).version
    finally:
        store.close()


def by_fixture(url):
    engine, close = open_client("postgres", url, "public")
    try:
        with engine.connect() as connection:
            return connection.execute(text("SHOW server_version")).scalar()
    finally:
        close()


async def by_async_fixture(url):
    engine, close = open_async_client("postgres", url, "public")
    try:
        async with engine.connect() as connection:
            return (await connection.execute(text("SHOW server_version"))).scalar()
    finally:
        await close()


async def by_access(url):
    async with Database(url, profile=PoolProfile(min_size=1, max_size=1)) as database:
        return await database.fetchval("SHOW server_version")


def by_reference_system(url):
    engine = helpdesk._build_engine(helpdesk.DatabaseConfig(url))
    try:
        with engine.connect() as connection:
            return connection.execute(text("SHOW server_version")).scalar()
    finally:
        engine.dispose()


@pytest.mark.parametrize("form", ADDRESSES)
async def test_engine_fixtures_and_access_take_the_same_addresses(postgres_url, form):
    url = StoreUrl.parse("postgres", written(postgres_url, form))
    database = replace(url, database="postgres")
    seen = {
        by_engine(database),
        by_fixture(database).split()[0],
        (await by_async_fixture(database)).split()[0],
        (await by_access(database)).split()[0],
        by_reference_system(database).split()[0],
    }
    assert len(seen) == 1


def test_a_fixture_keeps_the_options_of_an_address_beside_its_schema(postgres_url):
    url = StoreUrl.parse("postgres", written(postgres_url, "options"))
    engine, close = open_client("postgres", replace(url, database="postgres"), "my schema")
    with engine.connect() as connection:
        assert connection.execute(text("SHOW work_mem")).scalar() == "8MB"
        assert connection.execute(text("SHOW search_path")).scalar() == '"my schema", public'
    close()


def test_a_token_of_milvus_is_a_token_for_every_client():
    """In a fixture it was a user without a password before."""
    for text_ in ("http://token@h", "http://:token@h"):
        assert milvus_arguments(StoreUrl.parse("milvus", text_))["token"] == "token"
    pair = milvus_arguments(StoreUrl.parse("milvus", "https://root:Milvus@h"))
    assert (pair["token"], pair["uri"]) == ("root:Milvus", "https://h:443")
