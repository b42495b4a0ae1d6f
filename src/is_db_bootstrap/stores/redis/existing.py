"""The keys of a running Redis, as proposed key patterns.

Nobody can know from keys what their writers mean. So a bounded look is taken, keys of one form are
put together, and everything that was concluded is told as a guess.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.sentences import end_sentence
from is_db_bootstrap.stores.existing import Existing, Request
from is_db_bootstrap.stores.redis.check import problems
from is_db_bootstrap.stores.redis.errors import Translation
from is_db_bootstrap.stores.redis.key_reader import KeyReader
from is_db_bootstrap.stores.redis.server import open_server

if TYPE_CHECKING:
    from is_db_bootstrap.settings import StoreUrl, Timing

#: Keys that one SCAN is asked for.
_BATCH = 500
#: As many different words in one place make a placeholder of it. Fewer may be names of things.
_WORDS_OF_A_PLACEHOLDER = 6
#: As many different words in the first place are no names of things any more.
_WORDS_IN_FRONT = 30
#: What ends the part of a first word that may be common to many.
_IN_FRONT = re.compile(r"[^A-Za-z0-9]*[A-Za-z0-9]+[_.@/|-]+")
#: What Redis, or this tool, keeps under a key of its own.
_OWN_PREFIXES = ("is-db-bootstrap:", "is_db_bootstrap:")
#: Parts of a key that are certainly values, and the expression of their placeholder. The first that
#: fits counts.
_VALUES: Sequence[tuple[str, str]] = (
    ("uuid", r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    ("date", r"\d{4}-\d{2}-\d{2}"),
    ("hash", r"[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}"),
    ("token", r"(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{20,}"),
    ("number", r"\d+"),
)
#: Where a value may begin or end: at a separator, or at an end of the key.
_PIECE = re.compile(
    r"(?P<tag>\{[^{}:]*\})|"
    + "|".join(rf"(?P<{name}>(?<![A-Za-z0-9])(?:{text})(?![A-Za-z0-9]))" for name, text in _VALUES)
)
_EXPRESSIONS = dict(_VALUES)
_SEPARATOR = ":"
#: Lifetimes that people set, in seconds: a minute to a year. One that was seen is what is left of
#: one of them.
_USUAL_LIFETIMES_S = (
    60,
    120,
    300,
    600,
    900,
    1800,
    3600,
    7200,
    21_600,
    43_200,
    86_400,
    172_800,
    604_800,
    1_209_600,
    2_592_000,
    7_776_000,
    31_536_000,
)
_YEAR_S = 31_536_000
_NO_LIFETIME_MS, _GONE_MS = -1, -2
_NOTHING_IN_COMMON = "their first words have nothing in common, so they may be values"


@dataclass(slots=True)
class _Form:
    """Keys of one form: what they are, and how long they live."""

    kinds: Counter[str] = field(default_factory=Counter)
    without_lifetime: int = 0
    longest_ms: int = 0
    keys: int = 0

    def note(self, kind: str, ttl_ms: int) -> None:
        """Count one key."""
        self.keys += 1
        self.kinds[kind] += 1
        if ttl_ms == _NO_LIFETIME_MS:
            self.without_lifetime += 1
        self.longest_ms = max(self.longest_ms, ttl_ms)

    def add(self, other: _Form) -> None:
        """Count the keys of another form too."""
        self.keys += other.keys
        self.kinds += other.kinds
        self.without_lifetime += other.without_lifetime
        self.longest_ms = max(self.longest_ms, other.longest_ms)


#: A form is the parts of a key between colons.
_Parts = tuple[str, ...]
#: What stands around the kind of a value in a part: two characters that Unicode gives to nobody.
_BEGIN, _END = "\ue000", "\ue001"
#: The kind of a value that is any word.
_WORD = "word"
_VALUE = re.compile(f"{_BEGIN}(\\w+){_END}")


def read_existing(url: StoreUrl, timing: Timing, request: Request) -> Existing:
    """Patterns of at most `request.most_keys` keys of the database in `url`."""
    errors = Translation(url)
    server = open_server(url, timing.connect_timeout_s, timing.connect_timeout_s, errors)
    reader = _Reader(request.most_keys)
    try:
        with errors("SCAN"):
            total = sum(KeyReader(master).count_keys() for master in server.masters())
            for master in server.masters():
                reader.scan(master)
    finally:
        server.client.close()
    patterns = tuple(reader.patterns(request.blueprint))
    guesses = list(reader.guesses)
    if reader.seen < total:
        guesses.append(f"Only {reader.seen} of {total} keys were looked at.")
    if patterns:
        guesses.append("owner and purpose of each key pattern are for you to write.")
    return Existing(
        declared={"keys": patterns} if patterns else {},
        found=f"{len(patterns)} key patterns in {reader.seen} of {total} keys",
        guesses=guesses,
        unread=reader.unread,
    )


class _Reader:
    """Looks at keys, and puts those of one form together."""

    def __init__(self, most_keys: int) -> None:
        self._most_keys = most_keys
        self._forms: dict[_Parts, _Form] = defaultdict(_Form)
        #: Keys that cannot be declared, by the reason.
        self._odd: Counter[str] = Counter()
        self.seen = 0
        self.guesses: list[str] = []

    @property
    def unread(self) -> list[str]:
        """What was left out, one sentence for each reason."""
        return [
            end_sentence(f"{count} {'key' if count == 1 else 'keys'} left out: {reason}")
            for reason, count in self._odd.items()
        ]

    def scan(self, master: Any) -> None:
        """Look at keys of one server until it has no more, or enough were seen."""
        cursor, is_begun = 0, False
        while (cursor or not is_begun) and self.seen < self._most_keys:
            is_begun = True
            cursor, names = master.scan(cursor, count=_BATCH)
            self._note(master, names[: self._most_keys - self.seen])

    def _note(self, master: Any, names: Sequence[bytes]) -> None:
        self.seen += len(names)
        pipeline = master.pipeline(transaction=False)
        for name in names:
            pipeline.type(name).pttl(name)
        answers = pipeline.execute()
        for name, kind, ttl_ms in zip(names, answers[::2], answers[1::2], strict=True):
            key = _readable(name)
            if ttl_ms == _GONE_MS:
                continue
            if key is None:
                self._odd["the name is not UTF-8"] += 1
            elif not key:
                self._odd["the name is empty"] += 1
            elif not key.startswith(_OWN_PREFIXES):
                self._forms[_parts(key)].note(_text(kind), ttl_ms)

    def patterns(self, blueprint: str) -> Iterator[KeyPattern]:
        """The patterns of what was seen. Call it once, when everything was scanned."""
        names: Counter[str] = Counter()
        forms = self._with_common_fronts(_merged(self._forms))
        for parts, form in sorted(forms.items()):
            name = _name_of(parts) or blueprint
            names[name] += 1
            unique = name if names[name] == 1 else f"{name}_{names[name]}"
            pattern = self._pattern(unique, parts, form)
            if pattern is not None:
                yield pattern

    def _with_common_fronts(self, forms: Mapping[_Parts, _Form]) -> dict[_Parts, _Form]:
        """The forms, with a placeholder in the first part where too many words stand there.

        What such words begin with in common stays. Words that have nothing in common are values,
        which may be secrets, so they are left out.
        """
        found = dict(forms)
        alike: dict[_Parts, list[_Parts]] = defaultdict(list)
        for parts in forms:
            if not _VALUE.search(parts[0]):
                alike[parts[1:]].append(parts)
        for after, group in alike.items():
            if len(group) < _WORDS_IN_FRONT:
                continue
            fronts: dict[str, list[_Parts]] = defaultdict(list)
            for parts in group:
                begun = _IN_FRONT.match(parts[0])
                fronts[begun[0] if begun else ""].append(parts)
            lone = [each for same in fronts.values() if len(same) == 1 for each in same]
            for front, same in fronts.items():
                if front and len(same) >= _WORDS_OF_A_PLACEHOLDER:
                    _put_together(found, same, (f"{front}{_value(_WORD)}", *after))
            lone += fronts.get("", []) if len(fronts.get("", [])) > 1 else []
            if len(lone) >= _WORDS_IN_FRONT:
                for parts in lone:
                    self._odd[_NOTHING_IN_COMMON] += found.pop(parts).keys
        return found

    def _pattern(self, name: str, parts: _Parts, form: _Form) -> KeyPattern | None:
        if any("{" in part or "}" in part for part in parts):
            self._odd["the name has braces that are no hash tag"] += form.keys
            return None
        text, placeholders = _spelled(parts)
        (kind, count), *others = form.kinds.most_common()
        if others:
            self.guesses.append(
                f"{text}: {count} of {form.keys} keys are a {kind}, others are not."
            )
        found = KeyPattern(
            name,
            text,
            kind,  # type: ignore[arg-type]  # checked below, as what a server says
            ttl=self._lifetime(text, form),
            owner="unknown",
            purpose="unknown",
            placeholders=placeholders,
            reason="" if form.longest_ms > 0 else "seen without a lifetime",
        )
        wrong = list(problems(Blueprint("existing", "", keys=(found,))))
        if wrong:
            self._odd[f"a pattern cannot say it: {wrong[0]}"] += form.keys
            return None
        return found

    def _lifetime(self, text: str, form: _Form) -> int | None:
        """The shortest usual lifetime that is not below any that was seen, in seconds."""
        if form.longest_ms <= 0:
            return None
        seen_s = -(-form.longest_ms // 1000)
        usual = (each for each in _USUAL_LIFETIMES_S if each >= seen_s)
        lifetime_s = next(usual, -(-seen_s // _YEAR_S) * _YEAR_S)
        self.guesses.append(
            f"{text}: {seen_s} s was the longest lifetime left, so {lifetime_s} s is declared."
        )
        if form.without_lifetime:
            self.guesses.append(
                f"{text}: {form.without_lifetime} of {form.keys} keys have no lifetime, which "
                "breaks the declaration."
            )
        return lifetime_s


def _readable(name: bytes) -> str | None:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _text(kind: Any) -> str:
    return kind.decode() if isinstance(kind, bytes) else str(kind)


def _parts(key: str) -> _Parts:
    """The parts of a key between colons, with the kind of each value in its place."""
    return tuple(_PIECE.sub(lambda found: _value(str(found.lastgroup)), key).split(_SEPARATOR))


def _value(kind: str) -> str:
    return f"{_BEGIN}{kind}{_END}"


def _merged(forms: Mapping[_Parts, _Form]) -> dict[_Parts, _Form]:
    """The forms, with a placeholder where many forms differ in one part only.

    The first part names whose key it is, so it stays.
    """
    found = dict(forms)
    longest = max((len(parts) for parts in found), default=0)
    for place in range(1, longest):
        alike: dict[tuple[_Parts, _Parts], list[_Parts]] = defaultdict(list)
        for parts in found:
            if len(parts) > place:
                alike[parts[:place], parts[place + 1 :]].append(parts)
        for (before, after), group in alike.items():
            if len(group) >= _WORDS_OF_A_PLACEHOLDER:
                _put_together(found, group, (*before, _value(_WORD), *after))
    return found


def _put_together(found: dict[_Parts, _Form], group: Iterable[_Parts], parts: _Parts) -> None:
    together = _Form()
    for each in group:
        together.add(found.pop(each))
    found[parts] = together


def _spelled(parts: _Parts) -> tuple[str, dict[str, str]]:
    """The pattern of a form, and the expressions of its placeholders."""
    expressions: dict[str, str] = {}

    def placeholder(found: re.Match[str]) -> str:
        kind = found[1]
        base = "id" if kind in {"number", "token", _WORD} else kind
        name = base
        number = 1
        while name in expressions:
            number += 1
            name = f"{base}{number}"
        expressions[name] = _EXPRESSIONS.get(kind, "[^:]+")
        return f"{{{name}}}"

    text = _VALUE.sub(placeholder, _SEPARATOR.join(parts))
    return text, {name: each for name, each in expressions.items() if each != "[^:]+"}


def _name_of(parts: _Parts) -> str:
    """A name for a form, made of its words."""
    words = _VALUE.sub(" ", " ".join(parts))
    return re.sub(r"\W+", "_", words).strip("_").lower()
