"""What a person sees at a terminal while a run goes on: real stores, and a phase that takes time."""

from __future__ import annotations

import json
import re

import pytest

from commands import at_terminal
from is_db_bootstrap.events import Event, Phase
from is_db_bootstrap.render.live import LiveProgress
from is_db_bootstrap.results import ChangeResult, Outcome

BLUEPRINT = """
from pathlib import Path

from is_db_bootstrap.blueprint import Blueprint, KeyPattern

BLUEPRINT = Blueprint(
    "slow",
    "takes a while",
    migrations=Path(__file__).parent / "migrations",
    keys=(KeyPattern("cart", "cart:{id}", "string", 60, "app", "for tests"),),
)
"""
REVISION = '''"""Takes its time."""
from alembic import op

revision = "slow_{number}"
down_revision = {before}


def upgrade():
    op.execute("SELECT pg_sleep(1.2)")


def downgrade():
    pass
'''


def without_colours(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_a_terminal_shows_what_is_done_elapsed_and_left_in_the_order_of_the_table(
    tmp_path, postgres_url, redis_url
):
    """Redis is done long before PostgreSQL, and still stands below it."""
    folder = tmp_path / "slow"
    (folder / "migrations").mkdir(parents=True)
    (folder / "blueprint.py").write_text(BLUEPRINT, encoding="utf-8")
    for number, before in ((1, None), (2, "slow_1")):
        text = REVISION.format(number=number, before=json.dumps(before).replace("null", "None"))
        (folder / "migrations" / f"slow_{number}.py").write_text(text, encoding="utf-8")
    code, seen = at_terminal(
        "apply",
        "--blueprint",
        "slow",
        "--apply-timeout",
        "500",
        folder=tmp_path,
        environ={"POSTGRES_URL": postgres_url, "REDIS_URL": redis_url},
    )
    assert code == 0, seen
    plain = without_colours(seen)
    counts = [int(count) for count in re.findall(r"postgres [^\n\r]*?(\d) of 3 done", plain)]
    assert counts == sorted(counts)
    assert len(set(counts)) > 1
    running = re.findall(r"postgres [^\n\r]*? of 3 done +(\d+) s +(\d+) s left", plain)
    times = {(int(elapsed), int(left)) for elapsed, left in running}
    assert len({elapsed for elapsed, _ in times}) > 1
    assert all(490 <= elapsed + left <= 501 for elapsed, left in times if left > 130), times
    drawn = r"{} [^\n\r]* done[^\n\r]*\r?\n[^\n\r]*{} "
    assert re.search(drawn.format("postgres", "redis"), plain)
    assert re.search(drawn.format("redis", "postgres"), plain) is None


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_times_are_those_of_the_phase_and_stand_still_once_a_store_is_done(clock):
    progress = LiveProgress(lambda _: None, verbose=False, clock=clock)
    progress(Event("store-done", Phase.PLAN, "redis", planned=1))
    progress(Event("store-done", Phase.PLAN, "postgres", planned=2))
    clock.now_s = 10
    progress(Event("phase", Phase.APPLY, left_s=30.0))
    done = ChangeResult("a", "revision", Outcome.CHANGED)
    progress(Event("change", Phase.APPLY, "postgres", change=done))
    progress(Event("store-done", Phase.APPLY, "redis"))
    clock.now_s = 15
    assert progress.rows() == [
        ("postgres", "revision a: changed in 0.00 s", "1 of 2 done", "5 s", "25 s left"),
        ("redis", "apply done", "0 of 1 done", "0 s", ""),
    ]


def test_a_phase_without_a_limit_has_nothing_left(clock):
    progress = LiveProgress(lambda _: None, verbose=False, clock=clock)
    progress(Event("phase", Phase.APPLY))
    progress(Event("waiting", Phase.APPLY, "neo4j", "a\x1b[31m\nb"))
    clock.now_s = 3
    assert progress.rows() == [("neo4j", r"a\x1b[31m\nb Trying again.", "", "3 s", "")]
