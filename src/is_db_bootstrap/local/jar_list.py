"""Make the list of a Neo4j version's jars again, from what Maven resolves.

With a `pom.xml` that depends on `org.neo4j:neo4j` and `org.neo4j.app:neo4j-server` of one version:

    mvn dependency:copy-dependencies -DincludeScope=runtime -Dmdep.useRepositoryLayout=true
    -DoutputDirectory=jars python -m is_db_bootstrap.local.jar_list jars > neo4j-5.26.30.txt

Sizes and checksums are those of the files that Maven got. Run it where the network can be trusted,
and read the difference.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from is_db_bootstrap.local.download import Artifact


def artifacts(folder: Path) -> Iterator[Artifact]:
    """Every jar below `folder`, which has the layout of a Maven repository."""
    for jar in folder.rglob("*.jar"):
        *group, name, version, file = jar.relative_to(folder).parts
        classifier = file.removeprefix(f"{name}-{version}").removesuffix(".jar").removeprefix("-")
        digest = hashlib.sha256(jar.read_bytes()).hexdigest()
        yield Artifact(digest, jar.stat().st_size, ".".join(group), name, version, classifier)


if __name__ == "__main__":
    by_name = sorted(artifacts(Path(sys.argv[1])), key=lambda artifact: artifact.file)
    print("\n".join(artifact.line() for artifact in by_name))  # noqa: T201 - its result
