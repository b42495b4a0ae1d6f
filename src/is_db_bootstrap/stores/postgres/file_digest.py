"""The digest of a file, as our row of a version table has it (`revision_digests`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path


def digest(text: bytes) -> str:
    """The SHA-256 of a file, in hexadecimal digits, as it is with line feeds as line ends."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return hashlib.sha256(text).hexdigest()


def digest_of(path: Path) -> str:
    """The same of a file that is there. Empty where it cannot be read."""
    try:
        return digest(path.read_bytes())
    except OSError:
        return ""


def as_json(digests: Mapping[str, str]) -> str:
    """Digests by revision, as our row has them. What could not be read is left out."""
    return json.dumps({name: found for name, found in digests.items() if found})
