from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.stores.neo4j.cypher_file import CypherFile, Precondition, load
from is_db_bootstrap.stores.neo4j.cypher_schema import Drop, SchemaObject, recognise
from is_db_bootstrap.stores.neo4j.cypher_text import checksum, flyway_checksum, split, their_parts


def declared(text: str) -> SchemaObject | Drop | None:
    (statement,) = split(text)
    return recognise(statement.tokens)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "0"),
        ("CREATE (:A)", "1184523404"),
        ("CREATE (:A);", "1184523404"),
        ("CREATE (:A);\n", "1184523404"),
        ("// nothing here\n", "1761896131"),
        ("CREATE (:A {text: 'Grüße ✓'});\n", "1429008340"),
        ("CREATE (:A);\r\nCREATE\r\n (:B);\r\n", "860180678"),
    ],
)
def test_checksums_are_those_that_neo4j_migrations_stores(text, expected):
    assert checksum(text) == expected


def test_a_flyway_compatible_checksum_ignores_line_ends_and_is_signed():
    assert flyway_checksum("CREATE (:A);\nRETURN 1") == flyway_checksum("CREATE (:A);\r\nRETURN 1")
    assert any(int(flyway_checksum(f"RETURN {n}")) < 0 for n in range(8))


def test_use_is_a_part_of_its_own_for_the_checksum():
    assert their_parts(":use other;\nCREATE (:A);\n") == [":use other", "CREATE (:A)"]
    assert their_parts(":use other\nCREATE (:A);\n") == [":use other", "CREATE (:A)"]


def test_a_no_break_space_is_not_trimmed():
    assert their_parts("\u00a0CREATE (:A);\n") == ["\u00a0CREATE (:A)"]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("RETURN ';'; RETURN 2", ["RETURN ';'", "RETURN 2"]),
        ('RETURN "a;\\";"; RETURN 2;', ['RETURN "a;\\";"', "RETURN 2"]),
        ("RETURN 1 AS `a;``b`;\n;;\n", ["RETURN 1 AS `a;``b`"]),
        ("// one; two\nRETURN 1 /* ; \n ; */ + 1;", ["RETURN 1 + 1"]),
        ("RETURN 'http://x'; // the end", ["RETURN 'http : x'".replace(" : ", "://")]),
        ("/* only a comment; */ // and another;", []),
        ("\ufeffRETURN 1;", ["RETURN 1"]),
        ("RETURN 1;   \r\n  RETURN 2", ["RETURN 1", "RETURN 2"]),
    ],
)
def test_statements_end_at_semicolons_outside_of_strings_names_and_comments(text, tokens):
    assert [s.tokens for s in split(text)] == tokens


def test_a_statement_knows_the_line_of_its_first_token():
    assert [s.line for s in split("// note\n\nRETURN 1;\n\n/* more */\nRETURN 2;")] == [3, 6]


@pytest.mark.parametrize("text", ["RETURN 'a", 'RETURN "a', "RETURN `a", "RETURN 1 /* a"])
def test_what_has_no_end_is_refused_with_its_line(text):
    with pytest.raises(
        ConfigurationError, match=r"V1__a\.cypher: line 2: what begins with .* has no end"
    ):
        CypherFile.parse("V1__a.cypher", f"RETURN 0;\n{text}")


