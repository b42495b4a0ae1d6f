"""What pip takes to install this package on another machine."""

from __future__ import annotations

import json
from importlib import metadata

#: Where the package can be had until it is on an index.
REPOSITORY = "https://github.com/is-db-bootstrap/is-db-bootstrap"
_PACKAGE = "is-db-bootstrap"


def requirement(extras: str) -> str:
    """A requirement (PEP 508) of this package with `extras`, which are joined by commas.

    It names the version when the package came from an index, and the commit when it came from git.
    A package that was installed from a folder or a file of this machine can be had from the
    project's repository only, so the requirement names that. PEP 610 says how pip records where a
    package came from.
    """
    installed = metadata.distribution(_PACKAGE)
    name = f"{_PACKAGE}[{extras}]"
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin:
        return f"{name}=={installed.version}"
    version_control = origin.get("vcs_info")
    if version_control is None:
        return f"{name} @ git+{REPOSITORY}"
    return f"{name} @ {version_control['vcs']}+{origin['url']}@{version_control['commit_id']}"
