"""Declarations are checked when a blueprint is loaded; each error names the field, or file and
line.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from is_db_bootstrap import app
from is_db_bootstrap.blueprint import (
    Blueprint,
    Channel,
    Collection,
    Ends,
    Field,
    Function,
    Index,
    KeyPattern,
    PoolProfile,
    SeedRow,
    Setting,
)
from is_db_bootstrap.blueprint.check import check, problems
from is_db_bootstrap.blueprint.field_types import wrong_types
from is_db_bootstrap.blueprint.load import blueprint_names, load_blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.settings import Settings, StoreUrl

ID = Field("id", "INT64", primary=True)
VECTOR = Field("v", "FLOAT_VECTOR", dim=4)
GOOD = Collection(
    "c_v1",
    (ID, VECTOR, Field("t", "VARCHAR", max_length=9)),
    (Index("v", "HNSW", "IP"), Index("t", "INVERTED")),
    alias="c",
)
SINGLE_BRACES = "but a placeholder is a name in single braces"
LETTERS = "but a placeholder is a name of letters, digits and _"
KEY = KeyPattern("k", "k:{id}", "string", 60, "app", "x")


def with_fields(*fields, **more):
    return Blueprint(
        "b",
        "for tests",
        collections=(replace(GOOD, fields=(ID, VECTOR, *fields), **{"indexes": (), **more}),),
    )


def with_index(index):
    return Blueprint("b", "for tests", collections=(replace(GOOD, indexes=(index,)),))


def with_key(**fields):
    return Blueprint("b", "for tests", keys=(replace(KEY, **fields),))


WRONG = {
    "collections[0] 'c_v1'.fields[2] 'x': the type 'WORDS' is none of": with_fields(
        Field("x", "WORDS")
    ),
    "fields[2] 'x': a vector needs dim": with_fields(Field("x", "FLOAT_VECTOR")),
    "fields[2] 'x': a VARCHAR needs max_length": with_fields(Field("x", "VARCHAR")),
    "fields[2] 'x': an ARRAY needs element_type and max_capacity": with_fields(Field("x", "ARRAY")),
    "fields[2] 'x': dim 12 of a binary vector is no multiple of 8": with_fields(
        Field("x", "BINARY_VECTOR", dim=12)
    ),
    "fields[2] 'x': dim -8 is not between 1 and 32768": with_fields(
        Field("x", "FLOAT_VECTOR", dim=-8)
    ),
    "fields[2] 'x': max_length 0 is not between 1 and 65535": with_fields(
        Field("x", "VARCHAR", max_length=0)
    ),
    "fields[2] 'x': max_capacity 5000 is not between 1 and 4096": with_fields(
        Field("x", "ARRAY", element_type="INT8", max_capacity=5000)
    ),
    "collections[0] 'c_v1': the alias 'c d' has more than letters, digits and _": with_fields(
        alias="c d"
    ),
    "HNSW on FLOAT_VECTOR 'v' has no parameter 'ef' (it has M, efConstruction)": with_index(
        Index("v", "HNSW", "IP", {"ef": 64})
    ),
    "FLAT on FLOAT_VECTOR 'v' has no parameter 'M' (it has none)": with_index(
        Index("v", "FLAT", "IP", {"M": 8})
    ),
    "fields[2] 'x': a sparse vector has no dim": with_fields(
        Field("x", "SPARSE_FLOAT_VECTOR", dim=12)
    ),
    "the field 'v' is there twice": with_fields(VECTOR),
    "exactly one field is the primary key": with_fields(Field("x", "INT64", primary=True)),
    "a primary key is INT64 or VARCHAR, not BOOL": with_fields(Field("x", "BOOL", primary=True)),
    "partition_names and a partition key exclude each other": with_fields(
        Field("x", "INT64", partition_key=True), partition_names=("p",)
    ),
    "partitions counts those behind a partition key": with_fields(partitions=4),
    "ttl_seconds and partitions are at least 0": with_fields(ttl_seconds=-1),
    "functions[0] 'f': the type 'MAGIC' is none of BM25": with_fields(
        functions=(Function("f", "MAGIC", ("v",), ("v",)),)
    ),
    "functions[0] 'f': there is no field 'y'": with_fields(
        functions=(Function("f", "BM25", ("y",), ("v",)),)
    ),
    "collections[0] 'c_v1'.indexes[0]: there is no field 'x'": with_index(Index("x", "HNSW", "IP")),
    "the metric 'DISTANCE' on FLOAT_VECTOR 'v' is none of COSINE, IP, L2": with_index(
        Index("v", "HNSW", "DISTANCE")
    ),
    "the metric 'HAMMING' on FLOAT_VECTOR 'v'": with_index(Index("v", "HNSW", "HAMMING")),
    "the type 'BITMAP' on FLOAT_VECTOR 'v' is none of": with_index(Index("v", "BITMAP", "IP")),
    "'t' is no vector and has no metric": with_index(Index("t", "INVERTED", "IP")),
    "collections: the name 'c_v1' is there twice": Blueprint(
        "b", "", collections=(GOOD, replace(GOOD, alias="d"))
    ),
    "collections: the name 'c' is there twice": Blueprint(
        "b", "", collections=(GOOD, replace(GOOD, name="d_v1"))
    ),
    "keys[0] 'k': the lifetime (60, 1) is no range of seconds": with_key(ttl=(60, 1)),
    "keys[0] 'k': the lifetime -1 is no range of seconds": with_key(ttl=-1),
    "keys[0] 'k': a persistent key needs a reason": with_key(ttl=None),
    "keys[0] 'k': the pattern 'k:{id' has a brace without its other half": with_key(
        pattern="k:{id"
    ),
    **{
        f"the pattern {wrong!r} has {part}, {why}: {right!r}": with_key(pattern=wrong)
        for wrong, part, why, right in (
            ("k:*", "*", "which is no wildcard here", "k:{id}"),
            ("k:{id}:*", "*", "which is no wildcard here", "k:{id}:{id_2}"),
            ("k:?:{id}", "?", "which is no wildcard here", "k:{id_2}:{id}"),
            ("k:[ab]:{id}", "[ab]", "which is no wildcard here", "k:{id_2}:{id}"),
            ("k:<id>", "<id>", SINGLE_BRACES, "k:{id}"),
            ("k:<int:cart_id>", "<int:cart_id>", SINGLE_BRACES, "k:{cart_id}"),
            ("k:%s", "%s", SINGLE_BRACES, "k:{id}"),
            ("k:%(shop)s", "%(shop)s", SINGLE_BRACES, "k:{shop}"),
            ("k:${id}", "${id}", SINGLE_BRACES, "k:{id}"),
            ("{{tenant}}:k:{id}", "{{tenant}}", SINGLE_BRACES, "{tenant}:k:{id}"),
            ("k:{tenant-id}", "{tenant-id}", LETTERS, "k:{tenant_id}"),
            ("k:{}", "{}", LETTERS, "k:{id}"),
            ("k:{a,b}", "{a,b}", LETTERS, "k:{a_b}"),
        )
    },
    "has a blank at its end or beside a colon: 'k:{id}'": with_key(pattern="k: {id}"),
    "do not stand together: global flags": with_key(placeholders={"id": "(?i)[a-f]+"}),
    "keys[0] 'k': the pattern 'k:{id}:{id}' names a placeholder twice": with_key(
        pattern="k:{id}:{id}"
    ),
    "keys[0] 'k': the placeholder 'other' is not in the pattern": with_key(
        placeholders={"other": ".+"}
    ),
    "keys[0] 'k': the expression '[' of 'id'": with_key(placeholders={"id": "["}),
    "keys[0] 'k': type='bag' is not one of 'string', 'list'": with_key(type="bag"),
    "keys: the name 'k' is there twice": Blueprint(
        "b", "", keys=(KEY, replace(KEY, pattern="l:{id}"))
    ),
    "keys: the pattern 'k:{}' is there twice": Blueprint(
        "b", "", keys=(KEY, replace(KEY, name="l", pattern="k:{x}"))
    ),
    "channels: the name 'c' is there twice": Blueprint(
        "b", "", channels=(Channel("c", "c:{x}", "x"), Channel("c", "d:{x}", "x"))
    ),
    "settings: the name 'S' is there twice": Blueprint(
        "b", "", settings=(Setting("S", 1, "x"), Setting("S", 2, "x"))
    ),
    "seed_rows: there are no migrations": Blueprint("b", "", seed_rows=(SeedRow("t", {"id": 1}),)),
    "name 'a b': letters, digits and _ only": Blueprint("a b", ""),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_declaration_is_named(words):
    with pytest.raises(ConfigurationError) as refusal:
        check(WRONG[words])
    assert words in str(refusal.value)


WRONG_TYPES = {
    "keys=KeyPattern(…) is not tuple[KeyPattern, ...] "
    "(one KeyPattern alone is written with a comma behind it: (…,))": Blueprint("b", "", keys=KEY),
    "keys=(3,) is not tuple[KeyPattern, ...] (item 0)": Blueprint("b", "", keys=(3,)),
    "keys=None is not tuple[KeyPattern, ...]": Blueprint("b", "", keys=None),
    "keys[0] 'k': ttl='3600' is not int | tuple[int, int] | None": with_key(ttl="3600"),
    "keys[0] 'k': ttl=datetime.timedelta(seconds=60) is not int": with_key(
        ttl=timedelta(seconds=60)
    ),
    "keys[0] 'k': ttl=(1, '60') is not int": with_key(ttl=(1, "60")),
    "keys[0] 'k': ttl=True is not int": with_key(ttl=True),
    "keys[0] 'k': pattern=['k:{id}'] is not str": with_key(pattern=["k:{id}"]),
    "collections[0] 'c_v1'.fields[2] 'x': dim='768' is not int | None": with_fields(
        Field("x", "FLOAT_VECTOR", dim="768")
    ),
    "collections[0] 'c_v1': consistency='Weak' is not one of 'Strong', 'Bounded'": with_fields(
        consistency="Weak"
    ),
    "collections[0] 'c_v1': load='no' is not bool": with_fields(load="no"),
    "relationships['BOUGHT']: from_labels='Customer' is not Set[str]": Blueprint(
        "b", "", relationships={"BOUGHT": Ends("Customer", "Product")}
    ),
    "seed_rows[0]: key=('id', 1) is not Mapping[str, Any]": Blueprint(
        "b", "", seed_rows=(SeedRow("t", ("id", 1)),)
    ),
    "pool=(5, 15) is not PoolProfile": Blueprint("b", "", pool=(5, 15)),
    "migrations=3 is not Path | None": Blueprint("b", "", migrations=3),
    "name=3 is not str": Blueprint(3, ""),
}


@pytest.mark.parametrize("words", WRONG_TYPES)
def test_a_field_of_another_type_is_named_with_what_was_given(words):
    with pytest.raises(ConfigurationError) as refusal:
        check(WRONG_TYPES[words])
    assert words in str(refusal.value)


def test_every_field_of_another_type_is_told_at_once():
    wrong = replace(
        with_fields(Field("x", "VARCHAR", max_length="9")), keys=with_key(ttl="60").keys
    )
    assert len(list(wrong_types(wrong))) == 2


def test_an_integer_is_a_float_a_list_is_a_tuple_and_a_set_is_a_set():
    right = replace(
        with_fields(properties={"mmap.enabled": True}),
        keys=[KEY],
        cypher="cypher",
        pool=PoolProfile(1, 2, acquire_timeout=3),
        relationships={"BOUGHT": Ends({"Customer"}, frozenset({"Product"}))},
    )
    assert list(wrong_types(right)) == []


class Whole:
    """An integer of another class, as those of NumPy are."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


