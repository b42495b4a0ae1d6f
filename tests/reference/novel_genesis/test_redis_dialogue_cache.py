"""The dialogue cache of novel_genesis on real servers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import redis.asyncio

from is_db_bootstrap.blueprints.novel_genesis.cache import DialogueCache

pytestmark = [pytest.mark.redis, pytest.mark.parametrize("redis_url", ["6", "7"], indirect=True)]

MONTH_S = 2_592_000
SESSION = UUID("0190AF3E-7C5B-7A00-8000-00000000000A")


@pytest.fixture(params=[False, True], ids=["bytes", "text"])
async def client(request, redis_url):
    async with redis.asyncio.Redis.from_url(redis_url, decode_responses=request.param) as opened:
        yield opened


@pytest.fixture
def cache(client):
    return DialogueCache(client)


async def names(client):
    return sorted(k if isinstance(k, str) else k.decode() for k in await client.keys())


async def test_ng_18_the_key_shapes_are_exact(client, cache):
    await cache.save_session(SESSION, {})
    await cache.save_round(str(SESSION).upper(), "2.1", {})
    session = "dialogue:session:0190af3e-7c5b-7a00-8000-00000000000a"
    assert await names(client) == [session, f"{session}:round:2.1"]


async def test_ng_18_each_save_gives_thirty_days_and_renewal_restores_them(client, cache):
    await cache.save_session(SESSION, {"a": 1})
    await cache.save_round(SESSION, "1", {"b": 2})
    keys = [cache.session_key(SESSION), cache.round_key(SESSION, "1")]
    for key in keys:
        assert MONTH_S - 1 <= await client.ttl(key) <= MONTH_S
        await client.expire(key, 10)
    assert await cache.renew(SESSION) == 2
    for key in keys:
        assert MONTH_S - 1 <= await client.ttl(key) <= MONTH_S


async def test_ng_18_250_rounds_list_in_numeric_order_without_keys(client, cache):
    await client.config_resetstat()
    for number in range(250, 0, -1):
        await cache.save_round(SESSION, str(number), {"n": number})
    await cache.save_round(SESSION, "2.1", {"n": "2.1"})
    listed = await cache.list_rounds(SESSION)
    assert list(listed)[:4] == ["1", "2", "2.1", "3"]
    assert list(listed)[-1] == "250"
    assert listed["250"] == {"n": 250}
    assert await cache.renew(SESSION) == 251
    assert await cache.clear_rounds(SESSION) == 251
    assert "cmdstat_keys" not in await client.info("commandstats")


async def test_sessions_are_listed_once_and_apart_from_rounds_and_strangers(client, cache):
    ids = {uuid4() for _ in range(150)}
    for each in ids:
        await cache.save_session(each, {})
        await cache.save_round(each, "1", {})
    await client.set("dialogue:session:" + "x" * 36, "{}")
    listed = await cache.list_sessions()
    assert len(listed) == 150
    assert set(listed) == ids


async def test_deleting_says_how_many_there_were(cache):
    other = uuid4()
    for each in (SESSION, other):
        await cache.save_session(each, {})
        await cache.save_round(each, "1", {})
        await cache.save_round(each, "1.1", {})
    assert await cache.delete_round(SESSION, "1.1")
    assert not await cache.delete_round(SESSION, "1.1")
    assert await cache.delete_session(SESSION) == 2
    assert await cache.load_session(SESSION) is None
    assert list(await cache.list_rounds(other)) == ["1", "1.1"]


async def test_values_come_back_as_json(cache):
    when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    await cache.save_session(
        SESSION,
        {"id": SESSION, "at": when, "cost": Decimal("1.50"), "name": "ä", "deep": [{"x": None}]},
    )
    assert await cache.load_session(SESSION) == {
        "id": str(SESSION),
        "at": "2026-01-02T03:04:00+00:00",
        "cost": "1.50",
        "name": "ä",
        "deep": [{"x": None}],
    }


@pytest.mark.parametrize(
    "value", [{"x": object()}, {"x": {1, 2}}, {"x": float("nan")}, [1], "text"]
)
async def test_what_json_cannot_hold_is_a_type_error_and_nothing_is_sent(client, cache, value):
    with pytest.raises(TypeError):
        await cache.save_session(SESSION, value)
    assert await names(client) == []


@pytest.mark.parametrize("text", ["[1]", "nonsense", "3", b"\xff"])
async def test_a_value_that_is_no_object_counts_as_absent(redis_url, text):
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        cache = DialogueCache(client)
        await client.set(cache.round_key(SESSION, "1"), text)
        assert await cache.load_round(SESSION, "1") is None
        assert await cache.list_rounds(SESSION) == {}


@pytest.mark.parametrize(
    "ttl", [timedelta(0), timedelta(milliseconds=999), timedelta(days=30, seconds=1)]
)
async def test_a_lifetime_is_one_second_to_thirty_days(client, cache, ttl):
    with pytest.raises(ValueError, match="lifetime"):
        DialogueCache(client, ttl=ttl)
    with pytest.raises(ValueError, match="lifetime"):
        await cache.save_session(SESSION, {}, ttl=ttl)
