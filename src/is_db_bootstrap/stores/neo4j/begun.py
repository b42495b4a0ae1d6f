"""The mark of a file that has begun and cannot share a transaction with its record.

Schema statements and `CALL … IN TRANSACTIONS` commit by themselves, so a run that dies leaves a
part of such a file and no record. Most schema files are *repeatable*: their statements are guarded
(`IF NOT EXISTS`), or say what has to be there, which is looked at. A file with anything else is
neither atomic nor repeatable. Before each of its statements a mark is committed, which says how
many were begun and whether the last of these has ended.

So is one before a uniqueness or key constraint on a database of many nodes. A server that is killed
while it builds the index of such a constraint keeps the index and has no constraint, and refuses to
make one as long as the index is there. The mark names that index, so a run that finds the mark
knows whose it is, and drops it. On fewer nodes, the index itself tells (`left_index`). The
transaction that records the file removes the mark. A run that finds a mark without its record goes
on where that is known to be right, and ends with a conflict where it is not.

The mark is a node of a label of our own, which neo4j-migrations does not look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from is_db_bootstrap.errors import StoreConflict
from is_db_bootstrap.results import Nature
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile
from is_db_bootstrap.stores.neo4j.cypher_schema import recognise
from is_db_bootstrap.stores.neo4j.cypher_text import Statement
from is_db_bootstrap.stores.neo4j.lock import LABEL as LOCK_LABEL
from is_db_bootstrap.stores.neo4j.version import number

LABEL = "__IsDbBootstrapBegun"

#: Whether there is any mark. The server compiles this in a fraction of the time of `READ`.
ANY = f"MATCH (m:{LABEL}) RETURN m.version AS version LIMIT 1"
#: A mark whose run still holds its lease is `at_work`: that run is not over.
READ = f"""
MATCH (m:{LABEL})
OPTIONAL MATCH (l:{LOCK_LABEL} {{token: m.token}}) WHERE l.until >= datetime.realtime()
RETURN m.version AS version, coalesce(m.begun, 0) AS begun, coalesce(m.running, false) AS running,
       coalesce(m.digest, '') AS digest, coalesce(m.token, '') AS token,
       coalesce(m.owner, 'somebody') AS owner, coalesce(m.since, datetime.realtime()) AS since,
       coalesce(m.done, false) AS done, coalesce(m.building, '') AS building,
       l IS NOT NULL AS at_work
"""
#: How many nodes a database has, which the server knows without counting.
NODES = "MATCH (n) RETURN count(n) AS nodes"
#: An index of fewer nodes is built in less than the time of a mark.
MANY_NODES = 10_000
WRITE = f"""
MERGE (m:{LABEL} {{version: $version}})
SET m += {{source: $source, begun: $begun, running: $running, digest: $digest,
          building: $building, token: $token, owner: $owner, since: datetime.realtime()}}
"""
REMOVE = f"MATCH (m:{LABEL} {{version: $version}}) DELETE m"


@dataclass(frozen=True, slots=True)
class Begun:
    """A mark.

    `count` statements were begun, and the last of these has not ended when it is `running`.

    `done` is what a person has written: the file is complete, and only its record is missing.
    `building` is the index of the constraint that the last statement makes; the index was not there
    before. Empty for any other statement.
    """

    order: tuple[int, ...]
    count: int
    running: bool
    digest: str
    token: str
    owner: str
    since: datetime
    done: bool
    at_work: bool
    building: str = ""

    def next_statement(self, file: CypherFile, *, may_retry: bool = False) -> int:
        """The number, from 1, of the statement with which a run goes on.

        One behind the last if none is left.

        Raises `StoreConflict` when the text of the statements that were begun has changed, and when
        the last of them may be done in part. With `may_retry`, a person lets the file run again:
        then it goes on at that statement, or begins anew when the text has changed.
        """
        if self.done:
            return len(file.statements) + 1
        if _digest(file, self.count) != self.digest:
            if may_retry:
                return 1
            raise self._conflict(
                file,
                f"{self.count} of its statements were begun by {self.owner}, "
                "and their text has been changed since.",
                again="from its first statement on",
            )
        if not self.running:
            return self.count + 1
        last = file.statements[self.count - 1]
        if may_stay_in_part(last) and not may_retry:
            raise self._conflict(
                file,
                f"Statement {self.count} of {len(file.statements)} (line {last.line}) was running "
                f"when its run ended, and may be done in part. {_before(self.count)}"
                f"It was begun by {self.owner} at {self.since:%Y-%m-%d %H:%M:%S} UTC.",
                again=f"from statement {self.count} on",
            )
        return self.count

    def _conflict(self, file: CypherFile, known: str, *, again: str) -> StoreConflict:
        mark = f"MATCH (m:{LABEL} {{version: '{_version(file)}'}})"
        return StoreConflict(
            "neo4j",
            f"{file.name} was begun and is not recorded. {known}",
            hint="See with SHOW TRANSACTIONS that it does not run any more, and what it has "
            "written. Then there are two ways. Finish it by hand, and let the next run record it "
            f"without running it: {mark} SET m.done = true. Or take back what it wrote, unless it "
            f"may be written twice, and let it run again, {again}: "
            f"`is-db-bootstrap apply --retry {file.name}`.",
            subject=file.name,
        )


def may_stay_in_part(statement: Statement) -> bool:
    """Whether a part of a statement may stay when it is cut off. A schema statement is whole."""
    return statement.is_batched or recognise(statement.tokens) is None


def _before(count: int) -> str:
    if count == 1:
        return ""
    if count == 2:  # noqa: PLR2004 - one statement in front of the second
        return "Statement 1 is done. "
    return f"Statements 1 to {count - 1} are done. "


def read_marks(rows: Iterable[Mapping[str, Any]]) -> list[Begun]:
    """From the rows of `READ`."""
    return [
        Begun(
            order=number(row["version"]),
            count=row["begun"],
            running=row["running"],
            digest=row["digest"],
            token=row["token"],
            owner=row["owner"],
            since=row["since"].to_native(),
            done=row["done"],
            at_work=row["at_work"],
            building=row["building"],
        )
        for row in rows
    ]


def nature(file: CypherFile) -> Nature:
    """What is left of a file whose run ends, and whether it may run again.

    Data statements share one transaction with their record. Schema statements do not, but most of
    them may be sent again.
    """
    if file.transactional:
        return Nature.ATOMIC
    if all(map(_is_repeatable, file.statements)):
        return Nature.REPEATABLE
    return Nature.NEITHER


def _is_repeatable(statement: Statement) -> bool:
    found = recognise(statement.tokens)
    return found is not None and found.is_repeatable


def key(file: CypherFile) -> dict[str, str]:
    """What `REMOVE` asks for."""
    return {"version": _version(file)}


def facts(file: CypherFile, count: int, *, running: bool, building: str = "") -> dict[str, Any]:
    """What `WRITE` asks for, without `token` and `owner`."""
    return {
        **key(file),
        "source": file.name,
        "begun": count,
        "running": running,
        "building": building,
        "digest": _digest(file, count),
    }


def _version(file: CypherFile) -> str:
    return ".".join(map(str, file.order))


def _digest(file: CypherFile, count: int) -> str:
    """Of the first `count` statements, without their comments."""
    texts = [statement.tokens for statement in file.statements[:count]]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