def test_an_integer_of_another_class_becomes_a_plain_one():
    declared = Blueprint(
        "b",
        "",
        collections=(replace(GOOD, fields=(ID, replace(VECTOR, dim=Whole(4))), shards=Whole(2)),),
        keys=(replace(KEY, ttl=(Whole(1), 60)),),
        pool=PoolProfile(Whole(1), Whole(2)),
    )
    assert list(wrong_types(declared)) == []
    collection, key = declared.collections[0], declared.keys[0]
    assert repr([collection.fields[1].dim, collection.shards, key.ttl]) == "[4, 2, (1, 60)]"
    assert list(wrong_types(with_key(ttl=Whole("60")))) != []


def test_a_secret_in_a_field_of_another_type_is_not_told():
    address = "redis://user:hidden@cache.example/0"
    wrong = replace(KEY, ttl=address, pattern=[address], placeholders={1: address})
    words = " ".join(wrong_types(Blueprint("b", "", keys=(wrong,))))
    assert words.count("redis:") == 3
    assert "hidden" not in words


def test_what_configure_returns_is_checked_before_any_store_is_asked():
    wrong = replace(with_key(ttl=60), configure=lambda _blueprint, _: with_key(ttl="60"))
    settings = Settings(stores={"redis": StoreUrl.parse("redis", "redis://127.0.0.1:9/0")})
    with pytest.raises(ConfigurationError, match="ttl='60' is not int"):
        app.orchestrator(wrong, settings)


