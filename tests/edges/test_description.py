"""What a blueprint declares, without asking any server: the document, the index, the tree, the
diagrams.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.blueprint.describe import INDEX, counts, describe, diagrams, index
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.cli import main

EACH = pytest.mark.parametrize("name", blueprint_names())


def shown(capsys, *args):
    with pytest.raises(SystemExit) as end:
        main(["blueprints", *args])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_the_index_of_built_in_blueprints_is_current():
    assert INDEX.read_text(encoding="utf-8") == index(), (
        "stale: python -m is_db_bootstrap.blueprint.describe"
    )


def test_the_list_names_stores_counts_and_a_sentence(capsys):
    lines = shown(capsys).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("novel_genesis"))
    assert lines[start].split(maxsplit=1)[1] == "postgres, neo4j, milvus, redis"
    assert "5 tables, 58 columns, 44 indexes" in lines[start + 1]
    assert lines[start + 2].strip() == load_blueprint("novel_genesis").summary


@EACH
def test_every_declared_object_is_in_the_tree(capsys, name):
    text = shown(capsys, "show", name)
    stores = describe(load_blueprint(name))["stores"]
    tables = stores.get("postgres", {}).get("tables", {})
    names = [
        part
        for table in tables.values()
        for kind, rows in table.items()
        if kind != "references"
        for part in rows
    ]
    names += [o["name"] for f in stores.get("neo4j", {}).get("files", ()) for o in f["objects"]]
    names += [
        f["name"] for c in stores.get("milvus", {}).get("collections", ()) for f in c["fields"]
    ]
    names += [k["pattern"] for k in stores.get("redis", {}).get("keys", ())]
    assert names
    assert [n for n in (*tables, *names) if n not in text] == []


@EACH
def test_the_document_is_json_and_counts_add_up(capsys, name):
    document = json.loads(shown(capsys, "show", name, "--format", "json"))
    [row] = [r for r in json.loads(shown(capsys, "-o", "json")) if r["name"] == name]
    assert row["counts"] == counts(document)
    assert row["stores"] == list(document["stores"])


@EACH
def test_diagrams_show_each_table_each_reference_and_each_relationship(capsys, name):
    text = shown(capsys, "show", name, "--format", "mermaid")
    assert text.count("```mermaid") * 2 == text.count("```")
    stores = describe(load_blueprint(name))["stores"]
    for table, parts in stores.get("postgres", {}).get("tables", {}).items():
        assert f"    {table} {{" in text
        for key in parts["references"]:
            assert re.search(
                rf'^    {key["table"]} [|o]{{2}}--o{{ {table} : "{", ".join(key["columns"])}"$',
                text,
                re.MULTILINE,
            )
    for relationship in stores.get("neo4j", {}).get("relationships", {}):
        assert f"-->|{relationship}|" in text


def test_a_nullable_reference_is_optional_in_the_diagram(capsys):
    text = shown(capsys, "show", "novel_genesis", "--format", "mermaid")
    assert 'domain_events |o--o{ event_outbox : "event_id"' in text
    assert 'conversation_sessions ||--o{ conversation_rounds : "session_id"' in text


def test_a_blueprint_without_anything_to_draw_has_no_diagram():
    key = KeyPattern("k", "k:{x}", "string", 60, "app", "x")
    assert diagrams(describe(Blueprint("only_keys", "for tests", keys=(key,)))) == []


def test_a_default_of_0_is_shown(capsys):
    assert "NOVEL_GENESIS_MILVUS_TTL_SECONDS=0 " in shown(capsys, "show", "novel_genesis")


def test_what_is_in_brackets_is_shown(capsys):
    text = shown(capsys, "show", "novel_genesis")
    assert "embeddings [embedding_model=unspecified; dim=768]" in text


@EACH
@pytest.mark.parametrize("form", ["tree", "json", "mermaid"])
def test_showing_a_blueprint_in_a_pipe_imports_no_library_for_terminals(name, form):
    call = (
        "import sys\nfrom is_db_bootstrap.cli import main\n"
        f"try: main(['blueprints', 'show', {name!r}, '--format', {form!r}])\n"
        "except SystemExit as end: sys.exit('rich' in sys.modules or end.code)"
    )
    subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, timeout=60)


def test_what_a_later_file_drops_is_not_declared(tmp_path):
    (tmp_path / "V001__one.cypher").write_text(
        "CREATE CONSTRAINT a IF NOT EXISTS FOR (n:A) REQUIRE n.id IS UNIQUE;\nCREATE INDEX b "
        "IF NOT EXISTS FOR (n:A) ON (n.x);"
    )
    (tmp_path / "V002__two.cypher").write_text("DROP INDEX b IF EXISTS;")
    document = describe(Blueprint("dropping", "for tests", cypher=tmp_path))
    assert [o["name"] for f in document["stores"]["neo4j"]["files"] for o in f["objects"]] == ["a"]
    assert document["stores"]["neo4j"]["labels"] == {"A": ["id"]}


def test_an_unknown_blueprint_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["blueprints", "show", "nothing"])
    assert end.value.code == 2
    assert "There is no blueprint 'nothing'" in capsys.readouterr().err
