"""JUnit XML of a verify and of a self-test: what CI reads is whole, masked and well-formed."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

import psycopg
import pytest

from commands import run_here
from is_db_bootstrap.errors import StoreUnavailable, VerificationFailed
from is_db_bootstrap.render.junit import junit_fleet, junit_proofs, junit_run
from is_db_bootstrap.results import BootstrapResult, Drift, Mode, Outcome, Proof, StoreResult

#: The elements of Jenkins's junit-10.xsd that are used, with their attributes and what is in them.
SCHEMA = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp"},
        {"testcase", "system-out"},
    ),
    "testcase": ({"name", "classname", "time"}, {"skipped", "error", "failure"}),
    "skipped": ({"message"}, set()),
    "error": ({"message", "type"}, set()),
    "failure": ({"message", "type"}, set()),
    "system-out": (set(), set()),
}
#: Controls, a lone surrogate, a code point that is none, markup, and the end of a CDATA section.
HOSTILE = "a\x00\x1b[31m\ud800\ufffe<&\"']]>\u202eb"


def checked(text):
    """The root of a report that keeps to the schema. Its numbers are those of its elements."""
    text.encode()
    root = ET.fromstring(text)
    for element in root.iter():
        attributes, inside = SCHEMA[element.tag]
        assert set(element.keys()) <= attributes
        assert {each.tag for each in element} <= inside
    for suite in root:
        found = suite.findall("testcase")
        assert int(suite.get("tests")) == len(found) > 0
        for words, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(words)) == len(suite.findall(f"testcase/{tag}"))
    for words in ("tests", "failures", "errors"):
        assert int(root.get(words)) == sum(int(suite.get(words)) for suite in root)
    return root


def result(*stores, code=3):
    began = datetime(2026, 11, 30, 4, 0, tzinfo=UTC)
    outcome = Outcome.DRIFTED
    return BootstrapResult("1" * 12, HOSTILE, Mode.VERIFY, outcome, code, began, 1.5, stores)


def store(name, outcome=Outcome.UNCHANGED, error=None, drifts=(), **more):
    report = error.report() if error else None
    more.setdefault("is_verified", error is None and outcome is not Outcome.SKIPPED)
    return StoreResult(name, "address", outcome, error=report, drifts=drifts, **more)


def test_a_difference_is_a_failure_with_both_sides_and_nothing_breaks_the_document():
    drift = Drift(HOSTILE, "index", "is missing", f"on {HOSTILE}", fix=f"CREATE {HOSTILE};")
    error = VerificationFailed("postgres", [drift])
    root = checked(
        junit_run(
            result(
                store("postgres", Outcome.DRIFTED, error, (drift,), notes=(HOSTILE,)),
                store("redis"),
            ).to_dict()
        )
    )
    assert [suite.get("name") for suite in root] == ["postgres", "redis"]
    [failure] = root.findall("testsuite/testcase/failure")
    assert failure.get("type") == "missing"
    shown = r"a\x00\x1b[31m\ud800\ufffe<&" + "\"']]>" + r"\u202eb"
    assert failure.text.splitlines() == [
        f"index {shown} is missing",
        f"declared: on {shown}",
        "there: nothing",
        f"mend: CREATE {shown};",
    ]
    [passed] = root[1].findall("testcase")
    assert (passed.get("name"), len(passed)) == ("is as declared", 0)


def test_a_store_that_is_down_is_an_error_and_those_behind_it_are_skipped():
    error = StoreUnavailable("postgres", "hunter2 does not answer.", hint="Start it.")
    stores = (store("postgres", Outcome.FAILED, error), store("redis", Outcome.SKIPPED))
    document = result(*stores, code=4).to_dict()
    root = checked(junit_run(document, lambda text: text.replace("hunter2", "***")))
    [down] = root.findall("testsuite/testcase/error")
    assert (down.get("type"), down.get("message")) == ("unavailable", "*** does not answer.")
    assert len(root.findall("testsuite/testcase/skipped")) == 1
    targets = [
        {"name": "one", "run": document},
        {
            "name": "two",
            "run": None,
            "outcome": "failed",
            "message": "hunter2 is no address.",
            "hint": "",
        },
        {"name": "three", "run": None, "outcome": "skipped", "message": "", "hint": ""},
    ]
    fleet = {"blueprint": "shop", "duration_s": 2.0, "message": "", "targets": targets}
    root = checked(junit_fleet(fleet, lambda text: text.replace("hunter2", "***")))
    names = [suite.get("name") for suite in root]
    assert names == ["one postgres", "one redis", "two", "three"]
    assert "hunter2" not in ET.tostring(root, encoding="unicode")


def test_the_checks_of_a_selftest_pass_fail_or_are_skipped():
    proofs = [
        ("redis", Proof("cart", ok=True)),
        ("redis", Proof("seat", ok=False, detail="is kept")),
        ("postgres", Proof("orders", ok=None, detail="no rows")),
    ]
    root = checked(junit_proofs("shop", proofs))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "1", "0")
    assert root.find("testsuite/testcase/failure").text == "is kept"


@pytest.mark.parametrize("command", ["verify", "selftest"])
def test_a_command_writes_the_report_of_stores_that_are_down(command, tmp_path):
    environ = {"POSTGRES_URL": "postgresql://u:hunter2@127.0.0.1:1/x", "HOME": "/nonexistent"}
    args = (command, "-b", "agentic_projects", "--timeout", "0.2", "-o", "junit")
    code, out, err = run_here(args, tmp_path, environ)
    assert code == 4, err
    assert "hunter2" not in out + err
    assert checked(out).get("errors") == "1"


@pytest.mark.parametrize("command", ["apply", "plan", "status", "wait", "repair"])
def test_only_what_checks_writes_a_report_of_tests(command, tmp_path):
    code, out, err = run_here((command, "-o", "junit"), tmp_path, {})
    assert (code, out) == (2, "")
    assert "'junit' is not one of 'text', 'json'" in err


def test_a_store_that_nobody_has_compared_is_skipped_and_not_passed():
    note = "Not verified: the store is ahead of this version of the blueprint."
    ahead = store("postgres", is_verified=False, notes=(note,))
    root = checked(junit_run(result(ahead, store("redis"), code=0).to_dict()))
    [first] = root[0].findall("testcase")
    assert first.find("skipped").get("message") == note
    [second] = root[1].findall("testcase")
    assert list(second) == []


def test_each_check_of_a_selftest_has_its_time_and_a_suite_their_sum():
    proofs = [("redis", Proof("a", ok=True, duration_s=0.25)), ("redis", Proof("b", ok=None))]
    proofs.append(("postgres", Proof("c", ok=False, duration_s=0.5)))
    root = checked(junit_proofs("mine", proofs))
    assert (root.get("time"), root[0].get("time"), root[1].get("time")) == (
        "0.750",
        "0.250",
        "0.500",
    )
    assert root[0][0].get("time") == "0.250"


@pytest.mark.postgres
def test_a_store_that_is_ahead_is_skipped_in_the_report(migrated, tmp_path):
    """A newer release was here. What it has made cannot be compared by this one."""
    url = migrated("mplp")
    with psycopg.connect(url, autocommit=True) as session:
        session.execute("UPDATE alembic_version SET version_num = 'mplp_9999'")
        session.execute(
            "UPDATE is_db_bootstrap.lineage SET revisions = revisions || ARRAY['mplp_9999']"
        )
    environ = {"PATH": os.environ["PATH"], "POSTGRES_URL": url}
    code, text, err = run_here(("verify", "-b", "mplp", "-o", "junit"), tmp_path, environ)
    assert code == 0, err
    [case] = checked(text).iter("testcase")
    assert case.find("skipped").get("message").startswith("Not verified")
