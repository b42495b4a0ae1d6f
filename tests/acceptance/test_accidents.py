"""A short storm of accidents. `benchmarks/accidents.py` plays the long one."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from accidents import Round, Servers, Storm

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