@pytest.mark.parametrize(
    ("text", "definition"),
    [
        (
            "CREATE CONSTRAINT a IF NOT EXISTS FOR (n:X) REQUIRE n.p IS UNIQUE",
            "UNIQUENESS constraint on (:X) (p)",
        ),
        (
            "create constraint a for (n:X) require (n.p, n.q) is node unique",
            "UNIQUENESS constraint on (:X) (p, q)",
        ),
        (
            "CREATE CONSTRAINT a FOR ()-[r:R]-() REQUIRE r.p IS RELATIONSHIP UNIQUE",
            "UNIQUENESS constraint on ()-[:R]-() (p)",
        ),
        (
            "CREATE CONSTRAINT a FOR ()<-[r:R]-() REQUIRE r.p IS NOT NULL",
            "EXISTENCE constraint on ()-[:R]-() (p)",
        ),
        (
            "CREATE CONSTRAINT a FOR (n:X) REQUIRE (n.p, n.q) IS NODE KEY",
            "KEY constraint on (:X) (p, q)",
        ),
        (
            "CREATE CONSTRAINT a FOR (n:X) REQUIRE n.p IS :: LIST<STRING NOT NULL>",
            "TYPE LIST<STRING NOT NULL> constraint on (:X) (p)",
        ),
        ("CREATE INDEX a FOR (n:`My Label`) ON (n.`my p`)", "RANGE index on (:My Label) (my p)"),
        ("CREATE TEXT INDEX a FOR (n:X) ON (n.p)", "TEXT index on (:X) (p)"),
        (
            "CREATE FULLTEXT INDEX a FOR (n:X|B) ON EACH [n.p, n.q]",
            "FULLTEXT index on (:B|X) (p, q)",
        ),
        ("CREATE INDEX a FOR ()-[r:R]-() ON (r.p)", "RANGE index on ()-[:R]-() (p)"),
        ("CREATE LOOKUP INDEX a FOR (n) ON EACH labels(n)", "LOOKUP index on (:) ()"),
    ],
)
def test_schema_statements_are_recognised(text, definition):
    found = declared(text)
    assert isinstance(found, SchemaObject)
    assert (found.name, found.definition) == ("a", definition)


def test_declared_options_of_a_vector_index_are_compared():
    found = declared(
        "CREATE VECTOR INDEX v FOR (n:X) ON (n.e) OPTIONS {indexConfig: {`vector.dimensions`: "
        "8, `vector.similarity_function`: 'cosine'}}"
    )
    assert isinstance(found, SchemaObject)
    assert found.options == (("vector.dimensions", "8"), ("vector.similarity_function", "COSINE"))


def test_drops_are_recognised_and_other_statements_are_not():
    assert declared("DROP INDEX `a b` IF EXISTS") == Drop("index", "a b", guarded=True)
    assert declared("MERGE (:X {text: 'CREATE INDEX a FOR (n:X) ON (n.p)'})") is None


def test_unnamed_objects_are_recognised_and_warned_about():
    file = CypherFile.parse("V1__a.cypher", "CREATE INDEX IF NOT EXISTS FOR (n:X) ON (n.p);")
    assert "has no name" in " ".join(file.lint())


@pytest.mark.parametrize(
    ("comment", "version", "edition", "holds"),
    [
        ("assume that edition is enterprise", "5.26.30", "community", False),
        ("assert that edition is ENTERPRISE", "5.26.30", "enterprise", True),
        ("assume that version is 5.26", "5.26.30", "community", True),
        ("assume that version is 5.2, 4.4 or 5.3", "5.26.30", "community", False),
        ("assume that version is ge 5.9", "5.26.30", "community", True),
        ("assert that version is lt 5.9", "2026.08.1", "community", False),
    ],
)
def test_preconditions(comment, version, edition, holds):
    found = Precondition.parse(comment)
    assert found is not None
    assert found.holds(version, edition) is holds


def test_a_precondition_that_is_not_understood_is_refused():
    with pytest.raises(ConfigurationError, match="not understood"):
        CypherFile.parse("V1__a.cypher", "// assume that the moon is full\nRETURN 1;")


@pytest.mark.parametrize(
    "text",
    [
        "// assume that edition is enterprise\nRETURN 1;",
        "/* intro */\n// a note\n// assume that edition is enterprise\nRETURN 1;",
        "RETURN 1;\n// a note\n// assume that edition is enterprise\nRETURN 2;",
        "RETURN 1;\n// assume that edition is enterprise\n",
    ],
)
def test_a_precondition_may_stand_before_any_statement(text):
    file = CypherFile.parse("V1__a.cypher", text)
    assert [p.edition for p in file.preconditions] == ["enterprise"]


