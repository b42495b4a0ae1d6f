"""A blueprint that nobody named is told, and is not for stores that carry another one."""

import asyncio
import json

import pytest

from commands import run_here
from is_db_bootstrap.access import close_db, init_db
from is_db_bootstrap.errors import StoreConflict

SOURCE = "no --blueprint, no IS_DB_BOOTSTRAP_BLUEPRINT, no project file"
TOLD = f"is-db-bootstrap: blueprint novel_genesis ({SOURCE})"
SHOP = """
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index, KeyPattern

FIELDS = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=4))
INDEX = Index("v", "FLAT", "IP", {})
BLUEPRINT = Blueprint(
    "shop",
    "for tests",
    collections=(Collection("shop_items_v1", FIELDS, indexes=(INDEX,)),),
    keys=(KeyPattern("cart", "shop:cart:{id}", "string", 60, "app", "carts"),),
)
"""
REVISION = """
revision = "sh10"
down_revision = None


def upgrade():
    from alembic import op
    op.execute("CREATE TABLE item (id int PRIMARY KEY)")


def downgrade():
    from alembic import op
    op.execute("DROP TABLE item")
"""
CYPHER = "CREATE CONSTRAINT shop_item IF NOT EXISTS FOR (i:ShopItem) REQUIRE i.id IS UNIQUE;\n"


@pytest.fixture
def shop(tmp_path):
    """A folder with a blueprint over all four stores."""
    folder = tmp_path / "shop"
    for name in ("migrations", "cypher"):
        (folder / name).mkdir(parents=True)
    (folder / "blueprint.py").write_text(SHOP)
    (folder / "migrations" / "sh10_item.py").write_text(REVISION)
    (folder / "cypher" / "V0001__item.cypher").write_text(CYPHER)
    return folder


