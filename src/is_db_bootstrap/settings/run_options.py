"""What a caller decides for one run: the flags of the command line in one value."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The flags of one run. The command makes this value, and the engine gets it unchanged.

    The settings say where the stores are and how long to wait. These options say what to do there.
    """

    #: Only these stores take part. Empty means all stores of the blueprint.
    only: tuple[str, ...] = ()
    #: These stores take no part.
    skip: tuple[str, ...] = ()
    #: Demo rows are written where they are missing.
    seed: bool = False
    #: Findings are drift in `verify`.
    strict: bool = False
    #: A store whose history goes on beyond ours is a note. If this is not set, that is a conflict.
    allow_ahead: bool = True
    #: `apply` verifies after its last change.
    verify: bool = True
    #: These changes run again although they have begun and are not recorded.
    retry_changes: tuple[str, ...] = ()
    #: Differences that an adoption records all the same, by the names of their objects.
    accepted: tuple[str, ...] = ()
    #: Stores that were reset, as the caller knows. They are made anew, empty.
    accept_reset: tuple[str, ...] = ()
    #: The stores remember that they were converged together, and a store that was lost since fails
    #: the run.
    remembers: bool = True
    #: This is one target of a fleet, whose addresses tell it from the others.
    is_one_of_many: bool = False
    #: A run that meets another one waits for as long as that one goes on.
    follow: bool = False
    #: The address of a server on which a plan may run what cannot be seen otherwise. Empty: none.
    try_url: str = field(default="", repr=False)
    #: A self-test runs on the stores themselves, also where it could run in a place of its own.
    here: bool = False
    #: A wait looks at each rung of the ladder, and not only whether a store is usable.
    climbs: bool = False
    #: Who named the blueprint, for the report.
    blueprint_source: str = ""
    #: Nobody named the blueprint, so a store that carries another one is a conflict.
    is_default_blueprint: bool = False
    #: The id of the run in its result, its events and its locks. Empty: a new one.
    run_id: str = ""
