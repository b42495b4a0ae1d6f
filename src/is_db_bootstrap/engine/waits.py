"""What a run waits for: it is asked of the stores, told to the observers, and ended where it must.

All times are seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from is_db_bootstrap.engine.context import RunContext
from is_db_bootstrap.engine.store import CanEndWait, CanTellWait, DatabaseBootstrapper
from is_db_bootstrap.engine.threads import call_within, start_thread
from is_db_bootstrap.engine.track import Track
from is_db_bootstrap.errors import BootstrapError
from is_db_bootstrap.events import Phase

#: A call that has not come back after so long is worth a question.
_ASK_AFTER_S = 1.0
#: A call that has not come back after so long is told, whether the store has an answer or not.
_TELL_AFTER_S = 1.6
#: Time between two tellings of the same call.
_TELL_EVERY_S = 10.0
#: Time between two questions about the same call.
_ASK_EVERY_S = 5.0
#: What the last question gets, before a late call is ended.
_LAST_ANSWER_S = 0.5


class _Question:
    """One question to a store, which may never be answered."""

    def __init__(self, store: CanTellWait) -> None:
        self.asked_at = time.monotonic()
        self._answer: Future[str] = start_thread(store.waits_for)

    @property
    def is_open(self) -> bool:
        return not self._answer.done()

    @property
    def answer(self) -> str:
        """What the store said. Empty when it has not answered, or could not."""
        return _answer(self._answer)


def _answer(future: Future[str]) -> str:
    if not future.done():
        return ""
    with suppress(BootstrapError):
        return future.result()
    return ""


class Waits:
    """Follows the calls of one phase that do not come back.

    `acquiring` returns the store that is being asked for its lock, which is the one to ask then.
    """

    def __init__(
        self,
        run: RunContext,
        phase: Phase,
        acquiring: Callable[[], DatabaseBootstrapper | None],
    ) -> None:
        self._run = run
        self._phase = phase
        self._acquiring = acquiring
        self._questions: dict[int, _Question] = {}
        self._answers: dict[int, str] = {}
        self._calls: dict[int, float] = {}
        #: When a store first said that its call waits for somebody, by the monotonic clock.
        self._held_up_since: dict[int, float] = {}

    def look_after(self, tracks: Sequence[Track]) -> None:
        """Ask, tell and end what is due for the calls that run now."""
        for track in tracks:
            if self._is_new_call(track):
                self._forget(track)
            waited_s = time.monotonic() - track.call.began_at
            if self._phase is Phase.APPLY and not track.changing:
                continue
            self._ask_when_due(track, waited_s)
            self._tell_when_due(track, waited_s)
            self._end_when_due(track)

    def reasons(self, tracks: Sequence[Track]) -> list[str]:
        """What the call of each store waits for, as a sentence.

        The stores are asked once more, but for those that still owe the answer to a question.
        """
        stores = [self._store_of(track) for track in tracks]
        pairs = list(zip(tracks, stores, strict=True))
        asked = [
            store
            for track, store in pairs
            if isinstance(store, CanTellWait) and not self._has_open_question(track)
        ]
        answers = call_within(_LAST_ANSWER_S, [store.waits_for for store in asked])
        for track, store in pairs:
            if store in asked and (answer := _answer(answers[asked.index(store)])):
                self._answers[id(track)] = answer
            if track.call.told_at is None:
                self._tell(track, time.monotonic() - track.call.began_at)
        return self.known_reasons(tracks)

    def known_reasons(self, tracks: Sequence[Track]) -> list[str]:
        """What the call of each store waits for, as far as that is known already."""
        return [self._known_reason(track) for track in tracks]

    # --- asking

    def _store_of(self, track: Track) -> DatabaseBootstrapper:
        return self._acquiring() or track.store

    def _is_new_call(self, track: Track) -> bool:
        return self._calls.get(id(track)) != track.call.began_at

    def _forget(self, track: Track) -> None:
        self._calls[id(track)] = track.call.began_at
        self._questions.pop(id(track), None)
        self._answers.pop(id(track), None)
        self._held_up_since.pop(id(track), None)

    def _has_open_question(self, track: Track) -> bool:
        question = self._questions.get(id(track))
        return question is not None and question.is_open

    def _ask_when_due(self, track: Track, waited_s: float) -> None:
        key = id(track)
        question = self._questions.get(key)
        if question is not None and not question.is_open:
            self._note_answer(key, question.answer)
        store = self._store_of(track)
        if waited_s < _ASK_AFTER_S or not isinstance(store, CanTellWait):
            return
        every_s = min(_ASK_EVERY_S, max(self._run.rules.retry.lock_timeout_s / 2, 0.2))
        if question is not None and (
            question.is_open or time.monotonic() - question.asked_at < every_s
        ):
            return
        self._questions[key] = _Question(store)

    def _note_answer(self, key: int, answer: str) -> None:
        self._answers[key] = answer
        if answer:
            self._held_up_since.setdefault(key, self._questions[key].asked_at)
        else:
            self._held_up_since.pop(key, None)

    def _known_reason(self, track: Track) -> str:
        """What is known without a further question."""
        answer = self._answers.get(id(track), "")
        if answer or track.call.refusal:
            return answer or track.call.refusal
        if track.call.change:
            return f"{track.call.change} is being applied."
        return f"Nothing has come back from {self._store_of(track).target} yet."

    # --- telling

    def _tell_when_due(self, track: Track, waited_s: float) -> None:
        told_at = track.call.told_at
        if told_at is not None:
            if time.monotonic() - told_at >= _TELL_EVERY_S:
                self._tell(track, waited_s)
            return
        has_answer = bool(self._answers.get(id(track)))
        # A change may take its time. Only who holds it up is told so soon.
        first_s = _TELL_EVERY_S if track.call.change else _TELL_AFTER_S
        if has_answer or waited_s >= first_s:
            self._tell(track, waited_s)

    def _tell(self, track: Track, waited_s: float) -> None:
        track.call.told_at = time.monotonic()
        message = f"{self._phase.value}, {waited_s:.0f} s so far: {self._known_reason(track)}"
        store = self._store_of(track).name
        self._run.emit("still-waiting", phase=self._phase, store=store, message=message)

    # --- ending a wait for a lock

    def _end_when_due(self, track: Track) -> None:
        """End the statement of a change that waits too long for a lock of somebody else."""
        key = id(track)
        since = self._held_up_since.get(key)
        patience_s = self._run.rules.retry.lock_timeout_s
        if since is None or not isinstance(track.store, CanEndWait) or track.call.ended_because:
            return
        if patience_s <= 0 or time.monotonic() - since < patience_s:
            return
        reason = self._answers[key]
        self._held_up_since.pop(key)
        with suppress(BootstrapError):
            # The reason stands there before the call can come back.
            track.call.ended_because = reason
            if not track.store.end_wait():
                track.call.ended_because = ""
