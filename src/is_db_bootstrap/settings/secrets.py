"""Secrets, which are read from their files, and hidden where text is made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path, PurePath
from urllib.parse import quote, quote_plus

from is_db_bootstrap.errors import ConfigurationError

#: What stands in a text in the place of a secret.
HIDDEN = "***"
#: A shorter secret is no secret. Hiding a short one would garble words that merely look like it.
SHORTEST_HIDDEN = 6
#: Options of an address whose value is a secret although it is not the store's password.
SECRET_OPTIONS = ("sslpassword", "ssl_password", "sentinel_password")


def has_surrogates(text: str) -> bool:
    """Whether a text has bytes that are no UTF-8, as a variable of the environment may."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_secret(path: Path, name: str) -> str:
    """The secret in a file, without one newline at its end.

    Raises `ConfigurationError` that names the setting `name`, when there is no secret.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{name}: {path} cannot be read: {exc}.") from exc
    secret = re.sub(r"\r?\n\Z", "", text)
    if not secret:
        raise ConfigurationError(
            f"{name}: {path} is empty.", hint="Leave it out where there is no password."
        )
    return secret


@lru_cache(maxsize=64)
def forms(secret: str) -> frozenset[str]:
    """Every form in which programs write a text.

    A text is written as it is, escaped for a URL, and then quoted for Python or for JSON.
    """
    escaped = {
        secret,
        " ".join(secret.split()),
        quote(secret, safe=""),
        quote(secret, safe="/"),
        quote(secret, safe="!#$%&'()*+,/:;=?@[]~"),  # as requests does
        quote_plus(secret),
    }
    found = set(escaped)
    for text in escaped:
        quoted = (
            repr(text),
            ascii(text),
            json.dumps(text),
            json.dumps(text, ensure_ascii=False),
        )
        found |= {form[1:-1] for form in quoted}
    return frozenset(form for form in found if len(form) >= SHORTEST_HIDDEN)


#: An address that may hold a secret. One slash is enough, because a `Path` makes one of two.
_MAY_HOLD_SECRET = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]+:/+)(?P<rest>.*)", re.DOTALL)
#: A password in a query, and `user:password` where the `@` behind it was forgotten.
_SECRET_IN_QUERY = re.compile(r"[?&][a-z_]*password=", re.IGNORECASE)
#: An IPv6 address, whose colons come before no password.
_IPV6 = re.compile(r"(?:^|(?<=,))\[[0-9A-Fa-f:.]+(?:%\w+)?\]")
_SECRET_WITHOUT_AT = re.compile(r"[^/?#]*:(?!\d{1,5}(?:[/?,]|\Z))")


def may_hold_secret(text: str) -> bool:
    """Whether a text that was typed is an address with a password or a token in it.

    A value that was to be a name or a path, and is such an address, must not be repeated anywhere.
    """
    match = _MAY_HOLD_SECRET.fullmatch(text.strip())
    if match is None:
        return False
    rest = match["rest"]
    if "@" in rest or _SECRET_IN_QUERY.search(rest):
        return True
    return _SECRET_WITHOUT_AT.match(_IPV6.sub("", rest)) is not None


def shown(text: str) -> str:
    """A typed address for people: its scheme, and nothing else.

    Nobody can know where its password ends, since `scheme://user:a@b` may lack its host.
    """
    match = _MAY_HOLD_SECRET.fullmatch(text.strip())
    if match is None or not may_hold_secret(text):
        return text
    return f"{match['scheme']}{HIDDEN}"


def without_typed(text: str, typed: Iterable[str]) -> str:
    """`text`, in which each address among the `typed` values stands as `shown` tells it.

    A value may stand there as a path, which has fewer slashes. So that form is looked for too.
    """
    for value in typed:
        if not may_hold_secret(value):
            continue
        written = {value, value.strip(), str(PurePath(value)), _as_filename(value)}
        found = {form for each in written for form in forms(each)}
        for form in sorted(found, key=len, reverse=True):
            text = text.replace(form, shown(value))
    return text


def _as_filename(value: str) -> str:
    """A value as click writes a file's name: bytes that are no UTF-8 are question marks."""
    return os.fsencode(value).decode(errors="replace")


def without_addresses(text: str) -> str:
    """A message that repeats what was typed, without all from `:/` to the last `@`."""
    text = re.sub(r"(?<=[A-Za-z0-9]:/)(/*).*@", rf"\1{HIDDEN}@", text, flags=re.DOTALL)
    return re.sub(r"(?i)([?&][a-z_]*password=)[^&\s]*", rf"\1{HIDDEN}", text)
