"""The pages of the blueprints: complete lists, commands that run, and a table that links every
acceptance check.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from is_db_bootstrap.blueprint.describe import describe, diagrams
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.render.mermaid import mermaid

ROOT = Path(__file__).parents[2]
EACH = pytest.mark.parametrize("name", blueprint_names())
#: Prefix of a blueprint's tests, and how many acceptance checks it has.
CHECKS = {"ng": 19, "ctx": 14, "agt": 14, "hd": 30, "mplp": 15}


def page(name):
    return (ROOT / "docs" / "blueprints" / f"{name}.md").read_text(encoding="utf-8")


@EACH
def test_everything_that_is_declared_is_on_the_page(name):
    text, stores = page(name), describe(load_blueprint(name))["stores"]
    tables = stores.get("postgres", {}).get("tables", {})
    wanted = [
        *tables,
        *(r["id"] for r in stores.get("postgres", {}).get("revisions", ())),
        *stores.get("postgres", {}).get("enums", {}),
    ]
    if (
        name != "novel_genesis"
    ):  # its page tells tables in words, and the file `schema.sql` the rest
        wanted += [
            i for t in tables.values() for i in t["indexes"] if not i.startswith(("pk_", "uq_mplp"))
        ]
        wanted += [c for t in tables.values() for c in t["columns"]]
    wanted += [o["name"] for f in stores.get("neo4j", {}).get("files", ()) for o in f["objects"]]
    wanted += [
        *stores.get("neo4j", {}).get("labels", {}),
        *stores.get("neo4j", {}).get("relationships", {}),
    ]
    wanted += [
        n
        for c in stores.get("milvus", {}).get("collections", ())
        for n in (c["name"], c["alias"], *(f["name"] for f in c["fields"]))
    ]
    wanted += [k["pattern"] for k in stores.get("redis", {}).get("keys", ())]
    assert [
        w for w in dict.fromkeys(wanted) if not re.search(rf"(?<!\w){re.escape(w)}(?!\w)", text)
    ] == []


@EACH
def test_the_diagrams_on_the_page_are_current(name):
    drawn = mermaid(diagrams(describe(load_blueprint(name))))
    assert drawn.strip() in page(name), (
        f"stale: is-db-bootstrap blueprints show {name} --format mermaid"
    )


def calls(name):
    for block in re.findall(r"```bash\n(.*?)```", page(name), re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["is-db-bootstrap"]:
                yield words[1:]


@pytest.fixture
def addresses(postgres_url, neo4j_url, milvus_url, redis_url):
    return {
        "POSTGRES_URL": postgres_url,
        "NEO4J_URL": neo4j_url,
        "MILVUS_URL": milvus_url,
        "REDIS_URL": redis_url,
    }


@pytest.mark.postgres
@pytest.mark.neo4j
@pytest.mark.milvus
@pytest.mark.redis
@EACH
def test_the_commands_on_the_page_run(name, addresses, tmp_path):
    environ = {
        k: v for k, v in os.environ.items() if not k.startswith(("DB_", "DATABASE"))
    } | addresses
    ran = 0
    for words in calls(name):
        done = subprocess.run(
            [sys.executable, "-m", "is_db_bootstrap", *words],
            env=environ,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        ran += 1
    assert ran >= 3


@pytest.mark.parametrize(
    ("prefix", "number"), [(p, n) for p, most in CHECKS.items() for n in range(1, most + 1)]
)
def test_every_acceptance_check_has_tests_and_a_line_that_links_them(prefix, number):
    table = (ROOT / "docs" / "reference" / "blueprints.md").read_text(encoding="utf-8")
    [line] = re.findall(rf"^\| `{prefix}_{number:02}` \|.*$", table, re.MULTILINE)
    linked = set(re.findall(r"\]\(\.\./\.\./(tests/[^)]+)\)", line))
    holding = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "tests").rglob("test_*.py")
        if re.search(
            rf"^(async )?def test_{prefix}_{number:02}_",
            file.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    }
    assert linked == holding != set()
