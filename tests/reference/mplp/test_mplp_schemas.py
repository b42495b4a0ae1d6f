"""The JSON Schemas of mplp, and that tables, revisions and documents agree with them. Numbers are
those of the blueprint's checks.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import zipfile

import pytest
import sqlalchemy as sa
from jsonschema import Draft202012Validator
from sqlalchemy import select
from test_mplp import least, migrated_engine, place, uid  # noqa: F401 - fixtures

from is_db_bootstrap import files
from is_db_bootstrap.blueprints.mplp.tables import MODULES, compute, load_schema, metadata
from portable_catalogue import declared, live
from wheel import build

SCHEMAS = {module: load_schema(module) for module in MODULES}
DEFINITIONS = {
    d["x-table"]: (module, name, d)
    for module, s in SCHEMAS.items()
    for name, d in s["$defs"].items()
    if "x-table" in d
}


def resolved(module, found):
    if "$ref" not in found:
        return found
    return resolved(module, SCHEMAS[module]["$defs"][found["$ref"].removeprefix("#/$defs/")]) | {
        k: v for k, v in found.items() if k != "$ref"
    }


def references(part):
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


# --- 12: the files


@pytest.mark.parametrize("module", MODULES)
def test_mplp_12_a_schema_is_valid_and_self_contained(module):
    schema = SCHEMAS[module]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("draft/2020-12/schema")
    for target in references(schema):
        assert target.startswith("#/$defs/")
        assert target.removeprefix("#/$defs/") in schema["$defs"]


@pytest.mark.parametrize("table", DEFINITIONS)
def test_mplp_12_defaults_fit_and_nothing_is_both_required_and_defaulted(table):
    module, _, definition = DEFINITIONS[table]
    for name, found in definition["properties"].items():
        part = resolved(module, found)
        if "default" in part:
            assert Draft202012Validator({**part, "$defs": SCHEMAS[module]["$defs"]}).is_valid(
                part["default"]
            )
            assert name not in definition["required"]
        if "enum" in part:
            assert max(map(len, part["enum"])) <= 32
        elif part.get("type") == "string" and part.get("format") != "date-time":
            assert "maxLength" in part, f"{table}.{name}"
        elif part.get("type") == "integer":
            assert {"minimum", "maximum"} <= set(part), f"{table}.{name}"


def test_mplp_12_a_module_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="context, plan"):
        load_schema("nothing")


# --- 13: drift


def test_mplp_13_the_computed_tables_equal_the_migrated_database(migrated_engine):  # noqa: F811
    with migrated_engine.connect() as connection:
        assert live(connection) == declared(compute(SCHEMAS), migrated_engine.dialect.name)


@pytest.mark.postgres
def test_mplp_13_alembic_sees_no_difference(migrated):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    engine = sa.create_engine(migrated("mplp").replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda n, k, _: k != "table" or n != "alembic_version",
        }
        assert (
            compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        )
    engine.dispose()


def _length(s):
    s["context"]["$defs"]["contexts"]["properties"]["name"]["maxLength"] = 254


def _enum_value(s):
    s["plan"]["$defs"]["plans"]["properties"]["status"]["enum"].append("new")


def _default(s):
    s["context"]["$defs"]["contexts"]["properties"]["total_operations"]["default"] = 1


def _required(s):
    s["context"]["$defs"]["contexts"]["required"].remove("name")


def _index(s):
    s["context"]["$defs"]["contexts"]["x-indexes"]["IDX_contexts_parent"] = ["user_id"]


def _reference(s):
    s["context"]["$defs"]["contexts"]["properties"]["parent_context_id"]["x-references"][
        "on_delete"
    ] = "CASCADE"


def _unique(s):
    del s["context"]["$defs"]["contexts"]["properties"]["context_id"]["x-unique"]


@pytest.mark.parametrize(
    "change", [_length, _enum_value, _default, _required, _index, _reference, _unique]
)
def test_mplp_13_a_changed_schema_is_drift(migrated_engine, change):  # noqa: F811
    changed = copy.deepcopy(SCHEMAS)
    change(changed)
    with migrated_engine.connect() as connection:
        assert live(connection) != declared(compute(changed), migrated_engine.dialect.name)


# --- 14: documents


def sample(module, found, name=""):
    """A value that the property accepts."""
    part = resolved(module, found)
    if "const" in part:
        return part["const"]
    if "enum" in part:
        return part["enum"][0]
    kind = part.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        inner = part.get("properties", {})
        return {n: sample(module, inner[n], n) for n in part.get("required", []) if n in inner}
    if kind == "array":
        return [
            sample(module, part.get("items", {"type": "string"}))
            for _ in range(part.get("minItems", 0))
        ]
    return _scalar(part, kind, name)


def _scalar(part, kind, name):
    if kind == "boolean":
        return True
    if kind in {"integer", "number"}:
        return max(part.get("minimum", 1), 1 if part.get("maximum", 1) >= 1 else 0)
    if part.get("format") == "date-time":
        return "2026-01-02T03:04:05Z"
    for candidate in (
        uid(),
        "1.2.3",
        "a@example.org",
        "https://example.org/x",
        "/x",
        "A",
        "a",
        "1",
        "*",
        "text",
        "a" * 40,
        "a" * 64,
        "0" * 64,
        name,
    ):
        if Draft202012Validator({k: v for k, v in part.items() if not k.startswith("x-")}).is_valid(
            candidate
        ):
            return candidate
    raise AssertionError(f"no sample for {name}: {part}")


def row_of(module, definition, names):
    return {n: sample(module, definition["properties"][n], n) for n in names}


def validator(module, name):
    return Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": SCHEMAS[module]["$defs"]})


@pytest.mark.parametrize("table", DEFINITIONS)
def test_mplp_14_a_row_needs_its_required_properties_and_takes_no_others(table):
    module, name, definition = DEFINITIONS[table]
    check = validator(module, name)
    row = row_of(module, definition, definition["required"])
    check.validate(row)
    for needed in definition["required"]:
        assert not check.is_valid({k: v for k, v in row.items() if k != needed})
    assert not check.is_valid(row | {"unknown_property": 1})
    for column, found in definition["properties"].items():
        if "enum" in resolved(module, found):
            assert not check.is_valid(row | {column: "no such value"})


@pytest.mark.parametrize("module", MODULES)
def test_mplp_14_a_document_holds_rows_by_table(module):
    check = Draft202012Validator(SCHEMAS[module])
    document = {"protocol_version": "1.0.1", "timestamp": "2026-01-02T03:04:05Z"}
    check.validate(document)
    for table, (owner, _, definition) in DEFINITIONS.items():
        if owner == module:
            document[table.removeprefix("mplp_")] = [
                row_of(module, definition, definition["required"])
            ]
    check.validate(document)
    assert not check.is_valid(document | {"protocol_version": "1.0.0"})
    assert not check.is_valid(document | {"other": []})


@pytest.mark.parametrize("table", DEFINITIONS)
def test_mplp_14_an_accepted_row_of_all_properties_is_stored_and_read_back(migrated_engine, table):  # noqa: F811
    module, name, definition = DEFINITIONS[table]
    given = [
        n
        for n, found in definition["properties"].items()
        if not resolved(module, found).get("readOnly")
        and n not in {"id", "created_at", "updated_at"}
    ]
    row = row_of(module, definition, given)
    validator(module, name).validate(row)
    target = metadata.tables[table]
    with migrated_engine.connect() as connection:
        for key in target.foreign_key_constraints:
            parent = least(connection, key.referred_table)
            row[key.column_keys[0]] = parent[key.elements[0].column.name]
        stored = {n: stored_value(target.c[n], v) for n, v in row.items()}
        inserted = connection.execute(sa.insert(target).values(stored)).inserted_primary_key[0]
        found = connection.execute(select(target).where(target.c.id == inserted)).mappings().one()
        assert {n: found[n] for n in stored} == stored
        connection.rollback()


def stored_value(column, value):
    return (
        dt.datetime.fromisoformat(value).replace(tzinfo=None)
        if isinstance(column.type, sa.DateTime)
        else value
    )


# --- 15


def test_mplp_15_the_schema_files_are_in_the_wheel(tmp_path):
    wheel, _ = build(tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        for module in MODULES:
            text = archive.read(f"is_db_bootstrap/blueprints/mplp/schemas/{module}.schema.json")
            assert json.loads(text) == SCHEMAS[module]
    assert files.migrations("mplp").is_dir()
