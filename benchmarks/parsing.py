"""How long Cypher files take to read: the seconds must grow with the statements, not faster.

    python benchmarks/parsing.py

Prints a table in Markdown. Needs no server. CPU seconds are those of this process, the fastest of
five, so that other programs of the machine count little.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile, load
from is_db_bootstrap.stores.neo4j.schema_forecast import declared

#: Statements in one file.
COUNTS = (1_000, 10_000, 100_000)
_STATEMENT = "// note {0}\nMERGE (n:Person {{id: {0}, name: 'x{0}'}}) SET n.age = {0};\n"


def fastest(count: int) -> tuple[float, float]:
    """CPU seconds of reading a file of `count` statements, and of all that `plan` does with it."""
    text = "".join(_STATEMENT.format(number) for number in range(count))
    reading, planning = [], []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "V1__many.cypher").write_text(text)
        for _ in range(5):
            began = time.process_time()
            files = load(Path(folder))
            reading.append(time.process_time() - began)
            began = time.process_time()
            _look_as_plan_does(files[0])
            planning.append(time.process_time() - began)
    return min(reading), min(planning)


def _look_as_plan_does(file: CypherFile) -> None:
    assert file.checksums
    assert not declared([file])
    list(file.lint())


def main() -> None:
    """Print the table."""
    print("| statements | read, CPU s | checksum, forecast and warnings, CPU s |")
    print("|---|---|---|")
    for count in COUNTS:
        reading, planning = fastest(count)
        print(f"| {count:,} | {reading:.3f} | {planning:.3f} |")


if __name__ == "__main__":
    main()