@pytest.mark.parametrize(
    "comment",
    [
        "assume nothing here",
        "assumed that edition is enterprise",
        "assert",
        "we assume that edition is enterprise",
    ],
)
def test_a_comment_that_only_begins_like_a_precondition_is_a_comment(comment):
    assert CypherFile.parse("V1__a.cypher", f"// {comment}\nRETURN 1;").preconditions == ()


def test_a_comment_within_a_statement_is_no_precondition():
    text = "RETURN 1\n// assume that edition is enterprise\n+ 1;"
    assert CypherFile.parse("V1__a.cypher", text).preconditions == ()


@pytest.mark.parametrize("where", ["", "in target ", "in schema "])
def test_a_question_to_the_database_is_a_precondition(where):
    text = f"// assume {where}q' MATCH (n) RETURN count(n) = 0\nRETURN 1;"
    (found,) = CypherFile.parse("V1__a.cypher", text).preconditions
    assert (found.query, found.is_assumption) == ("MATCH (n) RETURN count(n) = 0", True)


def test_a_precondition_that_neo4j_migrations_does_not_see_is_warned_about():
    text = "/* licence */ // assert that edition is community\nRETURN 1;"
    warnings = list(CypherFile.parse("V1__a.cypher", text).lint())
    assert any("does not see the precondition" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("text", "is_transactional"),
    [
        ("CREATE INDEX a FOR (n:X) ON (n.p);\nCREATE (:X);\n", False),
        ("CREATE (:X);\nCALL (){ CREATE (:Y) } IN TRANSACTIONS OF 5 ROWS;\n", False),
        ("CYPHER 25 CREATE INDEX a FOR (n:X) ON (n.p);\n", False),
        ("cypher 5 runtime=slotted CREATE INDEX a FOR (n:X) ON (n.p);\n", False),
        ("CYPHER 25 CREATE (:X);\nCYPHER 5 CREATE (:Y);\n", True),
    ],
)
def test_statements_that_commit_alone_are_known_whatever_stands_beside_them(text, is_transactional):
    assert CypherFile.parse("V1__a.cypher", text).transactional is is_transactional


def test_what_stands_before_a_statement_for_the_planner_is_sent_with_it():
    (statement,) = split("CYPHER 25 CREATE INDEX a FOR (n:X) ON (n.p);")
    assert statement.text.startswith("CYPHER 25 CREATE")
    assert recognise(statement.tokens) == declared("CREATE INDEX a FOR (n:X) ON (n.p)")


def test_schema_and_data_in_one_file_are_warned_about():
    """neo4j-migrations sends them in one transaction unless it is told otherwise."""
    text = "CREATE INDEX a FOR (n:X) ON (n.p);\nCREATE (:X);\n"
    warnings = list(CypherFile.parse("V1__a.cypher", text).lint())
    assert any("PER_STATEMENT" in warning for warning in warnings)


def test_reading_time_grows_with_the_number_of_statements():
    def seconds(count: int) -> float:
        text = "".join(f"// {i}\nMERGE (n:X {{id: {i}}}) SET n.p = 'x';\n" for i in range(count))
        began = time.process_time()
        CypherFile.parse("V1__a.cypher", text)
        return time.process_time() - began

    few = min(seconds(1_000) for _ in range(3))
    assert min(seconds(10_000) for _ in range(2)) < 30 * few


@pytest.mark.parametrize("command", ["use other", "auto", "begin", "param x => 1"])
def test_commands_of_shells_are_refused(command):
    with pytest.raises(ConfigurationError, match=f"`:{command.split(' ')[0]}` is refused"):
        CypherFile.parse("V1__a.cypher", f":{command}\nCREATE (:X);")


