"""What people read of the records that stores keep of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from is_db_bootstrap.engine.memory import Memory
from is_db_bootstrap.engine.recollection import Doubt, Loss
from is_db_bootstrap.errors import StoreReset
from is_db_bootstrap.names import StoreName
from is_db_bootstrap.wording import counted, visible

#: As many names as one reads.
_NAMED = 5
#: The note of a run that was not to verify.
UNRECORDED = "That the stores are converged is not recorded, because nothing was verified."


@dataclass(frozen=True, slots=True)
class WaysOut:
    """How a person accepts that a store was lost, as calls that do it in place of a run.

    `only` names the stores of a run that leaves others out. For a target of a fleet
    (`is_one_of_many`) the call is one without targets. `may_adopt` says that the run adopts what is
    there, and that something is.
    """

    only: tuple[StoreName, ...] = ()
    is_one_of_many: bool = False
    may_adopt: bool = False

    def _call(self, command: str, store: StoreName) -> str:
        only = "".join(f" --only {each}" for each in self.only)
        call = f"`is-db-bootstrap {command}{only} --accept-reset {store}`"
        if self.is_one_of_many:
            return f"{call}, with the addresses of this target and without --targets."
        return f"{call}."

    def to_make(self, store: StoreName) -> str:
        """The call that makes the store anew."""
        return self._call("apply", store)

    def to_adopt(self, store: StoreName) -> str:
        """A sentence on the call that takes the store as it is. Empty where that is no way out."""
        if not self.may_adopt:
            return ""
        return f"If it is to be adopted as it is, say so: {self._call('adopt', store)} "


def store_reset(store: StoreName, address: str, loss: Loss, ways_out: WaysOut) -> StoreReset:
    """The error of a store that was lost: what is missing, since when, and the ways out."""
    if loss.objects:
        what = f"{_listed(loss.objects)} of {address} {_is_or_are(loss.objects)} gone"
    else:
        what = f"{address} is blank"
    return StoreReset(
        store,
        f"{what}, though it was converged on {moment(loss.memory.recorded_at)} "
        f"({_writer(loss.memory)}), as {_listed(loss.remembered_by)} "
        f"{_remembers(loss.remembered_by)}. Nothing was changed.",
        subject=loss.objects[0] if loss.objects else "",
        hint=f"Restore a backup of it and run again. {ways_out.to_adopt(store)}"
        "If it is to be made anew, empty, or if this is a copy of another environment, say so: "
        f"{ways_out.to_make(store)}",
    )


def doubtful(
    store: StoreName,
    address: str,
    doubt: Doubt,
    ways_out: WaysOut,
) -> StoreReset:
    """The error of a store that lacks what records may name that only a newer version can read."""
    if doubt.objects:
        what = f"{_listed(doubt.objects)} of {address} {_is_or_are(doubt.objects)} not there"
        to_make = "what is not there"
    else:
        what, to_make = f"{address} is blank", "the store"
    return StoreReset(
        store,
        f"{what}, and nobody knows whether it was lost: {_newer_records(doubt)}. "
        "Nothing was changed.",
        subject=doubt.objects[0] if doubt.objects else "",
        hint=f"Run the newer version. If {to_make} is to be made, empty, say so: "
        f"{ways_out.to_make(store)}",
    )


def unsure_parts(doubt: Doubt) -> str:
    """The note on what is made beside records of a newer version, and which ours do not name."""
    named = "them, so they count" if len(doubt.objects) > 1 else "it, so it counts"
    return (
        f"{_listed(doubt.objects)} {_is_or_are(doubt.objects)} not there. Our own record does not "
        f"name {named} as new: {_newer_records(doubt)}."
    )


def _newer_records(doubt: Doubt) -> str:
    return (
        f"{_listed(doubt.keepers)} {_keeps(doubt.keepers)} records of a newer version of "
        "is-db-bootstrap, which this one cannot read"
    )


def unread(keeper: StoreName, why: str) -> str:
    """The note on a store that is made anew, beside one whose records could not be seen."""
    return (
        f"Whether {keeper} remembers this store could not be seen: {why} So nobody knows whether "
        "this store was lost."
    )


def accepted_doubt() -> str:
    """The note on such a store, which somebody has accepted as a new one."""
    return "The store is made, as --accept-reset says. Nobody knows whether it was lost."


def foretold(memory: Memory) -> str:
    """The note on a blank store in front of the copy of one with which it was converged."""
    return (
        f"The store is blank. It was converged on {moment(memory.recorded_at)} "
        f"({_writer(memory)}) together with the store of which another one here is a copy or a "
        "restored backup. If this is a restored backup, restore this store too."
    )


def accepted(loss: Loss, *, is_remade: bool = True) -> str:
    """The note on a reset that somebody has accepted, in a run that makes the store anew or not."""
    what = _listed(loss.objects) if loss.objects else "The whole store"
    since = moment(loss.memory.recorded_at)
    then = "made anew" if is_remade else "taken as it is"
    return f"{what}, converged on {since} and lost since, is {then}, as --accept-reset says."


def blank_cache(loss: Loss, *, is_recorded: bool = True) -> str:
    """The note on a cache that is blank again, in a run that is to record it or not."""
    was, then = ("was", " As a cache, it is recorded again.") if is_recorded else ("is", "")
    return (
        f"The store {was} blank, though {_listed(loss.remembered_by)} "
        f"{_remembers(loss.remembered_by)} that it was converged on "
        f"{moment(loss.memory.recorded_at)}.{then}"
    )


def other_store(memory: Memory, *, is_recorded: bool = True) -> str:
    """The note on a store that is not the one that a record tells of, in such a run or not."""
    then = " It is recorded anew." if is_recorded else ""
    return (
        f"This is not the store that was converged on {moment(memory.recorded_at)} "
        f"({_writer(memory)}): it was restored, copied or replaced.{then}"
    )


def remembered(memory: Memory) -> str:
    """The note of a status on what a store remembers."""
    return (
        f"Converged on {moment(memory.recorded_at)} ({_writer(memory)}) together: "
        f"{', '.join(memory.members)}."
    )


def recalled(memory: Memory) -> str:
    """What a record tells of a deployment, for a person who looks for its stores."""
    stores = ", ".join(f"{name} at {each.address}" for name, each in memory.members.items())
    return (
        f"Blueprint {visible(memory.blueprint)}, converged on {moment(memory.recorded_at)} "
        f"({_writer(memory)}), with {visible(stores)}."
    )


def ambiguous(blueprint: str) -> str:
    """The note on a store that several deployments share, in a run that leaves stores out."""
    return (
        f"Several deployments of {blueprint} are remembered here, and only the stores that this "
        "run leaves out tell them apart, so nothing is recorded. A run without --only and --skip "
        "records it."
    )


def moment(when: datetime) -> str:
    """A moment to the minute, in UTC."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _writer(memory: Memory) -> str:
    return f"run {visible(memory.run_id)}, version {visible(memory.version)}"


def _listed(names: Sequence[str]) -> str:
    """Names as a sentence has them."""
    shown = [visible(name) for name in names[:_NAMED]]
    if len(names) > _NAMED:
        shown.append(counted(len(names) - _NAMED, "other"))
    *before, last = shown
    return f"{', '.join(before)} and {last}" if before else last


def _is_or_are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _keeps(names: Sequence[str]) -> str:
    return "keeps" if len(names) == 1 else "keep"


def _remembers(names: Sequence[str]) -> str:
    return "remembers" if len(names) == 1 else "remember"
