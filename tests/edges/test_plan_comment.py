"""A plan as a comment for a pull request: read as GitHub reads it, with the worst of names."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from is_db_bootstrap.render.plan_comment import fleet_plan_comment, plan_comment
from is_db_bootstrap.results import (
    BootstrapResult,
    ChangeResult,
    Danger,
    DangerKind,
    ErrorReport,
    Mode,
    Nature,
    Outcome,
    StoreResult,
)
from is_db_bootstrap.wording import visible

GITHUB_LIMIT = 65_536
#: Names that Markdown, HTML, GitHub or a terminal would take for something else.
NAMES = [
    "a|b",
    "`tick` ``` ~~~",
    "<script>alert(1)</script>",
    "<!-- is-db-bootstrap plan of other -->",
    "</code></details><img src=x onerror=y>",
    "@octocat and @org/team",
    "#12 GH-34 org/repo#5",
    ":smile: app:lock:key",
    "https://evil.example/x www.evil.example",
    "[text](http://evil.example) ![img](x)",
    "**bold** _it_ ~~no~~ $x$ \\| \\",
    "line\nend\r\n| x | y |\n\n# heading",
    "\x1b[31mred\x07\u202e\u200b\ud800",
    "&lt;b&gt; &#64;octocat",
]
#: Elements that the comment is made of.
OWN = {"h2", "h3", "h4", "p", "ul", "li", "strong", "em", "code", "pre", "table", "thead", "tbody"}
OWN |= {"tr", "th", "td", "details", "summary"}


class Read(HTMLParser):
    """What a reader of the comment gets: elements, cells, blocks, and text outside of code."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.rows, self.blocks, self.prose = set(), [], [], [], ""
        html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self.feed(html.render(text.encode().decode()))

    def handle_starttag(self, tag, attrs):  # noqa: ARG002 - the parser gives them
        self.elements.add(tag)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag == "pre":
            self.blocks.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
        if "pre" in self.open:
            self.blocks[-1] += data
        if not {"pre", "code"} & set(self.open):
            self.prose += data


def change(name="0001", statements=("CREATE TABLE a (id int);",), **more):
    outcome = more.pop("outcome", Outcome.PLANNED)
    given = {"kind": "revision", "nature": Nature.ATOMIC, "statements": tuple(statements)}
    return ChangeResult(name, outcome=outcome, **{**given, **more})


def store(*changes, name="postgres", outcome=Outcome.PLANNED, **more):
    target = more.pop("target", f"{name}://db/app")
    return StoreResult(name, target, outcome, changes=tuple(changes), duration_s=1.5, **more)


def plan(*stores, outcome=Outcome.PLANNED, code=0, **more):
    given = {"run_id": "r", "started_at": datetime.now(UTC), "duration_s": 2.5} | more
    name = given.pop("blueprint", "mine")
    return BootstrapResult(
        blueprint=name, mode=Mode.PLAN, outcome=outcome, exit_code=code, stores=stores, **given
    )


