"""`python -m is_db_bootstrap.local.jar_list 5.26.30 > neo4j-5.26.30.txt`: make the list of a Neo4j version's jars again.

jgo resolves the coordinates, as Maven would, into its own cache; that takes minutes the first time. Sizes and
checksums are those of the files it got, so run it where the network can be trusted, and read the difference.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from is_db_bootstrap.local.download import Artifact

ROOTS = ("org.neo4j:neo4j", "org.neo4j.app:neo4j-server")


def artifacts(version: str) -> Iterator[Artifact]:
    """Every jar that a server of `version` needs, itself included, from the lock file that jgo writes."""
    import jgo

    environment = jgo.build("+".join(f"{root}:{version}" for root in ROOTS))
    sizes = {Path(jar).name: Path(jar).stat().st_size for jar in environment.all_jars}
    locked = tomllib.loads(Path(environment.lock_path).read_text(encoding="utf-8"))
    for each in locked["dependencies"]:
        found = Artifact(each["sha256"], 0, each["groupId"], each["artifactId"], each["version"], each.get("classifier", ""))
        yield Artifact(found.sha256, sizes[found.file], found.group, found.name, found.version, found.classifier)


if __name__ == "__main__":
    print("\n".join(sorted(a.line() for a in artifacts(sys.argv[1]))))  # noqa: T201 - its result
