"""A short storm of accidents. `benchmarks/accidents.py` plays the long one."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from accidents import Kills, Round, Servers, Storm, Tally, comparable, differences, disagreements

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.postgres,
    pytest.mark.neo4j,
    pytest.mark.milvus,
    pytest.mark.redis,
]
#: Seconds within which the runs of a round meet their accidents.
USUAL_S = 8
RUNS = 4
#: Seconds that the lease of a dead run without PostgreSQL lasts.
LEASE_S = 10


@pytest.fixture(scope="module")
def storm(farm, tmp_path_factory):
    """A storm on the servers of this session."""
    urls = {
        f"{store.upper()}_URL": farm.shared(store).url
        for store in ("postgres", "neo4j", "milvus", "redis")
    }
    servers = Servers(urls)
    made = Storm(servers, tmp_path_factory.mktemp("storm"), lease_s=LEASE_S)
    yield made
    made.close()
    servers.empty()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [4, 13])
def test_after_accidents_each_store_is_as_after_a_plain_run_and_each_exit_code_was_true(
    storm, seed
):
    chance = random.Random(seed)
    drawn = Round.drawn(chance, RUNS, USUAL_S, LEASE_S, blueprints=["novel_genesis"])
    faults = storm.weather(replace(drawn, seeded=True))
    assert not faults, f"seed {seed}:\n" + "\n".join(faults)


@pytest.mark.timeout(300)
def test_killed_applies_are_counted_and_their_reruns_judged(farm, tmp_path, capsys):
    servers = Servers({"POSTGRES_URL": farm.shared("postgres").url})
    tally = Kills(servers, tmp_path, "context_service").strike_all(2, random.Random(1))
    servers.empty(["context_service"])
    assert (tally.points, tally.converged, tally.doubled, tally.faults) == (2, 2, 0, 0)
    assert "context_service: 2 of 2 points" in capsys.readouterr().out
    assert tally.row().startswith("| context_service | 2 | ")


def test_kills_that_met_no_living_run_prove_nothing():
    tally = Tally("mplp", points=50, converged=50)
    assert tally.is_bad
    assert not replace(tally, alive=1).is_bad


def line_of(**given):
    """A line of a store with the record of a deployment that has one member."""
    member = {"address": "redis://127.0.0.1:1", "identity": "a", "place": "0", "holds": []}
    member |= given.pop("member", {})
    document = {"blueprint": "b", "fingerprint": "f", "format": 1, "key": "k1"}
    document |= {"members": {"redis": member}, "recorded_at": "t", "run_id": "r"} | given
    return f"key {document['key']}: {json.dumps(document | {'version': '0.1'})!r}"


@pytest.mark.parametrize(
    "other",
    [
        {"key": "k2", "run_id": "s", "recorded_at": "u"},
        {"member": {"identity": "b", "address": "redis://127.0.0.1:2"}},
    ],
)
def test_what_is_drawn_anew_for_each_deployment_is_no_difference(other):
    before, now = comparable({"redis": [line_of()]}), comparable({"redis": [line_of(**other)]})
    assert differences(before, now) == []


@pytest.mark.parametrize(
    "other",
    [{"fingerprint": "g"}, {"member": {"holds": ["rows"]}}, {"member": {"place": "1"}}],
)
def test_a_record_that_says_something_else_is_a_difference(other):
    before, now = comparable({"redis": [line_of()]}), comparable({"redis": [line_of(**other)]})
    assert [each.split(":")[0] for each in differences(before, now)]


def test_copies_of_a_record_that_name_two_identities_are_a_fault():
    lines = {"postgres": [line_of()], "redis": [line_of(member={"identity": "b"})]}
    assert disagreements({"redis": [line_of()]}) == []
    [fault] = disagreements(lines)
    assert fault.startswith("the records do not agree on redis")