def comment(*stores, **more):
    return plan_comment(plan(*stores, **more).to_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_shown_and_not_obeyed_wherever_it_stands(name):
    danger = Danger(DangerKind.DROPS, name, f"It has {name} in it.", 0)
    planned = change(name, [f"DROP TABLE {name};"], detail=name, dangers=(danger,), kind=name)
    error = ErrorReport("conflict", name, f"postgres: {name} differs", f"See {name}.")
    text = comment(store(planned, notes=(name,), error=error, target=name), blueprint=name)
    first, second = text.split("\n")[:2]
    assert re.fullmatch(r"<!-- is-db-bootstrap plan of [\w .:/-]* -->", first, re.ASCII)
    assert "--" not in first[4:-3]
    assert second == ""
    read = Read(text)
    assert read.elements <= OWN
    assert read.open == []
    [titles, cells] = read.rows
    assert titles == ["Change", "What", "Detail", "Remarks"]
    assert cells[0] == visible(name, 600)
    assert read.blocks[0].startswith("DROP TABLE ")
    for obeyed in (r"@\w", r"#\d", r":\w+:", r"GH-\d", r"https?://", r"www\.\w"):
        assert not re.search(obeyed, read.prose), read.prose
    assert text.isprintable() or set(re.findall(r"[^ -~]", text)) <= {"\n", "…"}


def test_dangers_come_first_and_name_their_place():
    danger = Danger(DangerKind.REFUSED, "users", "3 rows have no email.", 1)
    text = comment(
        store(change("0001"), change("0002", ["A;", "B;"], dangers=(danger,), is_code=True)),
        store(change("c", ["create_collection('c')"], kind="collection"), name="milvus"),
    )
    lines = text.split("\n")
    assert lines[2] == "## <code>mine</code>: 3 changes planned, 1 to look at first"
    assert lines[4] == "### Look at this first"
    assert lines[6] == (
        "- **refused** <code>users</code> (postgres, <code>0002</code>, statement 2): "
        "3 rows have no email."
    )
    read = Read(text)
    assert read.rows[2] == ["0002", "revision", "", "look first: refused; runs Python"]
    assert [row[0] for row in read.rows] == ["Change", "0001", "0002", "Change", "c"]
    assert "```sql\nA;\n\nB;\n```" in text
    assert "```python\ncreate_collection('c')\n```" in text


def test_long_statements_are_folded_and_short_ones_are_not():
    text = comment(store(change("short", ["A;"]), change("long", ["B\n" * 30 + ";"])))
    head, _, folded = text.partition("<details><summary>")
    assert "```sql\nA;\n```" in head
    assert folded.startswith("postgres <code>long</code>: 1 statement</summary>\n\n```sql\nB\n")
    assert Read(text).open == []


def test_a_block_ends_where_its_statements_end():
    text = comment(store(change("x", ["A\n```\n</details>\n````x\n# no heading;"] * 9)))
    read = Read(text)
    assert len(read.blocks) == 1
    assert read.blocks[0].count("# no heading;") == 9


def test_nothing_to_change_is_said_in_a_line():
    text = comment(store(outcome=Outcome.UNCHANGED), outcome=Outcome.UNCHANGED)
    assert text.split("\n")[2] == "## <code>mine</code>: nothing to change"
    assert "Nothing to change." in text


def test_a_store_that_was_skipped_is_not_said_to_have_nothing_to_change():
    text = comment(store(outcome=Outcome.SKIPPED), outcome=Outcome.FAILED, code=4)
    assert "Nothing to change." not in text
    assert "Whether it has changes is not known." in text


def test_a_store_that_failed_says_why_and_what_next():
    error = ErrorReport("unavailable", "", "postgres: db does not answer.", "Is it running?")
    failed = store(outcome=Outcome.FAILED, error=error)
    text = comment(failed, outcome=Outcome.FAILED, code=4)
    assert "## <code>mine</code>: the plan failed" in text
    assert "**postgres failed** (unavailable): db does not answer.\n\nNext: Is it running?" in text


def test_the_same_plan_is_the_same_comment_at_any_time():
    one = plan(store(change()))
    other = replace(
        one,
        run_id="other",
        duration_s=9.0,
        started_at=datetime(2020, 1, 1, tzinfo=UTC),
        stores=(replace(one.stores[0], duration_s=8.0),),
    )
    assert plan_comment(one.to_dict()) == plan_comment(other.to_dict())


@pytest.mark.parametrize("character", ["x", "€", "😀", "`", "|", "<"])
def test_a_comment_fits_into_what_github_takes_and_says_what_was_left_out(character):
    danger = Danger(DangerKind.LOCKS, "big", "It is written anew.", None)
    changes = [
        change(f"{number:04} {character * 50}", [character * 900] * 3, detail=character * 300)
        for number in range(300)
    ]
    changes[200] = replace(changes[200], dangers=(danger,))
    text = comment(store(*changes, notes=("n",) * 500))
    assert len(text.encode()) <= GITHUB_LIMIT
    assert len(text) > GITHUB_LIMIT / 8
    assert "**locks** <code>big</code>" in text
    assert re.search(r"\*\*Left out\*\*, because .*: .*\d+ lists of statements", text)
    assert "… and " in text
    assert Read(text).open == []


def test_one_statement_larger_than_a_comment_is_cut():
    text = comment(store(change("big", ["INSERT 1;\n" * 50_000])))
    assert len(text.encode()) <= GITHUB_LIMIT
    assert re.search(r"… \d+ more lines\n```", text)


def test_secrets_are_masked_wherever_they_stand():
    secret = "p@ss|word<1>"
    planned = change(secret, [f"ALTER ROLE a PASSWORD '{secret}';"], detail=secret)
    document = plan(store(planned, notes=(secret,))).to_dict()
    text = plan_comment(document, lambda each: each.replace(secret, "***"))
    read = Read(text)
    assert "word" not in text
    assert "'***'" in read.blocks[0]


# --- many targets


def fleet(*targets, **more):
    given = {"blueprint": "mine", "mode": "plan", "outcome": "planned", "message": ""}
    return given | {"targets": list(targets)} | more


def target(name, run=None, outcome="planned", message="", hint=""):
    document = run.to_dict() if run else None
    given = {"name": name, "outcome": outcome, "exit_code": 0, "run": document}
    return given | {"message": message, "hint": hint}


def test_targets_with_the_same_plan_are_told_together():
    planned = [
        target(f"t{n}", plan(store(change(), target=f"postgresql://db/{n}"), duration_s=n))
        for n in range(1000)
    ]
    calm = target("calm", plan(store(outcome=Outcome.UNCHANGED)), "unchanged")
    dead = target("dead", None, "failed", "postgres: @octocat is silent", "Run again.")
    text = fleet_plan_comment(fleet(*planned, calm, dead))
    assert "## <code>mine</code>: 1002 targets, 1000 planned, 1 unchanged, 1 failed" in text
    assert "### 1000 targets: 1 revision planned" in text
    assert "<code>t39</code> and 960 more" in text
    assert text.count("CREATE TABLE a") == 1
    assert "### <code>calm</code>: unchanged" in text
    assert "**<code>dead</code> failed**: postgres: @&#8203;octocat is silent" in text
    assert "postgresql://" not in text
    assert Read(text).elements <= OWN


def test_a_thousand_plans_of_their_own_fit():
    planned = [
        target(f"t{n}", plan(store(change(f"{n}", [f"SELECT {n};" * 40])))) for n in range(1000)
    ]
    text = fleet_plan_comment(fleet(*planned))
    assert len(text.encode()) <= GITHUB_LIMIT
    assert re.search(r"Left out.*\d+ groups of targets", text)
    assert Read(text).open == []


# --- the command


BLUEPRINT = """
from pathlib import Path
from is_db_bootstrap.blueprint import Blueprint, KeyPattern

BLUEPRINT = Blueprint("mine", "for tests", migrations=Path(__file__).parent / "migrations")
"""
REVISION = '''
"""One table."""
from alembic import op

revision = "m_0001"
down_revision = None


def upgrade():
    op.execute("""CREATE TABLE "a|b" (id int)""")
    op.execute("COMMENT ON TABLE \\"a|b\\" IS 'for @octocat, {secret}'")


def downgrade():
    op.execute("""DROP TABLE "a|b" """)
'''


@pytest.mark.postgres
@pytest.mark.acceptance
def test_the_command_prints_the_comment_of_a_real_plan(tmp_path, postgres_url):
    secret = re.search(r":([^:@/]+)@", postgres_url)[1]
    (tmp_path / "mine.py").write_text(BLUEPRINT.replace(", KeyPattern", ""))
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "m_0001_step.py").write_text(REVISION.format(secret=secret))
    words = [sys.executable, "-m", "is_db_bootstrap", "plan", "-b", "mine:BLUEPRINT"]
    words += ["-o", "markdown"]
    lines = [json.dumps({"name": n, "postgres": {"schema": n}}) + "\n" for n in ("a", "b")]
    for options, stdin in (([], ""), (["--targets", "-"], "".join(lines))):
        done = subprocess.run(
            [*words, *options],
            cwd=tmp_path,
            env=os.environ | {"POSTGRES_URL": postgres_url},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        read = Read(done.stdout)
        assert done.stdout.startswith("<!-- is-db-bootstrap plan of mine -->\n\n## <code>mine")
        assert secret not in done.stdout
        assert ["m_0001", "revision"] in [row[:2] for row in read.rows]
        assert any('CREATE TABLE "a|b" (id int)' in block for block in read.blocks)
        assert "'for @octocat, ***'" in "".join(read.blocks)
        assert "```sql" in done.stdout


@pytest.mark.parametrize("command", ["apply", "verify", "status", "wait"])
def test_only_a_plan_is_a_comment(tmp_path, command):
    words = [sys.executable, "-m", "is_db_bootstrap", command, "-o", "markdown"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'markdown' is not one of 'text', 'json'" in done.stderr
