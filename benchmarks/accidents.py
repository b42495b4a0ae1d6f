"""What accidents cost, and whether they leave anything behind, on four real servers.

    python benchmarks/accidents.py rerun --moments 50
    python benchmarks/accidents.py storm --rounds 20
    python benchmarks/accidents.py kills --points 50

`rerun` kills a cold run of novel_genesis with SIGKILL, at seeded moments of its duration, and
measures the run that comes next, beside cold runs that nobody disturbs. It prints a table in
Markdown.

`storm` starts up to 12 runs at once in each round, of one or two blueprints, some with `--only`.
At seeded moments it kills, stops and terminates them, and cuts connections. Then one plain run
follows, and the round is judged:

* `verify` ends with 0, and no lock is left.
* Each store holds what it holds after a plain run on empty servers, with 0 differences. This
  finds a doubled row, node, collection, record or mark.
* Each exit code is true, as `docs/reference/exit-codes.md` says it. Whoever ended with 0 found
  everything in place at that moment, which is looked up at once. 130 and 143 had their signal, 7
  had another run beside it, 4 had a cut or a stop. No accident may give any other code.
* Each change is told as changed by one run. It is told by none only if a run that may have made it
  was killed, or could not say.

`kills` does this for each reference blueprint: it kills an apply on empty stores with SIGKILL at
seeded points, half of them right after a change and half of them with `--seed`, and runs apply
again. That run must end with 0, each store must hold what it holds after a plain run, with 0
differences, and no lock may be left. The records that the stores keep of each other count too.
Only what is drawn anew for each deployment is left out of a comparison: keys, identities, ids of
runs, ports and times. The copies of one record must agree on these as well.

A storm or a row of kills that met no living run proves nothing, and fails.

All start a local stack in a temporary folder and remove it at the end. With `--data-dir` they use
the local stack that runs there. All EMPTY its stores. `kills` starts servers of their own beside
these, for the blueprints that need no Neo4j or Milvus, so that two blueprints are killed at once
(`--lanes`). Each run compiles no module that an earlier run has compiled: `kills` keeps the
compiled modules of all runs in its temporary folder.

They send signals to no process but the runs that they have started. The seed is printed; the same
seed gives the same accidents, but not the same meeting of two runs.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import json
import os
import platform
import random
import re
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

T = TypeVar("T")
COMMAND = [sys.executable, "-m", "is_db_bootstrap"]
STORES = ("postgres", "neo4j", "milvus", "redis")
#: The reference blueprints and their stores. The first one has all four.
BLUEPRINTS = {
    "novel_genesis": STORES,
    "helpdesk": ("postgres", "redis"),
    "context_service": ("postgres",),
    "agentic_projects": ("postgres",),
    "mplp": ("postgres",),
}
#: What may be left out of a run, as options and the stores that remain.
SUBSETS = (
    (("--only", "postgres"), ("postgres",)),
    (("--only", "neo4j"), ("neo4j",)),
    (("--only", "milvus", "--only", "redis"), ("milvus", "redis")),
    (("--skip", "postgres"), ("neo4j", "milvus", "redis")),
    (("--skip", "milvus"), ("postgres", "neo4j", "redis")),
)
MOST_RUNS = 12
#: The signal of each exit code. A negative one is that of a process that a signal has ended at once,
#: as SIGTERM does before the command has a handler for it.
SENT = {
    -signal.SIGKILL: signal.SIGKILL,
    -signal.SIGTERM: signal.SIGTERM,
    -signal.SIGINT: signal.SIGINT,
    128 + signal.SIGTERM: signal.SIGTERM,
    128 + signal.SIGINT: signal.SIGINT,
}
CODE_UNAVAILABLE = 4
CODE_LOCKED = 7
#: A run of novel_genesis tells about so many changes.
MOST_CHANGES = 20
#: Seconds after which a run that nobody disturbs any more has to be over.
HANGS_S = 240.0
#: After so many points there is a line of progress.
TOLD_EVERY = 10
#: Between two plain runs there are so many reruns.
PLAIN_EVERY = 5
#: Bound of the issue: a rerun after a kill takes at most so many plain runs.
BOUND = 1.5


# --- the servers


class Servers:
    """Running servers, by their addresses in `environ`: emptied, and looked at."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        names = {store: f"{store.upper()}_URL" for store in STORES}
        self.urls = {store: environ[name] for store, name in names.items() if name in environ}

    def environ(self, urls: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a run, with no addresses but those of these servers."""
        foreign = tuple(f"{store.upper()}_" for store in STORES)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith((*foreign, "DB_", "IS_DB_BOOTSTRAP_BLUEPRINT"))
            and name != "DATABASE_URL"
        }
        addresses = {f"{store.upper()}_URL": url for store, url in (urls or self.urls).items()}
        return kept | addresses

    @contextmanager
    def graph(self) -> Iterator[Any]:
        from neo4j import GraphDatabase

        url = urlsplit(self.urls["neo4j"])
        auth = (unquote(url.username or ""), unquote(url.password or ""))
        address = f"bolt://{url.hostname}:{url.port}"
        with GraphDatabase.driver(
            address, auth=auth, notifications_min_severity="OFF", telemetry_disabled=True
        ) as driver:
            yield lambda text: [row.data() for row in driver.execute_query(text).records]

    @contextmanager
    def vectors(self) -> Iterator[Any]:
        from pymilvus import MilvusClient

        # Milvus Lite ends a connection that pings while nothing is asked.
        quiet = {"grpc.keepalive_permit_without_calls": 0}
        client = MilvusClient(self.urls["milvus"], dedicated=True, grpc_options=quiet)
        try:
            yield client
        finally:
            client.close()

    # --- empty

    def empty(self, blueprints: Sequence[str] = tuple(BLUEPRINTS)) -> None:
        """Bring each store back to nothing, or to what other blueprints have there."""
        stores = {store for blueprint in blueprints for store in BLUEPRINTS[blueprint]}
        with ThreadPoolExecutor(len(STORES)) as pool:
            emptied = [
                pool.submit(getattr(self, f"_empty_{store}"), blueprints) for store in stores
            ]
        for each in emptied:
            each.result()

    def _empty_postgres(self, blueprints: Sequence[str]) -> None:
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.urls["postgres"] + "/postgres", autocommit=True) as connection:
            for name in blueprints:
                drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                connection.execute(drop.format(sql.Identifier(name)))

    def _empty_neo4j(self, _: Sequence[str]) -> None:
        with self.graph() as query:
            query("MATCH (n) DETACH DELETE n")
            for row in query("SHOW CONSTRAINTS YIELD name"):
                query(f"DROP CONSTRAINT `{row['name']}` IF EXISTS")
            for row in query("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP'"):
                query(f"DROP INDEX `{row['name']}` IF EXISTS")

    def _empty_milvus(self, _: Sequence[str]) -> None:
        with self.vectors() as client:
            for collection in client.list_collections():
                for alias in client.list_aliases(collection_name=collection)["aliases"]:
                    client.drop_alias(alias)
                client.drop_collection(collection)

    def _empty_redis(self, blueprints: Sequence[str]) -> None:
        import redis

        with redis.Redis.from_url(self.urls["redis"]) as client:
            for key in list(client.scan_iter()):
                if any(name in key.decode() for name in blueprints):
                    client.delete(key)

    # --- look

    def content(self, blueprint: str, stores: Sequence[str]) -> dict[str, list[str]]:
        """All that `stores` hold of a blueprint but locks, as lines that can be compared."""
        return comparable(self.lines(blueprint, stores))

    def lines(self, blueprint: str, stores: Sequence[str]) -> dict[str, list[str]]:
        """All that `stores` hold of a blueprint but locks, as it is told."""
        return {store: list(getattr(self, f"_{store}_content")(blueprint)) for store in stores}

    def locks(self) -> list[str]:
        """Who still holds a lock, or left a session or a scratch database."""
        found = {
            "postgres": self._postgres_locks,
            "neo4j": self._neo4j_locks,
            "redis": self._redis_locks,
        }
        return [lock for store, locks in found.items() if store in self.urls for lock in locks()]

    def _postgres_locks(self) -> list[str]:
        import psycopg

        with psycopg.connect(self.urls["postgres"] + "/postgres", autocommit=True) as connection:
            rows = connection.execute(
                "SELECT 'advisory lock of ' || pid FROM pg_locks WHERE locktype = 'advisory'"
                " UNION ALL SELECT 'database ' || datname FROM pg_database"
                " WHERE datname LIKE 'is\\_db\\_bootstrap\\_scratch%'"
            ).fetchall()
            return [str(row[0]) for row in rows]

    def _neo4j_locks(self) -> list[str]:
        with self.graph() as query:
            rows = query("MATCH (n) WHERE any(l IN labels(n) WHERE l ENDS WITH 'Lock') RETURN n")
            return [f"Neo4j's lock: {row['n']}" for row in rows]

    def _redis_locks(self) -> list[str]:
        import redis

        with redis.Redis.from_url(self.urls["redis"]) as client:
            # Other tests use this server too. Their locks end by themselves.
            patterns = [f"*:lock:{blueprint}" for blueprint in BLUEPRINTS]
            keys = [key for pattern in patterns for key in client.scan_iter(pattern)]
            return [f"Redis's lock: {key!r}" for key in keys]

    def _postgres_content(self, blueprint: str) -> Iterator[str]:
        import psycopg
        from psycopg import sql

        with psycopg.connect(f"{self.urls['postgres']}/{blueprint}") as connection:
            for text in CATALOGUE:
                yield from map(str, connection.execute(text).fetchall())
            for schema, table in connection.execute(TABLES).fetchall():
                rows = sql.SQL("SELECT to_jsonb(t) FROM {} t").format(sql.Identifier(schema, table))
                for (row,) in connection.execute(rows):
                    yield f"{schema}.{table}: {row}"

    def _neo4j_content(self, _: str) -> Iterator[str]:
        with self.graph() as query:
            for row in query("MATCH (n) RETURN labels(n) AS labels, properties(n) AS p"):
                if not any(label.endswith("Lock") for label in row["labels"]):
                    yield f"node {sorted(row['labels'])} {_sorted(row['p'])}"
            for row in query(
                "MATCH (a)-[r]->(b) RETURN type(r) AS type, properties(r) AS p,"
                " properties(a) AS a, properties(b) AS b"
            ):
                yield f"relationship {row['type']} {[_sorted(row[k]) for k in 'pab']}"
            for row in query(
                "SHOW INDEXES YIELD name, type, state, entityType, labelsOrTypes, properties,"
                " owningConstraint"
            ):
                yield f"index {_sorted(row)}"
            for row in query("SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties"):
                yield f"constraint {_sorted(row)}"

    def _milvus_content(self, _: str) -> Iterator[str]:
        with self.vectors() as client:
            for name in client.list_collections():
                if name.startswith(REHEARSAL):
                    continue
                told = client.describe_collection(name)
                for of_the_server in ("collection_id", "created_timestamp", "update_timestamp"):
                    told.pop(of_the_server, None)
                yield f"collection {_sorted(told)}"
                yield f"{name}: {client.get_load_state(name)}"
                yield f"{name}: {client.get_collection_stats(name)}"
                yield f"{name}: {client.list_aliases(collection_name=name)['aliases']}"
                for index in client.list_indexes(name):
                    yield f"{name}: {_sorted(client.describe_index(name, index))}"

    def _redis_content(self, blueprint: str) -> Iterator[str]:
        import redis

        with redis.Redis.from_url(self.urls["redis"]) as client:
            for key in client.scan_iter():
                if b":lock:" not in key and blueprint.encode() in key:
                    ends = client.ttl(key) >= 0
                    yield f"{key!r} ends: {ends} {_value(client, key)!r}"


def _value(client: Any, key: bytes) -> Any:
    kind = client.type(key).decode()
    return client.get(key) if kind == "string" else (kind, client.dump(key))


#: A killed run may leave such a collection, without rows. A later run drops it after an hour.
REHEARSAL = "is_db_bootstrap_rehearsal_"
OURS = "NOT LIKE ALL (ARRAY['pg\\_%', 'information\\_schema'])"
TABLES = (
    "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    f" WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname {OURS}"
)
#: Everything else than rows; the names of columns and their order count.
CATALOGUE = (
    f"""
    SELECT 'schema', nspname FROM pg_namespace WHERE nspname {OURS}
    """,
    f"""
    SELECT n.nspname, c.relname, c.relkind, obj_description(c.oid, 'pg_class')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname {OURS}
    """,
    f"""
    SELECT n.nspname, c.relname, a.attname, a.attnum, format_type(a.atttypid, a.atttypmod),
           a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
    FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attnum > 0 AND n.nspname {OURS}
    """,
    f"""
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(k.oid), convalidated
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = connamespace WHERE n.nspname {OURS}
    """,
    f"""
    SELECT pg_get_indexdef(indexrelid), indisvalid, indisready
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname {OURS}
    """,
    """
    SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    """,
    f"""
    SELECT pg_get_functiondef(p.oid)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE p.prokind = 'f' AND n.nspname {OURS}
    """,
    """
    SELECT t.typname, e.enumlabel, e.enumsortorder
    FROM pg_enum e JOIN pg_type t ON t.oid = e.enumtypid
    """,
)
#: What differs from run to run: a time, a duration, a random id, a number of a transaction.
TIMES = re.compile(
    r"neo4j\.time\.\w+\([^)]*\)"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:?\d\d|Z)?"
    r"|PT[\d.]+S"
    r'|"recorded_at": [\d.]+'
    r"|'migrationsDuration': \S+"
    r"|'(id|executionTime|duration)': Duration\([^)]*\)"
)


#: What a store remembers of a deployment: `engine/memory_text.py` writes its names in this order.
RECORD = re.compile(r'\{"blueprint": .*?"version": "[^"]*"\}')
#: How a line begins that says what a record tells of a store.
REMEMBERS = "remembers "


def comparable(lines: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The lines of each store, without what differs from one deployment to the next."""
    return {
        store: sorted(text for line in of for text in _comparable(line))
        for store, of in lines.items()
    }


def _comparable(line: str) -> Iterator[str]:
    """A line without times; the members of each record in it are lines of their own."""
    rest = line
    for text in RECORD.findall(line):
        record = json.loads(text)
        for store, member in record.pop("members").items():
            # A storm's runs reach the servers by other ports.
            address = re.sub(r":\d+(?=/|$)", "", member["address"])
            kept = member | {"address": address, "identity": "<identity>"}
            yield f"{REMEMBERS}{store}: {_sorted(kept)}"
        rest = rest.replace(text, "<record>").replace(record["key"], "<key>")
        # A run of a storm may have seen other versions of this record.
        for drawn_anew in ("key", "run_id", "recorded_at"):
            record.pop(drawn_anew)
        yield f"record {_sorted(record)}"
    yield TIMES.sub("<time>", rest)


def disagreements(lines: Mapping[str, Sequence[str]]) -> list[str]:
    """What the copies of a deployment's record say differently, though `comparable` drops it."""
    texts = [text for of in lines.values() for line in of for text in RECORD.findall(line)]
    records = [json.loads(text) for text in texts]
    keys = {record["key"] for record in records}
    found = [f"records of {len(keys)} deployments are kept"] if len(keys) > 1 else []
    for store in sorted({store for record in records for store in record["members"]}):
        members = [record["members"][store] for record in records if store in record["members"]]
        identities = {member["identity"] for member in members}
        if len(identities) > 1 or len(members) < len(records):
            found.append(f"the records do not agree on {store}: {members}")
    return found


def _sorted(facts: Mapping[str, Any]) -> str:
    return str({name: facts[name] for name in sorted(facts)})


LACKS, HAS_ALSO = "lacks", "has also"


def differences(before: Mapping[str, Sequence[str]], now: Mapping[str, Sequence[str]]) -> list[str]:
    """Each line that one of two contents has more often than the other.

    What records say of stores that are not in `now` is passed over.
    """
    found = []
    others = tuple(f"{REMEMBERS}{store}:" for store in STORES if store not in now)
    for store, lines in now.items():
        expected = Counter(line for line in before[store] if not line.startswith(others))
        there = Counter(line for line in lines if not line.startswith(others))
        found += [f"{store} {LACKS} {line[-400:]}" for line in (expected - there).elements()]
        found += [f"{store} {HAS_ALSO} {line[-400:]}" for line in (there - expected).elements()]
    return found


# --- cuts


class Cutter:
    """Passes connections on to `url`, and can end all that are open, or hold them up for a while."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._to = (parts.hostname or "", parts.port or 0)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._flows = asyncio.Event()
        self._flows.set()
        port = self._call(self._listen())
        self.url = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{port}")

    def cut(self, *, rudely: bool) -> None:
        """End the connections that are open; rudely: by a reset."""
        self._call(self._cut(rudely))

    def hold(self) -> None:
        """Pass nothing on, until `release`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def release(self) -> None:
        """Pass everything on that has come meanwhile."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def close(self) -> None:
        """Take no more connections, and end those that are open."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=256)
        return int(self._server.sockets[0].getsockname()[1])

    async def _stop(self) -> None:
        self._server.close()
        self._flows.set()
        await self._cut(rudely=False)
        await asyncio.sleep(0)  # the ends of the connections are seen

    async def _cut(self, rudely: bool) -> None:
        for writer in list(self._open):
            if rudely:
                connection = writer.get_extra_info("socket")
                at_once = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

    async def _serve(self, of_client: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            of_server, server = await asyncio.open_connection(*self._to)
        except OSError:
            client.close()
            return
        self._open |= {client, server}
        ways = [self._pass_on(of_client, server), self._pass_on(of_server, client)]
        tasks = [asyncio.ensure_future(way) for way in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self._open -= {client, server}
        client.close()
        server.close()
        await asyncio.wait(tasks)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()


# --- runs


@dataclass
class Run:
    """One process of the command, what was done to it, and how it ended."""

    number: int
    blueprint: str
    stores: Sequence[str]
    process: subprocess.Popen[bytes]
    folder: Path
    began: float
    ended: float = 0.0
    #: The signals that reached it while it was alive, and when.
    signals: list[tuple[signal.Signals, float]] = field(default_factory=list)
    #: What was there when it ended with 0.
    look: Future[dict[str, list[str]]] | None = None

    @classmethod
    def start(
        cls, number: int, start: Start, seeded: bool, environ: Mapping[str, str], folder: Path
    ) -> Run:
        folder.mkdir()
        options = ["--output", "json", "--verbose", *_seed_option(seeded), *start.options]
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(
                [*COMMAND, "apply", "-b", start.blueprint, *options],
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        began = time.monotonic()
        return cls(number, start.blueprint, start.stores, process, folder, began)

    def send(self, signum: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signum)
            self.signals.append((signum, time.monotonic()))

    @property
    def document(self) -> dict[str, Any] | None:
        """The result that it printed, if it came to that."""
        text = (self.folder / "out").read_text()
        try:
            return dict(json.loads(text))
        except ValueError:
            return None

    @property
    def messages(self) -> str:
        return (self.folder / "err").read_text(errors="replace")

    def count_changes(self) -> int:
        """How many changes it has told as made."""
        return self.messages.count(": changed in ")

    def got(self, *signals: signal.Signals) -> bool:
        return any(signum in signals for signum, _ in self.signals)

    def failures(self) -> list[str]:
        """What each store's error says."""
        stores = (self.document or {}).get("stores", [])
        told = [f"{s['store']}: {s['error']['message']}" for s in stores if s["error"]]
        return told or [self.messages[-1000:]]

    def cannot_tell(self, store: str) -> bool:
        """Whether it may have made a change on `store` without telling it as changed."""
        if store not in self.stores:
            return False
        if self.document is None:
            return True
        [told] = [told for told in self.document["stores"] if told["store"] == store]
        return told["outcome"] in {"failed", "interrupted"}

    def describe(self, begin: float) -> str:
        did = [f"{s.name} at {at - self.began:.2f} s" for s, at in self.signals] or ["undisturbed"]
        return (
            f"run {self.number} of {self.blueprint} over {'+'.join(self.stores)}, "
            f"{self.began - begin:.1f} to {self.ended - begin:.1f} s: "
            f"{', '.join(did)}; ended with {self.process.returncode}"
        )


def changed(document: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """The store and the name of each change that a result tells as changed."""
    return [
        (store["store"], f"{change['kind']} {change['name']}")
        for store in (document or {}).get("stores", [])
        for change in store["changes"]
        if change["outcome"] == "changed"
    ]


def plain(servers: Servers, blueprint: str, *options: str, mode: str = "apply") -> dict[str, Any]:
    """The result of a run that nobody disturbs. Ends the program when it fails."""
    done = subprocess.run(
        [*COMMAND, mode, "-b", blueprint, "--output", "json", *options],
        env=servers.environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Fault(f"{mode} {blueprint} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return dict(json.loads(done.stdout))


class Fault(Exception):
    """What must not be."""


# --- rerun


def measure_reruns(servers: Servers, moments: int, seed: int) -> int:
    """Print a table of reruns after a kill; 1 if one took more than the bound."""
    chance = random.Random(seed)
    environ = servers.environ()

    def cold() -> float:
        servers.empty()
        took = _timed(environ)
        print(f"plain run: {took:.2f} s", file=sys.stderr, flush=True)
        return took

    cold()  # warms servers and disk
    undisturbed = [cold() for _ in range(3)]
    reruns: list[tuple[float, float]] = []
    for number in range(moments):
        moment = chance.random()
        servers.empty()
        killed = _killed_after(moment * statistics.median(undisturbed), environ)
        took = _timed(environ)
        reruns.append((moment, took))
        print(
            f"moment {number + 1}: {moment:.2f} of a plain run, "
            f"{'killed' if killed else 'had ended'}, rerun {took:.2f} s",
            file=sys.stderr,
            flush=True,
        )
        if number % PLAIN_EVERY == PLAIN_EVERY - 1:  # the machine may be slower or quicker by now
            undisturbed.append(cold())
    return _rerun_table(undisturbed, reruns, seed)


def _timed(environ: Mapping[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [*COMMAND, "apply", "-b", "novel_genesis"],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise Fault(f"a run ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return took


def _killed_after(seconds: float, environ: Mapping[str, str]) -> bool:
    with subprocess.Popen(
        [*COMMAND, "apply", "-b", "novel_genesis"],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as run:
        try:
            run.wait(seconds)
        except subprocess.TimeoutExpired:
            run.kill()
            return True
    return False


def _rerun_table(undisturbed: list[float], reruns: list[tuple[float, float]], seed: int) -> int:
    middle = statistics.median(undisturbed)
    took = [seconds for _, seconds in reruns]
    print(f"\nSeed {seed}, {len(reruns)} moments, {len(undisturbed)} plain runs. {_machine()}\n")
    print(
        "| what | median, s | fastest to slowest | of a plain run | slowest of a plain run | aim |"
    )
    print("|---|---|---|---|---|---|")
    for name, values, aim in (
        ("plain cold run", undisturbed, ""),
        ("rerun after `kill -9`", took, f"{BOUND}"),
    ):
        median = statistics.median(values)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        ratios = f"{median / middle:.2f} | {max(values) / middle:.2f}"
        print(f"| {name} | {median:.2f} | {spread} | {ratios} | {aim} |")
    over = [f"{moment:.2f}: {s:.2f} s" for moment, s in reruns if s > BOUND * middle]
    print(f"\nAbove {BOUND} of the median of plain runs: {', '.join(over) or 'none'}.")
    return 1 if over else 0


def _machine() -> str:
    load = os.getloadavg()[0]
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}."


# --- kills


@dataclass
class Tally:
    """What became of the points of one blueprint."""

    blueprint: str
    points: int = 0
    #: How many runs were alive when they were killed.
    alive: int = 0
    #: How many of these had told a change by then.
    after_a_change: int = 0
    #: After how many points the rerun ended with 0 and nothing was lacking or left.
    converged: int = 0
    #: After how many points something was there twice, or more than after a plain run.
    doubled: int = 0
    faults: int = 0
    seconds: float = 0.0

    @property
    def proves_nothing(self) -> bool:
        """Whether no point met a living run. Then no accident has happened."""
        return not self.alive

    @property
    def is_bad(self) -> bool:
        return bool(self.faults) or self.proves_nothing

    def note(self, run: Run, found: Sequence[str]) -> None:
        """Count a point: how its run ended, and what is wrong after the rerun."""
        was_alive = run.process.returncode == -signal.SIGKILL
        self.points += 1
        self.alive += was_alive
        self.after_a_change += was_alive and run.count_changes() > 0
        self.doubled += any(f" {HAS_ALSO} " in each for each in found)
        self.converged += not any(f" {HAS_ALSO} " not in each for each in found)
        self.faults += bool(found)

    def row(self) -> str:
        numbers = (self.points, self.alive, self.after_a_change, self.converged, self.doubled)
        cells = " | ".join(map(str, numbers))
        return f"| {self.blueprint} | {cells} | {self.seconds / 60:.1f} |"


HEADER = (
    "| blueprint | points | alive when killed | of these after a change | converged | doubled "
    "| minutes |\n|---|---|---|---|---|---|---|"
)


def kill_everywhere(lanes: Sequence[Servers], folder: Path, points: int, seed: int) -> int:
    """Kill applies of each reference blueprint at seeded points; 1 if a rerun did not mend all.

    Each of `lanes` takes one blueprint after the other, of those whose stores it has.
    """
    # Else each run would compile our modules anew where PYTHONDONTWRITEBYTECODE is set.
    compiled = {"PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONDONTWRITEBYTECODE": ""}
    os.environ.update(compiled)
    waiting, turn = list(BLUEPRINTS), threading.Lock()
    began = time.monotonic()

    def strike_those_of(lane: Servers) -> list[Tally]:
        made = []
        while True:
            with turn:
                fitting = [each for each in waiting if set(BLUEPRINTS[each]) <= set(lane.urls)]
                if not fitting:
                    return made
                waiting.remove(fitting[0])
            place = folder / fitting[0]
            place.mkdir()
            chance = random.Random(f"{seed} {fitting[0]}")
            made.append(Kills(lane, place, fitting[0]).strike_all(points, chance))

    with ThreadPoolExecutor(len(lanes)) as pool:
        tallies = [each for of_lane in pool.map(strike_those_of, lanes) for each in of_lane]
    tallies.sort(key=lambda tally: list(BLUEPRINTS).index(tally.blueprint))
    minutes = (time.monotonic() - began) / 60
    print(
        f"\nSeed {seed}, {points} points each, {len(lanes)} at once, {minutes:.1f} minutes."
        f" {_machine()}\n\n{HEADER}",
        *(tally.row() for tally in tallies),
        "",
        *(
            f"{tally.blueprint} proves nothing: no point met a living run."
            for tally in tallies
            if tally.proves_nothing
        ),
        f"Points with faults: {sum(tally.faults for tally in tallies)}.",
        sep="\n",
        flush=True,
    )
    return 1 if any(tally.is_bad for tally in tallies) else 0


class Kills:
    """Applies of one blueprint on empty stores, each killed at a point, and what follows."""

    def __init__(self, servers: Servers, folder: Path, blueprint: str) -> None:
        self._servers, self._folder, self._blueprint = servers, folder, blueprint
        self._stores = BLUEPRINTS[blueprint]
        self._plain_s = 0.0
        self._changes = 1
        #: What the stores hold after a plain run, with seed rows and without.
        self._expected: dict[bool, dict[str, list[str]]] = {}

    def strike_all(self, points: int, chance: random.Random) -> Tally:
        """Strike at so many points. Progress, and what is wrong, is printed."""
        tally, began = Tally(self._blueprint), time.monotonic()
        for seeded in (True, False):
            self._learn(seeded)
        print(f"{self._blueprint}: a plain run takes {self._plain_s:.1f} s", flush=True)
        for number in range(1, points + 1):
            run, found = self.strike(number, chance)
            tally.note(run, found)
            tally.seconds = time.monotonic() - began
            if found:
                print(f"{self._blueprint}, point {number}:", *found, sep="\n  ", flush=True)
            if number % TOLD_EVERY == 0 or number == points:
                print(
                    f"{self._blueprint}: {number} of {points} points, {tally.alive} alive when "
                    f"killed, {tally.faults} with faults, {tally.seconds:.0f} s",
                    flush=True,
                )
        return tally

    def _learn(self, seeded: bool) -> None:
        """See what a plain run makes. The time of the last one counts: by then all is warm."""
        self._servers.empty((self._blueprint,))
        began = time.monotonic()
        told = plain(self._servers, self._blueprint, *_seed_option(seeded))
        self._plain_s = time.monotonic() - began
        self._changes = max(1, len(changed(told)))
        self._expected[seeded] = self._servers.content(self._blueprint, self._stores)

    def strike(self, number: int, chance: random.Random) -> tuple[Run, list[str]]:
        """Kill an apply at a point that `chance` says, and run again.

        Returns the killed run, and what is wrong after the next one.
        """
        self._servers.empty((self._blueprint,))
        start = Start(0, self._blueprint, self._stores, (), None)
        seeded = _happens(chance, 0.5)
        place = self._folder / f"{number}"
        run = Run.start(number, start, seeded, self._servers.environ(), place)
        self._wait_for_point(run, chance)
        run.send(signal.SIGKILL)
        run.process.wait()
        found = self._faults_after_a_rerun(run.count_changes(), seeded)
        lines = self._servers.lines(self._blueprint, self._stores)
        found += differences(self._expected[seeded], comparable(lines))
        return run, found + disagreements(lines)

    def _wait_for_point(self, run: Run, chance: random.Random) -> None:
        """Wait for a moment of the run, or until it has told a number of changes."""
        latest_s = chance.uniform(0, self._plain_s)
        wanted = chance.randint(1, self._changes) if _happens(chance, 0.5) else None
        if wanted is not None:
            latest_s = 2 * self._plain_s
        while run.process.poll() is None and time.monotonic() - run.began < latest_s:
            if wanted is not None and run.count_changes() >= wanted:
                break
            time.sleep(0.002)

    def _faults_after_a_rerun(self, done: int, seeded: bool) -> list[str]:
        """Run again. Returns the locks that are left then, or why the run failed."""
        try:
            plain(self._servers, self._blueprint, *_seed_option(seeded))
        except Fault as fault:
            return [f"after {done} changes the rerun failed: {fault}"]
        return [f"left: {lock}" for lock in self._servers.locks()]


def _seed_option(seeded: bool) -> list[str]:
    return ["--seed"] if seeded else []


# --- storm


@dataclass(frozen=True)
class Moment:
    """When an accident happens: `delay_s` after `changes` were told, at the latest at `latest_s`.

    `changes` is None for an accident that waits for no change. `latest_s` are seconds from the
    start.
    """

    latest_s: float
    changes: int | None = None
    delay_s: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random, usual_s: float) -> Moment:
        """Within `usual_s`, or in the middle of the changes of a run, however slow that is."""
        latest_s = chance.uniform(0, usual_s)
        if not _happens(chance, 0.6):
            return cls(latest_s)
        delay_s = chance.choice([0, chance.uniform(0, usual_s / 20)])
        return cls(usual_s + latest_s, chance.randint(0, MOST_CHANGES), delay_s)


@dataclass(frozen=True)
class Fate:
    """A signal that a run gets, and one that follows `later_s` afterwards."""

    moment: Moment
    signum: signal.Signals
    following: signal.Signals | None = None
    later_s: float = 0.0

    @classmethod
    def drawn(cls, chance: random.Random, usual_s: float, lease_s: float) -> Fate | None:
        moment, later_s = Moment.drawn(chance, usual_s), chance.uniform(0.5, 1.3 * lease_s)
        return chance.choice(
            [
                None,
                None,
                cls(moment, signal.SIGKILL),
                cls(moment, signal.SIGKILL),
                cls(moment, signal.SIGTERM),
                cls(moment, signal.SIGINT),
                cls(moment, signal.SIGSTOP, signal.SIGCONT, later_s),
                cls(moment, signal.SIGSTOP, signal.SIGKILL, later_s),
            ]
        )


@dataclass(frozen=True)
class Start:
    """A run that is to be started at a second of its round, and what happens to it."""

    at: float
    blueprint: str
    stores: Sequence[str]
    options: Sequence[str]
    fate: Fate | None


@dataclass(frozen=True)
class Cut:
    """An end of all connections of a store, or, with `held_s`, a standstill of all of them.

    `began` is when it was made.
    """

    moment: Moment
    store: str
    rudely: bool
    held_s: float
    began: float = 0.0

    def describe(self, begin: float) -> str:
        how = f"held for {self.held_s:.1f} s" if self.held_s else "cut"
        return f"connections of {self.store} {how} at {self.began - begin:.1f} s"


@dataclass(frozen=True)
class Round:
    """What happens in one round."""

    starts: Sequence[Start]
    cuts: Sequence[Cut]
    seeded: bool

    @classmethod
    def drawn(
        cls,
        chance: random.Random,
        runs: int,
        usual_s: float,
        lease_s: float,
        blueprints: Sequence[str] = tuple(BLUEPRINTS),
    ) -> Round:
        """`usual_s` is about what so many runs at once take.

        The first of `blueprints` is in each round, and another one in some.
        """
        first, *others = blueprints
        beside = chance.choice([None, None, *others])
        starts = []
        for _ in range(runs):
            blueprint = beside if beside and _happens(chance, 0.3) else first
            stores, options = BLUEPRINTS[blueprint], ()
            if stores == STORES and _happens(chance, 0.2):
                options, stores = chance.choice(SUBSETS)
            fate = Fate.drawn(chance, usual_s, lease_s)
            starts.append(Start(chance.uniform(0, 2), blueprint, stores, options, fate))
        cuts = []
        for _ in range(chance.choice([0, 1, 2, 4, 8])):
            held_s = chance.uniform(0.5, 8) if _happens(chance, 0.3) else 0.0
            moment, store = Moment.drawn(chance, usual_s), chance.choice(STORES)
            cuts.append(Cut(moment, store, _happens(chance, 0.5), held_s))
        return cls(starts, cuts, seeded=_happens(chance, 0.5))

    @property
    def options(self) -> list[str]:
        return _seed_option(self.seeded)

    @property
    def blueprints(self) -> list[str]:
        return sorted({start.blueprint for start in self.starts})


def _happens(chance: random.Random, share: float) -> bool:
    """True in this share of all cases."""
    return chance.random() < share


@dataclass(frozen=True)
class End:
    """What the plain run after a round has told as changed, and what was wrong then."""

    blueprint: str
    changes: Sequence[tuple[str, str]]
    faults: Sequence[str]


class Timetable:
    """What is to be done, and when, in seconds from now."""

    def __init__(self) -> None:
        self._todo: list[tuple[float, int, Callable[[], object]]] = []
        #: Two actions of one moment are done in the order in which they were added.
        self._numbers = itertools.count()
        self._watched: list[tuple[Callable[[], bool], float, Callable[[], object]]] = []
        self._began = time.monotonic()
        self.last_s = 0.0

    @property
    def now_s(self) -> float:
        return time.monotonic() - self._began

    def add(self, at: float, action: Callable[[], object]) -> None:
        self.last_s = max(self.last_s, at)
        heapq.heappush(self._todo, (at, next(self._numbers), action))

    def add_moment(
        self, moment: Moment, changes: Callable[[], int], action: Callable[[], object]
    ) -> None:
        """Do it at a moment, which is counted from now. `changes` says how many there were."""
        done: list[bool] = []

        def once() -> None:
            if not done:
                done.append(True)
                action()

        self.add(self.now_s + moment.latest_s, once)
        if (number := moment.changes) is not None:
            self._watched.append((lambda: changes() >= number, moment.delay_s, once))

    def do_what_is_due(self) -> None:
        for watched in list(self._watched):
            is_reached, delay_s, action = watched
            if is_reached():
                self._watched.remove(watched)
                self.add(self.now_s + delay_s, action)
        while self._todo and self._todo[0][0] <= self.now_s:
            heapq.heappop(self._todo)[2]()


class Storm:
    """Rounds of accidents on `servers`, with what is to be there after each."""

    def __init__(self, servers: Servers, folder: Path, *, lease_s: float) -> None:
        self.servers, self.folder, self.lease_s = servers, folder, lease_s
        self.cutters = {store: Cutter(url) for store, url in servers.urls.items()}
        urls = {store: cutter.url for store, cutter in self.cutters.items()}
        lease = {"IS_DB_BOOTSTRAP_LEASE": f"{lease_s:g}"}
        self.environ = servers.environ(urls) | lease
        #: What each blueprint's stores hold after a plain run, with seed rows and without.
        self.expected: dict[tuple[str, bool], dict[str, list[str]]] = {}
        #: The changes of a plain run on empty stores, as `expected`.
        self.changes: dict[tuple[str, bool], list[tuple[str, str]]] = {}
        self.codes: Counter[int] = Counter()
        self.rounds = 0
        #: How many signals reached a living run, and how many cuts were made beside one.
        self.met = 0
        self._pool = ThreadPoolExecutor(4)

    def close(self) -> None:
        self._pool.shutdown()
        for cutter in self.cutters.values():
            cutter.close()

    def _learn(self, drawn: Round) -> None:
        """See what plain runs of the round's blueprints make and tell, where that is not known."""
        for blueprint in drawn.blueprints:
            if (blueprint, drawn.seeded) in self.expected:
                continue
            told = plain(self.servers, blueprint, *drawn.options)
            self.changes[blueprint, drawn.seeded] = changed(told)
            there = self.servers.content(blueprint, BLUEPRINTS[blueprint])
            self.expected[blueprint, drawn.seeded] = there

    # --- one round

    def weather(self, drawn: Round) -> list[str]:
        """Play one round on empty servers; what is wrong afterwards."""
        self.servers.empty()
        self._learn(drawn)
        self.servers.empty()
        self.rounds += 1
        place = self.folder / f"round-{self.rounds}"
        place.mkdir()
        runs, cuts = self._play(drawn, place)
        found = [fault for run in runs for fault in self._judge_run(run, runs, cuts, drawn)]
        last = list(self._pool.map(partial(self._end, drawn), drawn.blueprints))
        found += [*self._judge_changes(runs, last, drawn)]
        found += [fault for end in last for fault in end.faults]
        found += [f"left: {lock}" for lock in self.servers.locks()]
        self.codes.update(run.process.returncode for run in runs)
        self.met += sum(len(run.signals) for run in runs)
        self.met += sum(any(r.began <= c.began <= r.ended for r in runs) for c in cuts)
        if found:
            begin = min(run.began for run in runs)
            story = [each.describe(begin) for each in (*runs, *cuts)]
            found = [f"{place}: {each}" for each in (*story, *found)]
        return found

    def _play(self, drawn: Round, place: Path) -> tuple[list[Run], list[Cut]]:
        """Start the runs, do to them what was drawn, and wait for their ends.

        Returns the runs, and the cuts with the times at which they were made.
        """
        runs: dict[int, Run] = {}
        cuts: list[Cut] = []
        timetable = self._timetable(drawn, place, runs, cuts)
        try:
            while timetable.now_s < timetable.last_s + HANGS_S:
                timetable.do_what_is_due()
                self._note_ends(runs.values())
                if len(runs) == len(drawn.starts) and all(run.ended for run in runs.values()):
                    break
                time.sleep(0.01)
        finally:
            for run in runs.values():
                if not run.ended:
                    run.process.kill()
                    run.process.wait()
            for cutter in self.cutters.values():
                cutter.release()
        return list(runs.values()), cuts

    def _timetable(
        self, drawn: Round, place: Path, runs: dict[int, Run], cuts: list[Cut]
    ) -> Timetable:
        """What was drawn, as actions that note in `runs` and `cuts` what they have done."""
        timetable = Timetable()

        def start(number: int, each: Start) -> None:
            folder = place / f"run-{number}"
            run = Run.start(number, each, drawn.seeded, self.environ, folder)
            runs[number] = run
            if each.fate is not None:
                strike = partial(meet, run, each.fate)
                timetable.add_moment(each.fate.moment, run.count_changes, strike)

        def meet(run: Run, fate: Fate) -> None:
            run.send(fate.signum)
            if fate.following is not None:
                timetable.add(timetable.now_s + fate.later_s, partial(run.send, fate.following))

        def cut(each: Cut) -> None:
            cuts.append(replace(each, began=time.monotonic()))
            cutter = self.cutters[each.store]
            if each.held_s:
                cutter.hold()
                timetable.add(timetable.now_s + each.held_s, cutter.release)
            else:
                cutter.cut(rudely=each.rudely)

        def count_changes() -> int:
            return sum(run.count_changes() for run in runs.values())

        for number, each in enumerate(drawn.starts, 1):
            timetable.add(each.at, partial(start, number, each))
        for each_cut in drawn.cuts:
            timetable.add_moment(each_cut.moment, count_changes, partial(cut, each_cut))
        return timetable

    def _note_ends(self, runs: Iterable[Run]) -> None:
        for run in runs:
            if not run.ended and run.process.poll() is not None:
                run.ended = time.monotonic()
                if run.process.returncode == 0:
                    run.look = self._pool.submit(self.servers.content, run.blueprint, run.stores)

    # --- the judgement

    def _judge_run(
        self, run: Run, runs: Sequence[Run], cuts: Sequence[Cut], drawn: Round
    ) -> list[str]:
        """What is untrue in how one run ended."""
        found = []
        code, document = run.process.returncode, run.document
        if not run.ended:
            return [f"run {run.number} did not end: {run.messages[-2000:]}"]
        # Ctrl-C before the command has a handler for it: Python's own words, and nothing was begun.
        if "Traceback" in run.messages and code != -signal.SIGINT:
            found.append(f"run {run.number} shows a traceback: {run.messages[-4000:]}")
        if code >= 0 and document is None and code not in (130, 143):
            found.append(f"run {run.number} ended with {code} and told nothing: {run.messages}")
        if document is not None and code >= 0 and document["exit_code"] != code:
            found.append(f"run {run.number} ended with {code} and told {document['exit_code']}")
        if reason := self._why_untrue(run, runs, cuts):
            found.append(f"run {run.number} ended with {code}, but {reason}: {run.failures()}")
        if run.look is not None:
            expected = self.expected[run.blueprint, drawn.seeded]
            missed = differences(expected, run.look.result())
            found += [f"run {run.number} ended with 0, but {each}" for each in missed]
        return found

    def _why_untrue(self, run: Run, runs: Sequence[Run], cuts: Sequence[Cut]) -> str:
        """Why the exit code of a run is not true; empty when it is."""
        code = run.process.returncode
        if code == 0:
            return ""  # whether everything was in place was looked up when it ended
        if code in SENT:
            return "" if run.got(SENT[code]) else f"nobody sent it {SENT[code].name}"
        if code == CODE_LOCKED:
            others = [
                r for r in runs if r is not run and r.began < run.ended and r.ended > run.began
            ]
            return "" if others else "no other run was there"
        if code == CODE_UNAVAILABLE:
            during = [
                cut
                for cut in cuts
                if run.began <= cut.began + cut.held_s and cut.began <= run.ended
            ]
            is_disturbed = during or run.got(signal.SIGSTOP)
            return "" if is_disturbed else "no connection was cut and it was not stopped"
        return "no accident may give this code"

    def _judge_changes(
        self, runs: Sequence[Run], last: Sequence[End], drawn: Round
    ) -> Iterator[str]:
        """What was told as changed twice, or by nobody although each run could tell."""
        tellers: dict[tuple[str, str, str], list[str]] = {}
        for run in runs:
            for store, name in changed(run.document):
                tellers.setdefault((run.blueprint, store, name), []).append(f"run {run.number}")
        for end in last:
            for store, name in end.changes:
                tellers.setdefault((end.blueprint, store, name), []).append("the plain run")
        for change, by in tellers.items():
            if len(by) > 1:
                yield f"{change} is told as changed by {' and '.join(by)}"
        for end in last:
            for store, name in self.changes[end.blueprint, drawn.seeded]:
                of_it = [run for run in runs if run.blueprint == end.blueprint]
                is_known = (end.blueprint, store, name) in tellers
                if not is_known and not any(run.cannot_tell(store) for run in of_it):
                    yield f"nobody tells {name} of {store} as changed"

    def _end(self, drawn: Round, blueprint: str) -> End:
        """What a plain run tells that follows, and what is not as after a plain run then."""
        try:
            changes = changed(plain(self.servers, blueprint, *drawn.options))
        except Fault as fault:
            return End(blueprint, [], [str(fault)])
        found = []
        try:
            plain(self.servers, blueprint, mode="verify")
        except Fault as fault:
            found.append(str(fault))
        now = self.servers.content(blueprint, BLUEPRINTS[blueprint])
        found += differences(self.expected[blueprint, drawn.seeded], now)
        return End(blueprint, changes, found)


def storm(
    servers: Servers,
    folder: Path,
    *,
    rounds: range,
    runs: int,
    seed: int,
    lease_s: float,
    plain_s: float | None,
) -> int:
    """Play rounds and print what is wrong; 1 if anything is."""
    weather = Storm(servers, folder, lease_s=lease_s)
    faults = number_of_runs = 0
    if plain_s is None:
        servers.empty()
        plain_s = _timed(servers.environ())
    print(f"Seed {seed}, a plain run takes {plain_s:.1f} s.", flush=True)
    try:
        for number in rounds:
            # Each round has a seed of its own, so that one of them can be played again alone.
            chance = random.Random(f"{seed} {number}")
            many = runs if number % 2 else chance.randint(2, runs)
            drawn = Round.drawn(chance, many, usual_time(plain_s, many), lease_s)
            began = time.monotonic()
            found = weather.weather(drawn)
            number_of_runs += many
            faults += bool(found)
            print(
                f"round {number}: {many} runs of {', '.join(drawn.blueprints)}, "
                f"{len(drawn.cuts)} cuts, {time.monotonic() - began:.0f} s, "
                f"{'FAULTS' if found else 'as it should be'}",
                *found,
                sep="\n  ",
                flush=True,
            )
    finally:
        weather.close()
    ends = ", ".join(f"{code}: {n}" for code, n in sorted(weather.codes.items()))
    print(f"\nSeed {seed}, {len(rounds)} rounds, {number_of_runs} runs. {_machine()}")
    print(
        f"Exit codes: {ends}. Accidents that met a living run: {weather.met}. "
        f"Rounds with faults: {faults}."
    )
    if not weather.met:
        print("This storm proves nothing: no accident met a living run.")
    return 1 if faults or not weather.met else 0


def usual_time(plain_s: float, runs: int) -> float:
    """About how many seconds so many runs at once take."""
    return plain_s * (1 + runs / 4)


# --- the command


@contextmanager
def more_lanes(number: int) -> Iterator[list[Servers]]:
    """So many PostgreSQL servers, each with a Redis, that are removed at the end."""
    from is_db_bootstrap import local

    with ExitStack() as open_stacks:
        stacks = [
            open_stacks.enter_context(local.ephemeral_stack(_tell, stores=("postgres", "redis")))
            for _ in range(number)
        ]
        yield [Servers(stack.environ()) for stack in stacks]


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def running_servers(data_dir: Path | None) -> Iterator[Servers]:
    """The local stack that runs in `data_dir`, or a new one that is removed at the end."""
    from is_db_bootstrap import local

    if data_dir is None:
        with local.ephemeral_stack(_tell) as stack:
            yield Servers(stack.environ())
        return
    found = local.status(data_dir)
    if found is None:
        raise SystemExit(f"No local stack runs in {data_dir}.")
    yield Servers(found.environ())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    rerun = commands.add_parser("rerun", help="kill cold runs, and measure the run that follows")
    rerun.add_argument("--moments", type=int, default=50, help="how many (50)")
    kills = commands.add_parser("kills", help="kill applies of each blueprint, and run again")
    kills.add_argument("--points", type=int, default=50, help="how many for each blueprint (50)")
    kills.add_argument(
        "--lanes",
        type=int,
        default=min(2, os.cpu_count() or 1),
        help="how many blueprints at once (one for each core, at most 2)",
    )
    weather = commands.add_parser("storm", help="many runs at once, and accidents")
    weather.add_argument("--rounds", type=int, default=20, help="how many (20)")
    weather.add_argument("--first", type=int, default=1, help="number of the first round (1)")
    weather.add_argument("--runs", type=int, default=MOST_RUNS, help="at most so many at once (12)")
    weather.add_argument(
        "--plain",
        type=float,
        help="seconds of a plain run, of which the moments are drawn (measured)",
    )
    weather.add_argument(
        "--lease", type=float, default=15, help="seconds after which a dead run's lease lapses (15)"
    )
    for each in (rerun, kills, weather):
        each.add_argument("--seed", type=int, default=14, help="of the accidents (14)")
        each.add_argument(
            "--data-dir", type=Path, help="of a running local stack, whose stores are EMPTIED"
        )
    given = parser.parse_args()
    # A shell starts a background job with SIGINT ignored, and the runs would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with running_servers(given.data_dir) as servers:
        if given.command == "rerun":
            return measure_reruns(servers, given.moments, given.seed)
        with tempfile.TemporaryDirectory(prefix="accidents-") as folder:
            if given.command == "kills":
                with more_lanes(given.lanes - 1) as others:
                    lanes = [servers, *others]
                    return kill_everywhere(lanes, Path(folder), given.points, given.seed)
            return storm(
                servers,
                Path(folder),
                rounds=range(given.first, given.first + given.rounds),
                runs=given.runs,
                seed=given.seed,
                lease_s=given.lease,
                plain_s=given.plain,
            )


if __name__ == "__main__":
    sys.exit(main())