def test_all_problems_are_told_at_once():
    wrong = Blueprint(
        "b",
        "",
        collections=(replace(GOOD, indexes=(Index("x", "HNSW", "IP"),)),),
        keys=(replace(KEY, ttl=0),),
    )
    assert len(list(problems(wrong))) == 2


@pytest.mark.parametrize("name", blueprint_names())
def test_built_in_blueprints_have_nothing_wrong(name):
    assert list(problems(load_blueprint(name))) == []


BLUEPRINT = """
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
BLUEPRINT = Blueprint("mine", "for tests", keys=(KeyPattern("k", "k:{{id}}", "string", {ttl}, "app", "x"),))
"""
REVISION = (
    '"""r."""\n\nrevision = "{id}"\ndown_revision = {down!r}\n\ndef upgrade(): ...\n\ndef '
    "downgrade(): ...\n"
)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "blueprint.py").write_text(BLUEPRINT.format(ttl=60))
    (tmp_path / "migrations").mkdir()
    (tmp_path / "cypher").mkdir()
    (tmp_path / "migrations" / "a.py").write_text(REVISION.format(id="a", down=None))
    (tmp_path / "cypher" / "V001__a.cypher").write_text(
        "CREATE INDEX a IF NOT EXISTS FOR (n:A) ON (n.x);"
    )
    return tmp_path


