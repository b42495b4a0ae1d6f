"""An error's text ends once, whatever the client's text in it ends with."""

import pytest

from is_db_bootstrap.errors import BootstrapError, ConfigurationError, StoreUnavailable
from is_db_bootstrap.sentences import drop_second_stop, encodable, end_sentence
from stops import sentences_with_two_stops

CLIENT_TEXTS = {
    "refused": "refused.",
    "refused.": "refused.",
    "refused. ": "refused.",
    "refused;": "refused.",
    "is it up?": "is it up?",
    "no!": "no!",
    "cut off…": "cut off…",
    "and so on...": "and so on...",
    "(no table)": "(no table).",
    "first line.\n": "first line.",
}


@pytest.mark.parametrize(("said", "ends"), CLIENT_TEXTS.items())
def test_a_message_with_a_clients_text_ends_once(said, ends):
    assert end_sentence(f"It said: {said}") == f"It said: {ends}"
    error = StoreUnavailable("redis", f"It said: {said}.", hint=f"Why {said}.", detail=f"{said}.")
    assert error.message == f"It said: {ends}"
    assert error.hint == f"Why {ends}"
    assert error.detail == ends
    assert str(error) == f"redis: It said: {ends} {ends} Why {ends}"
    assert not sentences_with_two_stops(str(error))


def test_what_ends_well_stays_as_it_is():
    for text in ("", "Done.", "no end", "x:\n  listed\n", "Wait...", "."):
        assert drop_second_stop(text) == text
    assert end_sentence("") == ""


def test_the_look_for_two_stops_finds_them_and_no_paths():
    assert sentences_with_two_stops("a b..\nis it?. Go.\n'x'.. y") == [
        "a b..",
        "is it?. Go.",
        "'x'.. y",
    ]
    assert sentences_with_two_stops("cd ../x and ..\n0..1\nWait... now.\nsee x.py.") == []


def test_a_path_of_other_bytes_is_escaped_in_an_error():
    error = ConfigurationError("No file a\udcff.", hint="See a\udcff.")
    assert (error.message, error.hint) == ("No file a\\udcff.", "See a\\udcff.")
    assert encodable("ä\udc80") == "ä\\udc80"
    str(BootstrapError("\udcff")).encode()