def two_of_one_version(folder, one: str, other: str) -> None:
    (folder / "V1__one.cypher").write_text(f"{one}\nRETURN 1;")
    (folder / "V1__other.cypher").write_text(f"{other}\nRETURN 2;")


def test_two_files_of_one_version_may_exclude_each_other(tmp_path):
    two_of_one_version(tmp_path, "// assume that edition is enterprise", "")
    assert len(load(tmp_path)) == 2


def test_two_files_of_one_version_without_assumptions_are_refused(tmp_path):
    two_of_one_version(tmp_path, "// assert that edition is enterprise", "")
    with pytest.raises(ConfigurationError, match="have the same version 1"):
        load(tmp_path)


def test_files_of_one_name_in_two_folders_stand_in_for_each_other(tmp_path):
    """As neo4j-migrations has it: the text that was recorded may be that of the other one."""
    for folder, version in (("old", "lt 5"), ("new", "ge 5")):
        (tmp_path / folder).mkdir()
        text = f"// assume that version is {version}\nRETURN '{folder}';"
        (tmp_path / folder / "V1__a.cypher").write_text(text)
    new, old = load(tmp_path)
    assert old.checksum in new.checksums
    assert new.checksum in old.checksums


def test_a_precondition_may_be_added_to_a_file_that_was_applied():
    text = "// a note\nRETURN 1;\n"
    later = CypherFile.parse("V1__a.cypher", f"// assume that edition is community\n{text}")
    assert checksum(text) in later.checksums


def test_line_ends_do_not_count_with_autocrlf():
    lines = "RETURN 1\n+ 1;\n"
    crlf = lines.replace("\n", "\r\n")
    plain = CypherFile.parse("V1__a.cypher", lines)
    assert checksum(crlf) not in plain.checksums
    assert plain.why_other(checksum(crlf)) == "the line ends"
    for text in (lines, crlf):
        file = CypherFile.parse("V1__a.cypher", text, autocrlf=True)
        assert file.checksum == checksum(lines)
        assert checksum(crlf) in file.checksums


def test_a_misspelt_word_is_named_with_its_line():
    with pytest.raises(ConfigurationError, match=r"V2__b\.cypher, line 2: `CREAT INDEX b FOR"):
        CypherFile.parse(
            "V2__b.cypher",
            "CREATE INDEX a FOR (n:X) ON (n.p);\nCREAT INDEX b FOR (n:X) ON (n.q);\n",
        )


def test_use_is_refused():
    with pytest.raises(ConfigurationError, match=":use"):
        CypherFile.parse("V1__a.cypher", ":use other;\nCREATE (:X);")


@pytest.mark.parametrize(
    "text", ["RETURN 1; RETURN 2;\n", "RETURN 1;  \nRETURN 2;\n", "RETURN 'a;\nb';\n"]
)
def test_what_neo4j_migrations_reads_differently_is_warned_about(text):
    assert "splits V1__a.cypher differently" in " ".join(
        CypherFile.parse("V1__a.cypher", text).lint()
    )


@pytest.mark.parametrize(
    "text", ["RETURN 1;\nRETURN 2;\n", "// c;\nRETURN 1", "RETURN 1;\n// the end\n", ""]
)
def test_what_both_read_alike_is_not(text):
    assert list(CypherFile.parse("V1__a.cypher", text).lint()) == []


def test_files_are_ordered_by_number_and_versions_kept_as_written(tmp_path):
    for name in ("V10__c.cypher", "V009_1__b_b.cypher", "R002__a.cypher"):
        (tmp_path / name).write_text("RETURN 1;")
    assert [(f.version, f.description, f.repeatable) for f in load(tmp_path)] == [
        ("002", "a", True),
        ("009.1", "b b", False),
        ("10", "c", False),
    ]


