"""User code is a guest: it cannot end the process, and cannot write to stdout."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from commands import command
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
from is_db_bootstrap.blueprint.load import load_blueprint
from is_db_bootstrap.errors import ConfigurationError
from is_db_bootstrap.guests import GuestFailed, guest, place_of, strict_guest

RAISED = {
    "exit": "import sys\nsys.exit(0)",
    "exit with words": "raise SystemExit('no')",
    "quit": "quit()",
    "exit at once": "import os\nos._exit(0)",
    "exit at once by another name": "import posix\nposix._exit(0)",
    "another program": "import os\nos.execvp('true', ['true'])",
    "another program by another name": "import posix\nposix.execv('/bin/true', ['true'])",
    "keyboard": "raise KeyboardInterrupt",
    "generator": "raise GeneratorExit",
    "cancelled": "import asyncio\nraise asyncio.CancelledError",
    "own": "class Own(BaseException): pass\nraise Own('x')",
    "error": "1 / 0",
}
BLUEPRINT = """
from is_db_bootstrap.blueprint import Blueprint, KeyPattern
KEYS = (KeyPattern("k", "k:{id}", "string", 60, "o", "p"),)
"""


@pytest.fixture
def folder(tmp_path):
    """A folder whose `blueprint.py` has the text that is given."""

    def write(text):
        (tmp_path / "desk").mkdir(exist_ok=True)
        (tmp_path / "desk" / "blueprint.py").write_text(BLUEPRINT + text)
        return tmp_path / "desk"

    return write


@pytest.mark.parametrize("code", RAISED.values(), ids=RAISED)
def test_a_blueprint_that_exits_on_import_is_a_configuration_error_with_its_line(folder, code):
    path = folder(code)
    line = len((BLUEPRINT + code).splitlines())
    with pytest.raises(
        ConfigurationError, match=rf"cannot be imported: .*blueprint\.py, line {line}\)"
    ):
        load_blueprint(path)


def test_a_module_that_exits_on_import_is_one_too(tmp_path, monkeypatch):
    (tmp_path / "exits.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigurationError, match=r"SystemExit: 0 .*exits\.py, line 3\)"):
        load_blueprint("exits:BLUEPRINT")


def test_an_attribute_that_exits_is_one_too(tmp_path, monkeypatch):
    (tmp_path / "lazily.py").write_text("import sys\n\ndef __getattr__(name):\n    sys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(ConfigurationError, match=r"SystemExit: 0 .*lazily\.py, line 4\)"):
        load_blueprint("lazily:BLUEPRINT")


@pytest.mark.parametrize("code", RAISED.values(), ids=RAISED)
def test_a_configure_that_exits_is_a_configuration_error_with_its_line(folder, code):
    text = f"def configure(blueprint, values):\n{textwrap.indent(code, '    ')}\n"
    text += "BLUEPRINT = Blueprint('desk', 'x', keys=KEYS, configure=configure)\n"
    line = len((BLUEPRINT + text).splitlines()) - 1
    found = load_blueprint(folder(text))
    with pytest.raises(
        ConfigurationError, match=rf"configure of the blueprint desk failed: .*, line {line}\)"
    ):
        found.resolve({})


def test_a_configure_that_returns_nothing_is_told():
    keys = (KeyPattern("k", "k:{id}", "string", 60, "o", "p"),)
    found = Blueprint("desk", "x", keys=keys, configure=lambda _, __: None)
    with pytest.raises(ConfigurationError, match="returned NoneType, not a Blueprint"):
        found.resolve({})


def test_the_command_exits_2_and_says_where(folder):
    path = folder("import sys\nsys.exit(0)\n")
    code, out, err = command("apply", "-b", str(path), "-o", "json")
    assert (code, json.loads("\n".join(out))["error"]["kind"]) == (2, "configuration")
    assert "SystemExit: 0" in err
    assert f"{path / 'blueprint.py'}, line 5" in err


def test_what_a_blueprint_prints_goes_to_stderr(folder):
    path = folder("print('hello')\nBLUEPRINT = Blueprint('desk', 'x', keys=KEYS)\n")
    code, out, err = command("blueprints", "show", str(path), "--format", "json")
    assert code == 0
    assert out[0] == "{"
    assert "hello" in err


def test_other_threads_print_where_they_always_did(capsys):
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait(10)
        sys.stdout.write("from outside\n")
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with guest():
        inside.set()
        done.wait(10)
        sys.stdout.write("from a guest\n")
    thread.join()
    sys.stdout.write("after\n")
    out, err = capsys.readouterr()
    assert out == "from outside\nafter\n"
    assert err == "from a guest\n"


def test_two_guests_at_once_leave_stdout_as_it_was():
    before = sys.stdout
    first, second = threading.Event(), threading.Event()

    def one():
        with guest():
            first.set()
            second.wait(10)

    thread = threading.Thread(target=one)
    thread.start()
    first.wait(10)
    with guest():
        second.set()
        thread.join()
    assert sys.stdout is before


def test_a_stream_that_a_guest_puts_in_place_is_taken_back_and_written(capsys):
    before = sys.stdout, sys.stderr
    with guest():
        sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
        sys.stderr = io.StringIO()
        sys.stdout.write("held back\n")
    assert (sys.stdout, sys.stderr) == before
    gc.collect()
    sys.stderr.write("after\n")
    sys.stdout.write("result\n")
    assert capsys.readouterr() == ("result\n", "held back\nafter\n")


@pytest.mark.parametrize(
    "code",
    [
        "sys.stdout.reconfigure(encoding='utf-8', line_buffering=True)",
        "sys.stderr.reconfigure(errors='strict')",
        "sys.stdout.name, sys.stdout.line_buffering, sys.stderr.name, sys.stderr.write_through",
        "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
        "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')",
        "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())",
        "sys.stderr = io.TextIOWrapper(sys.stderr.detach(), encoding='utf-8')",
    ],
)
def test_a_blueprint_may_treat_the_streams_as_those_of_python(folder, code):
    text = f"import codecs, io, sys\n{code}\nprint('hello')\n"
    path = folder(f"{text}BLUEPRINT = Blueprint('desk', 'x', keys=KEYS)\n")
    found, out, err = command("blueprints", "show", str(path), "--format", "json")
    assert (found, out[:1]) == (0, ["{"]), err
    assert err.split() == ["hello"]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name
)
def test_a_real_interrupt_is_no_failure_of_the_guest(number):
    usual = signal.signal(number, signal.default_int_handler)
    try:
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt), guest():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is before
        with pytest.raises(GuestFailed, match="KeyboardInterrupt"), guest():
            raise KeyboardInterrupt
        assert signal.getsignal(number) is before
    finally:
        signal.signal(number, usual)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_during_the_import_of_a_blueprint_interrupts_the_command(folder, tmp_path, number):
    log = tmp_path / "log"
    path = folder(f"import os, time\nos.kill(os.getpid(), {int(number)})\ntime.sleep(20)\n")
    code, _, err = command("apply", "-b", str(path), "--termination-log", str(log))
    assert code == 128 + number, err
    assert "KeyboardInterrupt" not in err
    assert json.loads(log.read_text())["outcome"] == "interrupted"


def test_a_guest_that_turns_an_interrupt_into_an_exit_is_interrupted():
    def impatient():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(0)

    with pytest.raises(KeyboardInterrupt), guest():
        impatient()


def test_a_keyboard_interrupt_of_a_thread_was_raised_by_the_guest():
    found = []

    def run():
        try:
            with guest():
                raise KeyboardInterrupt
        except GuestFailed as exc:
            found.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert "KeyboardInterrupt" in str(found[0])


def test_ordinary_errors_pass_a_guest_and_not_a_strict_one():
    with pytest.raises(ValueError, match="x"), guest():
        raise ValueError("x")
    with (
        pytest.raises(GuestFailed, match=r"ValueError: x \(.*test_guests\.py, line \d+\)"),
        strict_guest(),
    ):
        raise ValueError("x")
    with pytest.raises(ConfigurationError), strict_guest():
        raise ConfigurationError("ours")


def test_the_place_is_the_users_line_and_not_the_librarys():
    with pytest.raises(ValueError, match="coroutine") as caught:
        asyncio.run(None)
    assert "test_guests.py" in place_of(caught.value)


def test_a_child_that_a_guest_forks_may_end_as_it_likes():
    with guest():
        child = os.fork()
        if child == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_child_that_a_guest_forks_may_become_another_program():
    with guest():
        child = os.fork()
        if child == 0:
            os.execv("/bin/false", ["false"])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_another_thread_of_a_program_may_end_it_while_a_guest_runs():
    code = (
        "import os, threading\nfrom is_db_bootstrap.guests import guest\n"
        "with guest():\n"
        "    thread = threading.Thread(target=os._exit, args=(7,))\n"
        "    thread.start()\n"
        "    thread.join()\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 7


def test_exits_are_put_back_when_the_last_guest_has_gone():
    before = os._exit
    with guest(), guest():
        assert os._exit is not before
    assert os._exit is before


def test_what_fails_in_a_library_names_the_line_of_an_installed_revision_too(tmp_path, monkeypatch):
    library, revision = tmp_path / "library.py", tmp_path / "revision.py"
    library.write_text("def boom():\n    1 / 0\n")
    revision.write_text("import library\n\ndef upgrade():\n    library.boom()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("is_db_bootstrap.guests._is_installed", lambda name: tmp_path.name in name)
    names = {}
    exec(compile(revision.read_text(), revision, "exec"), names)
    with pytest.raises(ZeroDivisionError) as raised:
        names["upgrade"]()
    # The frame of this test is the user's own code too, and installed by nobody.
    trace = raised.value.with_traceback(raised.tb.tb_next)
    assert place_of(trace) == f" ({library}, line 2, called from {revision}, line 4)"