def refusal(folder):
    with pytest.raises(ConfigurationError) as found:
        load_blueprint(folder)
    return str(found.value)


def test_a_folder_is_loaded_when_nothing_is_wrong(folder):
    assert load_blueprint(folder).stores == ("postgres", "neo4j", "redis")


def test_two_heads_are_named_with_file_and_line(folder):
    for name in ("b", "c"):
        (folder / "migrations" / f"{name}.py").write_text(REVISION.format(id=name, down="a"))
    words = refusal(folder)
    assert "several heads: b (b.py, line 3), c (c.py, line 3)" in words
    assert "down_revision = ('b', 'c')" in words


def test_a_repeated_revision_is_named_with_both_places(folder):
    (folder / "migrations" / "b.py").write_text(REVISION.format(id="a", down=None))
    assert "a.py, line 3 and b.py, line 3 both declare revision a" in refusal(folder)


def test_a_revision_that_is_no_python_is_named_with_its_line(folder):
    (folder / "migrations" / "b.py").write_text('revision = "b"\ndown_revision = (\n')
    assert "b.py, line 2" in refusal(folder)


@pytest.mark.parametrize("name", ["one.cypher", "V1_a.cypher", "X001__a.cypher"])
def test_a_cypher_file_of_a_bad_name_is_named(folder, name):
    (folder / "cypher" / name).write_text("RETURN 1;")
    assert f"the file name {name} is not understood" in refusal(folder)


def test_a_repeated_number_of_cypher_files_is_named(folder):
    (folder / "cypher" / "V1__b.cypher").write_text("RETURN 1;")
    assert "V001__a.cypher and V1__b.cypher have the same version" in refusal(folder)


def test_the_types_of_a_folders_declarations_are_checked_first(folder):
    (folder / "blueprint.py").write_text(BLUEPRINT.format(ttl="'3600'"))
    assert "keys[0] 'k': ttl='3600' is not int" in refusal(folder)


def test_a_declaration_of_a_folder_is_checked(folder):
    (folder / "blueprint.py").write_text(BLUEPRINT.format(ttl=(9, 1)))
    assert "keys[0] 'k': the lifetime (9, 1)" in refusal(folder)


@pytest.mark.parametrize(
    ("pattern", "expression", "key"),
    [
        ("k:{star}:{id}", {"star": r"\*"}, "k:*:7"),
        ("{tenant}:k:{id}", {}, "{acme}:k:7"),
        ("k:{price}", {"price": r"\d+\$"}, "k:5$"),
        ("k:{id}", {"id": "^[a-f]+$"}, "k:abc"),
    ],
)
def test_a_placeholder_can_stand_for_every_text(pattern, expression, key):
    declared = replace(KEY, pattern=pattern, placeholders=expression)
    check(Blueprint("b", "", keys=(declared,)))
    assert declared.matches(key)