@pytest.fixture
def empty(tmp_path):
    """A folder in which nothing names a blueprint."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def environment(store, url, **more):
    name = f"{store.upper()}_URL"
    return {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", name: url, **more}


STORES = [
    pytest.param(store, marks=getattr(pytest.mark, store))
    for store in ("postgres", "neo4j", "milvus", "redis")
]


@pytest.mark.parametrize("store", STORES)
def test_the_default_is_refused_by_a_store_that_carries_another_one(store, shop, empty, request):
    url = request.getfixturevalue(f"{store}_url")
    own_schema = {"DB_SCHEMA": "shop"} if store == "postgres" else {}
    environ = environment(store, url, **own_schema)
    code, out, err = run_here(("apply", "-b", shop, "--only", store), empty, environ)
    assert code == 0, out + err
    environ = environment(store, url)
    for command in ("plan", "apply", "verify"):
        code, out, err = run_here((command, "--only", store, "-o", "json"), empty, environ)
        [found] = json.loads(out)["stores"]
        assert code == 6, err
        assert "carries the blueprint shop" in found["error"]["message"]
        assert "--blueprint shop" in found["error"]["hint"]
        assert TOLD in err
    code, out, err = run_here(("plan", "-b", "novel_genesis", "--only", store), empty, environ)
    is_shared = store != "neo4j"  # the history of a graph is one blueprint's
    assert code == (0 if is_shared else 6), out + err


@pytest.mark.redis
def test_the_default_works_on_an_empty_store_and_again(empty, redis_url):
    environ = environment("redis", redis_url)
    for outcome in ("changed", "unchanged"):
        code, out, err = run_here(("apply", "--only", "redis", "-o", "json"), empty, environ)
        found = json.loads(out)
        assert (code, found["outcome"]) == (0, outcome)
        assert (found["blueprint"], found["blueprint_source"]) == ("novel_genesis", SOURCE)
        assert err.count(TOLD) == 1


@pytest.mark.redis
@pytest.mark.parametrize(
    "command", [("redis", "audit"), ("redis", "fix-ttl", "--yes"), ("selftest",), ("status",)]
)
def test_every_command_refuses_it(command, shop, empty, redis_url):
    environ = environment("redis", redis_url)
    assert run_here(("apply", "-b", shop, "--only", "redis"), empty, environ)[0] == 0
    only = () if command[0] == "redis" else ("--only", "redis")
    code, out, err = run_here((*command, *only), empty, environ)
    assert code == 6
    assert "carries the blueprint shop" in " ".join((out + err).split())


@pytest.mark.postgres
@pytest.mark.parametrize(
    "command", [("init",), ("upgrade",), ("downgrade", "--yes"), ("stamp", "base", "--yes")]
)
def test_no_migrate_command_takes_it_beside_another_one(command, shop, empty, postgres_url):
    environ = environment("postgres", postgres_url)
    in_schema = {**environ, "DB_SCHEMA": "shop"}
    assert run_here(("migrate", "init", "-b", shop), empty, in_schema)[0] == 0
    code, out, err = run_here(("migrate", *command), empty, environ)
    assert (code, out) == (1, "")
    assert "carries the blueprint shop" in err


@pytest.mark.milvus
def test_no_vector_command_takes_it_beside_another_one(shop, empty, milvus_url):
    environ = environment("milvus", milvus_url)
    assert run_here(("apply", "-b", shop, "--only", "milvus"), empty, environ)[0] == 0
    code, _, err = run_here(("vector", "status"), empty, environ)
    assert code == 6
    assert "carries the blueprint shop" in err


@pytest.mark.postgres
def test_a_service_opens_no_default_beside_another_one_and_its_own_by_its_folder(
    shop, empty, postgres_url, caplog, monkeypatch
):
    monkeypatch.chdir(empty)

    async def opened(environ):
        database = await init_db(environ=environ, migrate=True)
        await close_db()
        return database

    own = {"POSTGRES_URL": postgres_url, "IS_DB_BOOTSTRAP_BLUEPRINT": str(shop)}
    asyncio.run(opened({**own, "DB_SCHEMA": "shop"}))
    assert SOURCE not in caplog.text
    with pytest.raises(StoreConflict, match="carries the blueprint shop"):
        asyncio.run(opened({"POSTGRES_URL": postgres_url}))
    assert SOURCE in caplog.text


# --- what is told


@pytest.mark.parametrize("options", [("-q",), ("-b", "novel_genesis")])
def test_nothing_is_told_when_it_was_named_or_quiet_was_asked_for(options, empty):
    environ = environment("redis", "redis://127.0.0.1:1/0")
    args = ("wait", "--timeout", "0", "--only", "redis", *options)
    assert TOLD not in run_here(args, empty, environ)[2]


def test_verbose_tells_who_named_it(empty):
    environ = environment("redis", "redis://127.0.0.1:1/0")
    args = ("wait", "--timeout", "0", "--only", "redis", "-v")
    environ["IS_DB_BOOTSTRAP_BLUEPRINT"] = "novel_genesis"
    told = "blueprint novel_genesis (IS_DB_BOOTSTRAP_BLUEPRINT)"
    assert told in run_here(args, empty, environ)[2]


@pytest.mark.parametrize("command", [("migrate", "history"), ("check",), ("migrate", "sql")])
def test_a_command_without_a_server_tells_it_too(command, empty):
    code, _, err = run_here(command, empty, {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})
    assert (code, TOLD in err) == (0, True)


def test_a_project_file_above_is_named(shop, empty):
    (empty / "is-db-bootstrap.toml").write_text('blueprint = "../shop"\n')
    (empty / "deeper").mkdir()
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    code, out, err = run_here(("migrate", "history"), empty / "deeper", environ)
    assert (code, "sh10" in out) == (0, True)
    assert f"blueprint ../shop (blueprint in {empty / 'is-db-bootstrap.toml'})" in err


def test_a_project_file_above_is_named_also_when_it_names_no_blueprint(empty):
    path = empty / "is-db-bootstrap.toml"
    path.write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n')
    (empty / "deeper").mkdir()
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    args = ("wait", "-b", "novel_genesis", "--only", "redis", "--timeout", "0")
    told = f"is-db-bootstrap: settings of {path}\n"
    assert told in run_here(args, empty / "deeper", environ)[2]
    assert told not in run_here((*args, "-q"), empty / "deeper", environ)[2]
    assert "settings of" not in run_here(args, empty, environ)[2]


def test_the_folder_of_a_blueprint_is_not_passed_over(shop):
    environ = environment("redis", "redis://127.0.0.1:1/0")
    code, _, err = run_here(("apply", "--only", "redis"), shop, environ)
    assert code == 2
    assert "--blueprint ." in err


# --- what every run would repeat


@pytest.mark.milvus
def test_what_milvus_lite_never_tells_is_said_by_verify_and_when_asked_for(empty, milvus_url):
    environ = environment("milvus", milvus_url)
    note = "does not tell"
    args = ("-b", "novel_genesis", "--only", "milvus")
    shown = {
        command: note in run_here((*command.split(), *args), empty, environ)[1]
        for command in ("apply", "apply -v", "plan", "status", "verify", "setup --yes")
    }
    assert shown == {
        "apply": False,
        "apply -v": True,
        "plan": False,
        "status": False,
        "verify": True,
        "setup --yes": True,  # its last step verifies
    }
    [store] = json.loads(run_here(("apply", *args, "-o", "json"), empty, environ)[1])["stores"]
    assert any(note in each for each in store["notes"])