def test_one_number_twice_is_refused(tmp_path):
    for name in ("V001__a.cypher", "R001__b.cypher"):
        (tmp_path / name).write_text("RETURN 1;")
    with pytest.raises(ConfigurationError, match="same version 001"):
        load(tmp_path)


def test_a_name_that_is_not_understood_is_refused(tmp_path):
    (tmp_path / "001_a.cypher").write_text("RETURN 1;")
    with pytest.raises(ConfigurationError, match=r"001_a\.cypher"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("2026/V002_b.cypher", "the file name 2026/V002_b.cypher is not understood"),
        ("2026/deeper/find.cypher", "the file name 2026/deeper/find.cypher is not understood"),
        ("V002__b.cql", "the name of V002__b.cql ends in .cql, not in .cypher"),
        ("V002__b.CYPHER", "the name of V002__b.CYPHER ends in .CYPHER, not in .cypher"),
        ("V002__b.cypher.txt", "the name of V002__b.cypher.txt ends in .txt, not in .cypher"),
        ("V002__b.xml", "V002__b.xml is a catalogue of neo4j-migrations, which is not understood"),
        ("V002__b", "the name of V002__b does not end in .cypher"),
        ("v002__b.cypher", "the file name v002__b.cypher is not understood"),
        ("V002_b.cypher", "the file name V002_b.cypher is not understood"),
        ("V002__add+index.cypher", "the file name V002__add+index.cypher is not understood"),
        ("U002__b.cypher", "the file name U002__b.cypher is not understood"),
        ("beforeLunch.cypher", "the file name beforeLunch.cypher is not understood"),
        ("V002__B.java", "V002__B.java is a migration in Java, which is not understood"),
        ("V002_b.cypher.txt", "the name of V002_b.cypher.txt ends in .txt"),
        ("V002.cypher.txt", "the name of V002.cypher.txt ends in .txt"),
        ("b.cypher.txt", "the name of b.cypher.txt ends in .txt"),
        ("V002_b", "the name of V002_b does not end in .cypher"),
        ("b", "the name of b does not end in .cypher"),
        ("V002__b.cyphr", "ends in .cyphr"),
        ("V002__b.cypher.j2", "ends in .j2"),
        ("V002__b.cypher.gz", "ends in .gz"),
        ("V002__b.cqlx", "ends in .cqlx"),
        ("V002__b.bak", "ends in .bak"),
        ("V002__b.cypher.bak", "ends in .bak"),
        ("V002__b.cypher~", "ends in .cypher~"),
        ("V002__b.csv", "ends in .csv"),
        ("V002__b.py", "ends in .py"),
        ("V002__b.cypher ", "the name of 'V002__b.cypher ' ends in '.cypher '"),
        (".V002__b.cypher", "the file name .V002__b.cypher is not understood"),
        ("._V002__b.cypher", "the file name ._V002__b.cypher is not understood"),
        (".old/V002__b.cypher", ".old/V002__b.cypher is in a folder whose name begins with a dot"),
    ],
)
def test_no_file_that_looks_like_a_migration_is_passed_over(tmp_path, name, reason):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    for each in ("V001__a.cypher", name):
        (tmp_path / each).write_text("RETURN 1;")
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path)
    assert reason in caught.value.message
    assert "V001__a.cypher" not in caught.value.message


def test_all_files_that_would_be_passed_over_are_named_at_once(tmp_path):
    for name in ("V002__b.cql", "V003__c.CYPHER"):
        (tmp_path / name).write_text("RETURN 1;")
    with pytest.raises(ConfigurationError, match=r"V002__b\.cql ends in .*V003__c\.CYPHER ends in"):
        load(tmp_path)


