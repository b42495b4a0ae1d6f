"""How many queries a run sends to Neo4j.

The server compiles each query anew after each schema change, 10 to 100 ms each. Seconds differ from
machine to machine, and this number does not.
"""

from __future__ import annotations

from collections import Counter

import neo4j
import pytest

from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.results import Outcome
from is_db_bootstrap.settings import Timing
from is_db_bootstrap.stores.neo4j import lock, memory_node, waiting
from is_db_bootstrap.stores.neo4j.bootstrapper import Neo4jBootstrapper

pytestmark = pytest.mark.neo4j
SOON_S = 60
#: Sent when time has passed: to renew the lease, and to see what a slow statement waits for.
BY_THE_CLOCK = {lock.CONFIRM, waiting.READ, waiting.BUILDING}

#: The queries of a first run of two files, besides the declared statements. Three of these are
#: only sent when an index is not ONLINE at the first look. Two read the memory: a plan without a
#: history does not read it by itself, and there are two plans.
FIRST_RUN = 38
#: The server, the database, the history, the constraints, the indexes, the lock, and the last two
#: again to verify.
NOTHING_TO_DO = 8


@pytest.fixture
def sent(monkeypatch):
    """The texts of the queries that the client sends, in their order."""
    texts = []

    def note(method):
        def run(self, query, *given, **more):
            text = str(getattr(query, "text", query))
            if text not in BY_THE_CLOCK:
                texts.append(text)
            return method(self, query, *given, **more)

        return run

    for one in (neo4j.Session, neo4j.Transaction):
        monkeypatch.setattr(one, "run", note(one.run))
    return texts


@pytest.fixture
def apply(neo4j_url, tmp_path):
    """Adds a file of so many constraints or indexes for each pair, and applies what is pending."""

    def run(*files: tuple[str, int]) -> Outcome:
        number = len(list(tmp_path.iterdir()))
        for kind, count in files:
            number += 1
            lines = [_declared(kind, f"n{number}_{each}") for each in range(count)]
            (tmp_path / f"V{number}__a.cypher").write_text("\n".join(lines))
        blueprint = Blueprint("mine", "test", cypher=tmp_path)
        store = Neo4jBootstrapper(neo4j_url, blueprint, timing=Timing(connect_timeout_s=SOON_S))
        result = BootstrapOrchestrator([store], retry=RetryPolicy(deadline_s=SOON_S)).run()
        return result.outcome

    return run


def _declared(kind: str, name: str) -> str:
    if kind == "index":
        return f"CREATE INDEX {name} IF NOT EXISTS FOR (n:X) ON (n.{name});"
    return f"CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:X) REQUIRE n.{name} IS UNIQUE;"


def test_each_schema_statement_of_a_first_run_is_one_query(apply, sent):
    assert apply(("constraint", 8), ("index", 9)) is Outcome.CHANGED
    declared = [text for text in sent if "IF NOT EXISTS FOR (n:X)" in text]
    assert len(declared) == 8 + 9
    assert len(sent) - len(declared) <= FIRST_RUN, Counter(sent)


@pytest.mark.parametrize("kind", ["constraint", "index"])
def test_a_longer_file_costs_only_its_statements(apply, sent, kind):
    apply((kind, 1))
    sizes = []
    for count in (2, 12):
        sent.clear()
        assert apply((kind, count)) is Outcome.CHANGED
        # Whether an index is ONLINE at the first look is a matter of time.
        sizes.append(len([text for text in sent if "awaitIndex" not in text]))
    assert sizes[1] - sizes[0] <= 10 + 1, Counter(sent)


def test_a_run_with_nothing_to_do_sends_eight_queries(apply, sent):
    apply(("constraint", 2))
    sent.clear()
    assert apply() is Outcome.UNCHANGED
    assert len(sent) <= NOTHING_TO_DO, Counter(sent)
    assert memory_node.READ_WITH_HISTORY in sent
