"""Copies the rows of one version of a collection to the next one, or has them embedded again.

Rows are read in the order of their primary key, a page at a time, with the options of pymilvus's
query iterator. The iterator itself (pymilvus 3.0.2) reads Milvus 2.3 at a time of the client's
clock and leaves out what was written a moment ago, and it breaks off at a key with a quotation
mark. What is there already tells how far an earlier call came, so a killed one goes on.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pymilvus.exceptions import MilvusException

from is_db_bootstrap.errors import BootstrapError, ChangeFailed, StoreConflict, StoreUnavailable
from is_db_bootstrap.guests import GuestFailed, strict_guest
from is_db_bootstrap.results import Change, Nature
from is_db_bootstrap.stores.milvus.errors import STORE, quiet
from is_db_bootstrap.stores.milvus.fillable import (
    copied_fields,
    dropped_fields,
    made_by_functions,
    primary_field,
    refuse_unfillable,
    unfit_fields,
)
from is_db_bootstrap.vector_results import CopyProgress, FailedRow, Upgraded
from is_db_bootstrap.wording import counted, noun

if TYPE_CHECKING:
    from is_db_bootstrap.blueprint import Collection
    from is_db_bootstrap.stores.milvus.versions import VersionKeeper

T = TypeVar("T")
Row = dict[str, Any]
#: Rows of one page, unless the caller says otherwise.
BATCH = 1000
#: As many failed rows as are named.
_NAMED = 20
#: What has a server answer in the order of the primary key. The values are texts.
_ORDERED: Mapping[str, Any] = {"iterator": "True", "reduce_stop_for_best": "True"}
#: Rows that a function is asked about, to see which fields it gives.
_ASKED = 5
#: Rows that are compared at the end.
_SAMPLE = 100
#: Passes over the source after which rows that are still missing are told.
_PASSES = 3
#: The partition that every collection has.
_DEFAULT_PARTITION = "_default"
#: Codes of a server without memory, disk or quota for more (pkg/util/merr/errors.go, 2.3 and
#: later: 3, 7 and 9; a failed input or output is 1001). No row is at fault then.
_FULL_CODES = {3, 7, 9, 1001}
#: Words of the same where a server has no code for it, as Milvus Lite. Each is more than one word,
#: so the name of a field is none of them.
_FULL_WORDS = (
    "no space left on device",
    "disk quota exceeded",
    "deny to write",
    "read-only file system",
)
#: Codes of a refusal that only a row can cause (`ErrParameterInvalid`).
_ROW_CODES = {1100}


@dataclass(slots=True)
class _Tally:
    """What was done so far."""

    copied: int = 0
    present: int = 0
    looked_at: int = 0
    failed: dict[Any, str] = field(default_factory=dict)
    sample: list[Any] = field(default_factory=list)


class RowCopy:
    """One copy from `source` to the declared collection.

    `patient` calls until the server is not busy. `on_progress` is told after each page. `where` is
    a filter of Milvus; with it, rows that fit are written again, whatever is there.

    `drop_fields` are fields of the source that may be left behind. With `only_missing`, a row that
    has its key in the declared version is not touched, because applications write there already.
    """

    def __init__(
        self,
        keeper: VersionKeeper,
        declared: Collection,
        source: str,
        *,
        patient: Callable[[Callable[[], None]], None],
        on_progress: Callable[[CopyProgress], None] = lambda _: None,
        where: str = "",
        batch: int = BATCH,
        drop_fields: frozenset[str] = frozenset(),
        only_missing: bool = False,
    ) -> None:
        self._keeper = keeper
        self._server = keeper.server
        self._declared = declared
        self._source = source
        self._patient = patient
        self._on_progress = on_progress
        self._where = where
        self._batch = batch
        self._drop_fields = drop_fields
        self._only_missing = only_missing
        self._key = primary_field(declared).name
        self._tally = _Tally()
        self._began = time.monotonic()
        self._total = 0
        self._source_rows_first = 0
        self._random = random.Random(0)  # noqa: S311 - chooses a sample, keeps no secret
        self._copied: list[str] = []
        self._partitions: list[str] = []

    # --- the whole

    def copy(self) -> Upgraded:
        """Copy what is missing, count both sides and compare a sample. The alias stays.

        Raises `StoreConflict` when the rows cannot be copied, and `ChangeFailed` or
        `StoreUnavailable` when the server takes no more. What was written stays and is found by
        the next call.
        """
        self._prepare()
        try:
            return self._copy_all()
        except StoreUnavailable as exc:
            exc.hint = f"{exc.hint} {self._resume}"
            raise

    def _copy_all(self) -> Upgraded:
        is_empty = self._count(self._declared.name) == 0
        if self._where and not self._only_missing:
            self._pass(is_known_missing=True, replaces=True)
        else:
            self._pass(is_known_missing=is_empty, replaces=not is_empty)
        self._refuse_none_written()
        source_rows, target_rows = self._counts()
        # Rows under keys of the server cannot be looked for, so a second pass would double them.
        more_passes = 0 if self._has_server_keys else _PASSES - 1
        for _ in range(more_passes):
            is_complete = target_rows + len(self._tally.failed) >= source_rows
            if is_complete:
                break
            # Rows were written to the source meanwhile, before the page that was read.
            self._pass(is_known_missing=False, replaces=True)
            source_rows, target_rows = self._counts()
        return self._result(source_rows, target_rows)

    def _prepare(self) -> None:
        with self._keeper.errors(self._source):
            described = self._server.described(self._source)
            target = self._server.described(self._declared.name)
        if described is None or target is None:
            missing = self._source if described is None else self._declared.name
            raise StoreConflict(
                STORE,
                f"There is no collection {missing}.",
                subject=missing,
                hint="Type `is-db-bootstrap apply` first, which makes the declared version.",
            )
        refuse_unfillable(self._declared, described)
        self._described = described
        self._copied = copied_fields(self._declared, described)
        self._refuse_unknown_keys()
        self._fields = self._read_fields(described)
        with self._keeper.errors(self._source):
            options = self._server.look_options
            found = self._server.client.list_partitions(self._source, **options)
        has_key = any(each.get("is_partition_key") for each in described["fields"])
        self._partitions = [] if has_key or len(found) == 1 else sorted(found)
        self._refuse_merged_partitions()
        self._refuse_dropped()
        self._source_rows_first = self._count(self._source)
        where = self._where
        self._total = self._count(self._source, where) if where else self._source_rows_first

    def _refuse_merged_partitions(self) -> None:
        """Refuse to put the rows of a partition that is not declared into the default one."""
        if any(each.partition_key for each in self._declared.fields):
            return
        undeclared = [
            name
            for name in self._partitions
            if name not in {_DEFAULT_PARTITION, *self._declared.partition_names}
        ]
        filled = [name for name in undeclared if self._page(name, None)]
        if not filled:
            return
        wanted = (*self._declared.partition_names, *filled)
        raise StoreConflict(
            STORE,
            f"{self._source} has rows in partitions that {self._declared.name} does not declare: "
            f"{', '.join(filled)}. Nothing was copied.",
            subject=self._declared.name,
            hint=f"Declare them: Collection({self._declared.name!r}, …, partition_names={wanted}). "
            "Then type `is-db-bootstrap apply`, and `is-db-bootstrap vector upgrade` again.",
        )

    def _refuse_dropped(self) -> None:
        """Refuse to leave values behind without a consent, before the first row is written."""
        lost = dropped_fields(self._declared, self._described)
        if self._described.get("enable_dynamic_field") and not self._declared.dynamic:
            lost += sorted(self._dynamic_keys())
        lost = [name for name in lost if name not in self._drop_fields]
        if not lost:
            return
        consent = ",".join([*lost, *sorted(self._drop_fields)])
        raise StoreConflict(
            STORE,
            f"{self._declared.name} has no field for these of {self._source}: {', '.join(lost)}. "
            "Nothing was copied.",
            subject=self._declared.name,
            hint="Declare them; or, to leave their values behind: `is-db-bootstrap vector upgrade "
            f"{self._declared.alias} --drop-fields {consent}`.",
        )

    def _dynamic_keys(self) -> set[str]:
        """All keys of the source's dynamic field that are not declared. Reads every row."""
        known = {each["name"] for each in self._described["fields"]}
        known |= {"$meta", *(each.name for each in self._declared.fields)}
        return {key for _, rows in self._pages() for row in rows for key in row if key not in known}

    def _refuse_unknown_keys(self) -> None:
        """Refuse a second call where the server makes the keys, so that nothing is doubled."""
        if not self._has_server_keys:
            return
        if self._where or self._count(self._declared.name):
            raise StoreConflict(
                STORE,
                f"{self._declared.name} makes its own keys and has rows already, so nobody can "
                "tell which rows are missing.",
                subject=self._declared.name,
                hint="Declare its key without auto_id, which keeps the keys of the rows; or drop "
                f"{self._declared.name} yourself, type `is-db-bootstrap apply`, and begin again.",
            )

    def _read_fields(self, described: Mapping[str, Any]) -> list[str]:
        """What is read of each row: everything that can be, if a function is to see it."""
        if described.get("enable_dynamic_field"):
            return ["*"]
        made = {n for f in described.get("functions") or () for n in f["output_field_names"]}
        names = [each["name"] for each in described["fields"] if each["name"] not in made]
        if self._declared.reembed is not None:
            return names
        return [name for name in names if name in {*self._copied, self._key_of_source}]

    @property
    def _has_server_keys(self) -> bool:
        """Whether the server gives each row of the target a new key."""
        return primary_field(self._declared).auto_id

    @property
    def _key_of_source(self) -> str:
        fields = self._described["fields"]
        return str(next(each["name"] for each in fields if each.get("is_primary")))

    # --- one pass

    def _pass(self, *, is_known_missing: bool, replaces: bool) -> None:
        is_first_pass = self._tally.looked_at == 0
        self._tally.looked_at = 0
        for partition, rows in self._pages():
            missing = rows if is_known_missing else self._missing(rows)
            self._tally.present += len(rows) - len(missing) if is_first_pass else 0
            self._tally.looked_at += len(rows)
            self._note_sample(rows)
            if missing:
                self._write(missing, partition, replaces=replaces)
            self._tell()

    def _pages(self) -> Iterator[tuple[str, list[Row]]]:
        for partition in self._partitions or [""]:
            last: Any = None
            while rows := self._page(partition, last):
                last = max(row[self._key_of_source] for row in rows)
                yield partition, rows

    def _page(self, partition: str, last: Any) -> list[Row]:
        beyond = "" if last is None else f"{self._key_of_source} > {_literal(last)}"
        parts = [f"({self._where})" if self._where else "", beyond]
        given = {"partition_names": [partition]} if partition else {}
        with self._keeper.errors(self._source):
            found = self._server.client.query(
                self._source,
                filter=" and ".join(part for part in parts if part),
                output_fields=self._fields,
                limit=self._batch,
                consistency_level="Strong",
                **_ORDERED,
                **given,
                **self._server.change_options,
            )
        return [dict(row) for row in found]

    def _missing(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that the target does not have, or has with other values."""
        key = self._key_of_source
        names = sorted(self._unchanged)
        with self._keeper.errors(self._declared.name):
            keys = [row[key] for row in rows]
            found = self._query_keys(self._declared.name, keys, sorted({self._key, *names}))
        known = {row[self._key]: row for row in found}
        return [row for row in rows if not _is_same_row(row, known.get(row[key]), names)]

    def _query_keys(self, name: str, keys: Sequence[Any], fields: list[str]) -> list[Row]:
        key = self._key if name == self._declared.name else self._key_of_source
        listed = ", ".join(map(_literal, keys))
        found = self._server.client.query(
            name,
            filter=f"{key} in [{listed}]",
            output_fields=fields,
            limit=len(keys) + 1,
            consistency_level="Strong",
            **self._server.change_options,
        )
        return [dict(row) for row in found]

    def _note_sample(self, rows: Sequence[Row]) -> None:
        """Keep each key with the same chance, whatever the number of rows."""
        sample, seen = self._tally.sample, self._tally.looked_at - len(rows)
        for number, row in enumerate(rows, seen):
            if len(sample) < _SAMPLE:
                sample.append(row[self._key_of_source])
            elif (place := self._random.randrange(number + 1)) < _SAMPLE:
                sample[place] = row[self._key_of_source]

    # --- writing

    def _write(self, rows: list[Row], partition: str, *, replaces: bool) -> None:
        is_first = self._tally.copied == self._tally.present == 0
        pairs = list(self._made(rows))
        made = [row for row in pairs if row is not None]
        if not made and is_first:
            self._refuse_all(len(rows))
        if not made:
            return
        is_declared = partition in self._declared.partition_names
        given = {"partition_name": partition} if is_declared else {}
        self._send(made, given, replaces=replaces)

    def _refuse_all(self, count: int) -> None:
        key, reason = next(iter(self._tally.failed.items()))
        raise self._failed(
            f"Not one of the first {counted(count, 'row')} could be made. Row {key}: {reason}.",
            "Mend it and type `is-db-bootstrap vector upgrade` again. The alias was not moved.",
        )

    def _send(self, rows: list[Row], given: dict[str, str], *, replaces: bool) -> None:
        """Write rows. Those that the server refuses are found by halving, and counted."""
        refused = dict(self._refused(rows, given, replaces=replaces))
        if self._declared.reembed is None and not self._has_server_keys:
            for row in rows:
                self._tally.failed.pop(row.get(self._key), None)
        self._tally.failed.update(refused)
        self._tally.copied += len(rows) - len(refused)

    def _refuse_none_written(self) -> None:
        """Raise `ChangeFailed` when the server has refused every row that there is."""
        tally = self._tally
        if not tally.failed or tally.copied or tally.present:
            return
        key, reason = next(iter(tally.failed.items()))
        raise self._failed(
            f"{self._declared.name} refused all of {counted(len(tally.failed), 'row')}. "
            f"Row {key}: {reason}.",
            self._resume,
        )

    def _refused(
        self, rows: list[Row], given: dict[str, str], *, replaces: bool
    ) -> list[tuple[Any, str]]:
        try:
            self._patient(lambda: self._call(rows, given, replaces=replaces))
        except MilvusException as exc:
            reason = f"{exc.message.strip().removesuffix('.')} (code {int(exc.code)})"
            if _is_full(exc):
                raise self._failed(
                    f"{self._declared.name} takes no more rows: {reason}.", self._resume
                ) from exc
            if len(rows) == 1:
                return [(rows[0].get(self._key), reason)]
        else:
            return []
        middle = len(rows) // 2
        first = self._refused(rows[:middle], given, replaces=replaces)
        return first + self._refused(rows[middle:], given, replaces=replaces)

    def _call(self, rows: list[Row], given: dict[str, str], *, replaces: bool) -> None:
        """Insert, or upsert where a row may be there. A refusal of the rows passes as it is."""
        client, name = self._server.client, self._declared.name
        write = client.upsert if replaces and not self._has_server_keys else client.insert
        try:
            with quiet():
                write(name, rows, **given, **self._server.change_options)
        except MilvusException as exc:
            if not self._server.is_busy(exc):
                raise
            with self._keeper.errors(name):
                raise
        except Exception:
            with self._keeper.errors(name):
                raise

    @property
    def _resume(self) -> str:
        done = self._tally.copied + self._tally.present
        return (
            f"{done} of {counted(self._total, 'row')} in {self._declared.name}, and the alias was "
            "not moved. Mend it, and type `is-db-bootstrap vector upgrade` again, which goes on "
            "there."
        )

    def _failed(self, message: str, hint: str) -> ChangeFailed:
        change = Change(self._declared.name, "rows", nature=Nature.REPEATABLE)
        return ChangeFailed(STORE, message, change=change, hint=hint)

    # --- making rows

    def _made(self, rows: Sequence[Row]) -> Iterator[Row | None]:
        """The new rows, in order. None stands for one that could not be made."""
        names = set(self._copied)
        plain = [
            {
                name: _writable(value)
                for name, value in row.items()
                if name in names or self._is_extra(name)
            }
            for row in rows
        ]
        if self._declared.reembed is None:
            for row, base in zip(rows, plain, strict=True):
                yield base if self._is_placed(row) else None
            return
        for row, base, given in zip(rows, plain, self._embedded(rows), strict=True):
            key = row[self._key_of_source]
            if not self._is_placed(row):
                yield None
                continue
            reason = given if isinstance(given, str) else self._wrong_row({**base, **given})
            if reason or isinstance(given, str):
                self._tally.failed[key] = reason
                yield None
            else:
                self._tally.failed.pop(key, None)
                yield {**base, **given}

    def _is_placed(self, row: Row) -> bool:
        """Whether all values of a row have a place. One that has not is noted as failed.

        The dynamic keys that were there at the beginning are known. A row may bring others.
        """
        known = self._source_names | self._drop_fields | {"$meta"}
        lost = [name for name in row if name not in known and not self._is_extra(name)]
        if lost:
            reason = f"there is no field for {', '.join(lost)}"
            self._tally.failed[row[self._key_of_source]] = reason
        return not lost

    @cached_property
    def _unfit(self) -> list[str]:
        """Declared fields that are of another type in the source."""
        return unfit_fields(self._declared, self._described)

    def _is_extra(self, name: str) -> bool:
        """Whether a value of the source's dynamic field has a place in the declared version."""
        if name == "$meta" or name in self._source_names:
            return False
        if name in self._declared_names:
            return name in self._takes_dynamic
        return self._declared.dynamic

    @cached_property
    def _source_names(self) -> set[str]:
        return {each["name"] for each in self._described["fields"]}

    @cached_property
    def _declared_names(self) -> set[str]:
        return {each.name for each in self._declared.fields}

    @cached_property
    def _takes_dynamic(self) -> set[str]:
        """Declared fields that a value of the dynamic field may fill."""
        made = made_by_functions(self._declared)
        fillable = [each.name for each in self._declared.fields if not each.auto_id]
        return {name for name in fillable if name not in made}

    def _embedded(self, rows: Sequence[Row]) -> list[Mapping[str, Any] | str]:
        """What the function gives for each row, or why it gives nothing."""
        try:
            return list(self._called(rows))
        except (GuestFailed, BootstrapError) as exc:
            if len(rows) == 1:
                return [str(exc)]
        middle = len(rows) // 2
        return self._embedded(rows[:middle]) + self._embedded(rows[middle:])

    def _called(self, rows: Sequence[Row]) -> Sequence[Mapping[str, Any]]:
        reembed = self._declared.reembed
        if reembed is None:
            return [{} for _ in rows]
        with strict_guest():
            given = list(reembed([dict(row) for row in rows]))
            if len(given) != len(rows):
                raise ValueError(f"{counted(len(given), 'row')} returned for {len(rows)}")
            return [dict(each) for each in given]

    def _wrong_row(self, row: Row) -> str:
        """What is wrong with a row that a function has made; empty when nothing is."""
        made = made_by_functions(self._declared)
        for each in self._declared.fields:
            value = row.get(each.name)
            if value is None:
                is_left_out = each.nullable or each.default is not None or each.auto_id
                if not is_left_out and each.name not in made:
                    return f"there is no value for {each.name}"
                if each.name in self._unfit and each.name not in row:
                    return (
                        f"{each.name} is of another type there, and the function does not return it"
                    )
            elif each.type == "FLOAT_VECTOR" and (wrong := _wrong_vector(value, each.dim or 0)):
                return f"{each.name} {wrong}"
        return ""

    # --- comparing

    def _counts(self) -> tuple[int, int]:
        """The rows of source and target, where only those count that are copied."""
        return self._count(self._source), self._count(self._declared.name)

    def _count(self, name: str, where: str = "") -> int:
        with self._keeper.errors(name):
            return self._keeper.count(name, where)

    def _differing(self) -> list[Any]:
        """Keys of the sample whose copied fields are not the same on both sides."""
        keys = [key for key in self._tally.sample if key not in self._tally.failed]
        is_comparable = bool(keys) and not self._has_server_keys
        if not is_comparable:
            return []
        names = sorted(self._unchanged)
        fields = sorted({self._key, *names})
        with self._keeper.errors(self._declared.name):
            ours = self._query_keys(self._source, keys, sorted({self._key_of_source, *names}))
            theirs = self._query_keys(self._declared.name, keys, fields)
        found = {row[self._key]: row for row in theirs}
        return [
            row[self._key_of_source]
            for row in ours
            if not _is_same_row(row, found.get(row[self._key_of_source]), names)
        ]

    @cached_property
    def _unchanged(self) -> set[str]:
        """Fields that are copied as they are. What a function returns may be other.

        A function is asked about the first row that it takes.
        """
        if self._only_missing:
            return set()
        if self._declared.reembed is None:
            return set(self._copied)
        rows = self._page("", None)[:_ASKED]
        given = next((each for each in self._embedded(rows) if not isinstance(each, str)), {})
        vectors = {each.name for each in self._declared.fields if each.type.endswith("VECTOR")}
        return set(self._copied) - vectors - set(given)

    def _result(self, source_rows: int, target_rows: int) -> Upgraded:
        tally = self._tally
        differing = self._differing()
        failures = [FailedRow(str(key), why) for key, why in tally.failed.items()]
        return Upgraded(
            source=self._source,
            target=self._declared.name,
            alias=self._declared.alias,
            copied=tally.copied,
            present=tally.present,
            failed=len(failures),
            failures=tuple(failures[:_NAMED]),
            source_rows=source_rows,
            target_rows=target_rows,
            sampled=0 if self._has_server_keys else len(tally.sample),
            differing=tuple(map(str, differing)),
            notes=tuple(self._objections(source_rows, target_rows, differing)),
        )

    def _objections(
        self, source_rows: int, target_rows: int, differing: Sequence[Any]
    ) -> Iterator[str]:
        """Why the alias had better stay."""
        failed = len(self._tally.failed)
        if failed:
            yield f"{counted(failed, 'row')} could not be written."
        missing = source_rows - target_rows - failed
        if missing > 0:
            yield (
                f"{missing} {noun(missing, 'row is', 'rows are')} missing. {self._source} had "
                f"{counted(self._source_rows_first, 'row')} at the beginning and has "
                f"{source_rows} now."
            )
        extra = target_rows - source_rows
        if extra > 0 and not self._only_missing:
            yield (
                f"{self._declared.name} has {counted(extra, 'row')} that {self._source} does not "
                "have: deleted there meanwhile, or written here only."
            )
        if differing:
            named = ", ".join(map(str, differing[:_NAMED]))
            yield (
                f"{counted(len(differing), 'row')} of the sample changed in {self._source}: "
                f"{named}. "
                "Copy those that changed once more, with --where."
            )

    def _tell(self) -> None:
        self._on_progress(
            CopyProgress(
                self._declared.name,
                self._tally.looked_at,
                self._total,
                len(self._tally.failed),
                time.monotonic() - self._began,
            )
        )


def _is_full(exc: MilvusException) -> bool:
    """Whether the server takes no more rows at all, whatever is in them."""
    code = int(exc.code)
    if code in _ROW_CODES:
        return False
    return code in _FULL_CODES or any(words in exc.message.lower() for words in _FULL_WORDS)


def _literal(key: Any) -> str:
    """A key as a filter of Milvus writes it."""
    return json.dumps(key, ensure_ascii=False) if isinstance(key, str) else str(key)


def _writable(value: Any) -> Any:
    """A value as an insert takes it: pymilvus reads a vector of bytes as a list with one item."""
    is_boxed = isinstance(value, list) and len(value) == 1 and isinstance(value[0], bytes)
    return value[0] if is_boxed else value


def _wrong_vector(value: Any, dim: int) -> str:
    """What is wrong with a vector of 32-bit numbers; empty when nothing is."""
    try:
        components = [float(each) for each in value]
    except (TypeError, ValueError):
        return "is no list of numbers"
    if len(components) != dim:
        return f"has {counted(len(components), 'component')}, declared {dim}"
    if not all(map(math.isfinite, components)):
        return "has a component that is not finite (NaN or infinity)"
    return ""


def _is_same_row(ours: Row, theirs: Row | None, names: Sequence[str]) -> bool:
    if theirs is None:
        return False
    return all(_plain(ours.get(name)) == _plain(theirs.get(name)) for name in names)


def _plain(value: Any) -> Any:
    """A value that can be compared: lists of pymilvus and numpy become lists."""
    is_listed = hasattr(value, "__iter__") and not isinstance(value, str | bytes | Mapping)
    return list(value) if is_listed else value