def test_hidden_files_and_what_editors_and_desktops_leave_are_no_migrations(tmp_path):
    strange = b"\0\5\26\7\0\2\0\0Mac OS X        \0\2\0\0\0\xb0\xff"
    for name in (
        "._V001__a.cypher",
        ".DS_Store",
        ".gitkeep",
        ".V002__b.cypher.swp",
        "V001__a.cypher~",
        "#V001__a.cypher#",
        "V001__a.cypher.swp",
        "V001__a.cypher.orig",
        "V001__a.cypher.bak",
        "Icon\r",
        "Thumbs.db",
        "README.md",
        "LICENSE",
        "notes.txt",
        "books.csv",
        "run.sh",
        "__init__.py",
        "docs/model.png",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(strange)
    for folder in (".git", "__MACOSX", "__pycache__"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "V003__c.cypher").write_bytes(strange)
    (tmp_path / ".#V001__a.cypher").symlink_to("nobody@host.1:1")
    (tmp_path / "V001__a.cypher").write_text("RETURN 1;")
    assert [file.name for file in load(tmp_path)] == ["V001__a.cypher"]


def test_a_link_back_to_the_folder_is_followed_once(tmp_path):
    (tmp_path / "V001__a.cypher").write_text("RETURN 1;")
    (tmp_path / "again").symlink_to(tmp_path)
    assert [file.name for file in load(tmp_path)] == ["V001__a.cypher"]


def test_a_folder_that_kubernetes_mounts_is_read_once(tmp_path):
    (tmp_path / "..2026_11_29").mkdir()
    (tmp_path / "..2026_11_29" / "V001__a.cypher").write_text("RETURN 1;")
    (tmp_path / "..data").symlink_to("..2026_11_29")
    (tmp_path / "V001__a.cypher").symlink_to("..data/V001__a.cypher")
    assert [file.name for file in load(tmp_path)] == ["V001__a.cypher"]


def test_a_folder_behind_a_link_is_looked_into(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "cypher").mkdir()
    elsewhere.mkdir()
    (elsewhere / "V001__a.cypher").write_text("RETURN 1;")
    (tmp_path / "cypher" / "linked").symlink_to(elsewhere)
    assert [file.place for file in load(tmp_path / "cypher")] == ["linked/V001__a.cypher"]


def test_a_folder_named_like_a_file_and_a_link_to_nothing_are_named(tmp_path):
    (tmp_path / "V001__a.cypher").mkdir()
    with pytest.raises(ConfigurationError, match=r"V001__a\.cypher is a folder"):
        load(tmp_path)
    (tmp_path / "V001__a.cypher").rmdir()
    (tmp_path / "V001__a.cypher").symlink_to("nowhere.cypher")
    with pytest.raises(ConfigurationError, match=r"V001__a\.cypher is a link that leads nowhere"):
        load(tmp_path)


def test_a_named_pipe_is_named_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "V001__a.cypher")
    os.mkfifo(tmp_path / "notes.txt")
    code = (
        "from pathlib import Path; from is_db_bootstrap.stores.neo4j.cypher_file import load; "
        f"load(Path({str(tmp_path)!r}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "V001__a.cypher is a named pipe, socket or device" in ended.stderr
    assert "notes.txt is a named pipe, socket or device" in ended.stderr


@pytest.mark.parametrize("name", ["V1_1.2__a.cypher", "V001__größe.cypher", "V\u0661__a.cypher"])
def test_a_name_that_neo4j_migrations_would_pass_over_is_warned_about(name):
    assert "neo4j-migrations would pass over" in " ".join(
        CypherFile.parse(name, "RETURN 1;").lint()
    )


def test_a_file_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "V001__a.cypher").write_bytes("RETURN 'Grüße';".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"V001__a\.cypher is not UTF-8"):
        load(tmp_path)


def test_a_cypher_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="is not there"):
        load(tmp_path / "cypherr")


def test_a_version_that_neo4j_cannot_hold_is_refused(tmp_path):
    (tmp_path / "V20261129112233123456__a.cypher").write_text("CREATE (:A);")
    with pytest.raises(ConfigurationError, match=r"a version above 9223372036854775807"):
        load(tmp_path)
