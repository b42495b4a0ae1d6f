"""Results as JUnit XML, which CI servers show as tests.

The elements are those that the schema of Jenkins (`junit-10.xsd`), GitLab and GitHub actions read.
A store is a test suite. A store that is as declared is a test that passes. Each difference is a
test that fails. What kept a store from being looked at is an error. A store that nobody has
compared is a test that is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from is_db_bootstrap.wording import visible, visible_lines

if TYPE_CHECKING:
    from is_db_bootstrap.errors import BootstrapError
    from is_db_bootstrap.names import StoreName
    from is_db_bootstrap.results import Proof

Mask = Callable[[str], str]
Document = Mapping[str, Any]

#: What XML 1.0 has no way to write: most controls, lone surrogates, and two code points.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: The error of a store that was compared and differs. Its differences are the failures.
_DIFFERS = "verification"


def _no_mask(text: str) -> str:
    return text


def junit_run(run: Document, mask: Mask = _no_mask) -> str:
    """The document of one run (`BootstrapResult.to_dict`) as JUnit XML.

    `mask` takes the secrets of the addresses out of a text.
    """
    return _Writer(mask).written(run["blueprint"], run["duration_s"], _suites_of(run))


def junit_fleet(fleet: Document, mask: Mask = _no_mask) -> str:
    """The document of many runs: a test suite for each store of each target."""
    suites: list[_Suite] = []
    for target in fleet["targets"]:
        if target["run"] is not None:
            suites += _suites_of(target["run"], target["name"])
            continue
        is_skipped = target["outcome"] == "skipped"
        text = f"{target['message']} {target['hint']}".strip()
        case = _Case(_COMPARED, "skipped" if is_skipped else "error", target["outcome"], text)
        suites.append(_Suite(target["name"], target["name"], (case,)))
    if fleet["message"]:
        case = _Case("the run itself", "error", fleet["outcome"], fleet["message"])
        suites.append(_Suite(fleet["blueprint"], fleet["blueprint"], (case,)))
    return _Writer(mask).written(fleet["blueprint"], fleet["duration_s"], suites)


def junit_proofs(
    blueprint: str,
    proofs: Sequence[tuple[StoreName, Proof]],
    mask: Mask = _no_mask,
    ended_by: BootstrapError | None = None,
) -> str:
    """The checks of a self-test: one that could not be tried is skipped.

    What has ended the self-test in the middle is an error of its store.
    """
    results = {True: "", False: "failure", None: "skipped"}
    by_store: dict[str, list[_Case]] = {}
    for store, proof in proofs:
        result, took_s = results[proof.ok], proof.duration_s
        case = _Case(proof.name, result, "selftest", proof.detail, duration_s=took_s)
        by_store.setdefault(store, []).append(case)
    if ended_by is not None:
        report = ended_by.report()
        text = f"{report.message}\n{report.hint}".strip()
        case = _Case("the self-test itself", "error", report.kind, text)
        by_store.setdefault(getattr(ended_by, "store", blueprint), []).append(case)
    suites = [
        _Suite(
            store, f"{blueprint}.{store}", tuple(cases), duration_s=sum(c.duration_s for c in cases)
        )
        for store, cases in by_store.items()
    ]
    return _Writer(mask).written(blueprint, sum(suite.duration_s for suite in suites), suites)


_COMPARED = "is as declared"


class _Case:
    """One test. `result` is the element below it, and empty for a test that passed.

    `duration_s` is seconds. The tests of a store that was compared as a whole share its time.
    """

    def __init__(
        self, name: str, result: str = "", kind: str = "", text: str = "", *, duration_s: float = 0
    ) -> None:
        self.name = name
        self.result = result
        self.kind = kind
        self.text = text
        self.duration_s = duration_s


class _Suite:
    """The tests of one store. `duration_s` is seconds."""

    def __init__(
        self,
        name: str,
        class_name: str,
        cases: Sequence[_Case],
        *,
        duration_s: float = 0.0,
        started_at: str = "",
        remarks: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.class_name = class_name
        self.cases = cases
        self.duration_s = duration_s
        self.started_at = started_at
        self.remarks = remarks

    def count(self, result: str) -> int:
        """How many tests ended with this element."""
        return sum(case.result == result for case in self.cases)


def _suites_of(run: Document, target: str = "") -> list[_Suite]:
    prefix = f"{target} " if target else ""
    return [
        _Suite(
            f"{prefix}{store['store']}",
            f"{run['blueprint']}.{prefix}{store['store']}",
            tuple(_cases_of(store)),
            duration_s=store["duration_s"],
            # The schema has no zone. These times are UTC.
            started_at=str(run["started_at"])[:19],
            remarks=[*store["notes"], f"{store['target']}"],
        )
        for store in run["stores"]
    ]


def _cases_of(store: Document) -> Iterable[_Case]:
    """Each difference, and what kept the store from being compared. Else one test that passes."""
    for drift in store["drifts"]:
        name = f"{drift['kind']} {drift['name']}"
        yield _Case(name, "failure", drift["difference"], _drift_text(drift))
    error = store["error"]
    if error is None and not store["drifts"]:
        is_compared = store["is_verified"]
        reason = "" if is_compared else _why_not_compared(store)
        yield _Case(_COMPARED, "" if is_compared else "skipped", "skipped", reason)
    elif error is not None and error["kind"] != _DIFFERS:
        text = f"{error['message']}\n{error['hint']}".strip()
        yield _Case(_COMPARED, "error", error["kind"], text)


def _why_not_compared(store: Document) -> str:
    """Why nobody has compared a store that did not fail."""
    if store["outcome"] == "skipped":
        return "Another store failed first."
    notes = [note for note in store["notes"] if note.startswith("Not verified")]
    return " ".join(notes) or "The store was not compared."


def _drift_text(drift: Document) -> str:
    """What differs, both sides of it, and what mends it, in lines."""
    lines = [
        f"{drift['kind']} {drift['name']} {drift['message']}",
        f"declared: {_side(drift['expected'])}",
        f"there: {_side(drift['actual'])}",
    ]
    if drift["fix"]:
        lines.append(f"mend: {drift['fix']}")
    reasons = dict.fromkeys((drift["reason"], drift["not_repaired"]))
    lines += [f"by hand: {reason}" for reason in reasons if reason]
    return "\n".join(lines)


def _side(text: str | None) -> str:
    return "nothing" if text is None else text


class _Writer:
    """Makes the elements. `mask` takes secrets out of each text."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask

    def written(self, name: str, duration_s: float, suites: Sequence[_Suite]) -> str:
        """The whole document, with a line end."""
        root = ET.Element("testsuites", {"name": self._line(name), "time": _seconds(duration_s)})
        totals = {"tests": 0, "failures": 0, "errors": 0}
        for suite in suites:
            counts = {
                "tests": len(suite.cases),
                "failures": suite.count("failure"),
                "errors": suite.count("error"),
            }
            totals = {each: totals[each] + counts[each] for each in totals}
            root.append(self._suite(suite, counts))
        root.attrib.update({each: str(number) for each, number in totals.items()})
        ET.indent(root)
        text = ET.tostring(root, encoding="unicode")
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'

    def _suite(self, suite: _Suite, counts: Mapping[str, int]) -> ET.Element:
        found = ET.Element("testsuite", {"name": self._line(suite.name)})
        found.attrib.update({each: str(number) for each, number in counts.items()})
        found.set("skipped", str(suite.count("skipped")))
        found.set("time", _seconds(suite.duration_s))
        if suite.started_at:
            found.set("timestamp", suite.started_at)
        for case in suite.cases:
            found.append(self._case(suite, case))
        if suite.remarks:
            remarks = ET.SubElement(found, "system-out")
            remarks.text = self._lines("\n".join(suite.remarks))
        return found

    def _case(self, suite: _Suite, case: _Case) -> ET.Element:
        names = {"name": self._line(case.name), "classname": self._line(suite.class_name)}
        duration_s = case.duration_s or suite.duration_s / len(suite.cases)
        found = ET.Element("testcase", {**names, "time": _seconds(duration_s)})
        if case.result:
            first_line = case.text.partition("\n")[0]
            element = ET.SubElement(found, case.result, {"message": self._line(first_line)})
            if case.result != "skipped":
                element.set("type", self._line(case.kind))
                element.text = self._lines(case.text)
        return found

    def _line(self, text: str) -> str:
        return _without_forbidden(visible(self._mask(text)))

    def _lines(self, text: str) -> str:
        return _without_forbidden(visible_lines(self._mask(text)))


def _without_forbidden(text: str) -> str:
    """The text, whose characters that XML lacks are written as Python writes them."""
    return _NO_XML.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _seconds(duration_s: float) -> str:
    return f"{duration_s:.3f}"
