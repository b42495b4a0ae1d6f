"""Every command in surroundings that are not as usual: it ends with a documented code and one
message that names what is wrong, and never with a traceback.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from commands import run_here
from pages import ROOT
from stops import sentences_with_two_stops

#: Where nobody is, for all four stores.
NOWHERE = {
    "POSTGRES_URL": "postgresql://someone:s3cret@127.0.0.1:1/nowhere",
    "NEO4J_URL": "bolt://127.0.0.1:1",
    "MILVUS_URL": "http://127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}
#: A command that asks all four stores, one that asks none, and how each ends.
COMMANDS = {"status -b novel_genesis -o json": 4, "check -b novel_genesis": 0}
DOCUMENTED = {
    int(number)
    for number in re.findall(
        r"^\| (\d+) \|", (ROOT / "docs/reference/exit-codes.md").read_text(), re.MULTILINE
    )
}
#: A uid that nobody has. With this capability it may still read the checkout below /root.
NO_USER = (
    "setpriv",
    "--reuid",
    "12345",
    "--clear-groups",
    "--inh-caps",
    "+dac_read_search",
    "--ambient-caps",
    "+dac_read_search",
)
#: A mount namespace of its own with a file system of a few pages, or one that is read only.
TINY = (
    "unshare",
    "-m",
    "bash",
    "-c",
    'mount -t tmpfs -o size=16k x . && cd "$PWD" && exec "$@"',
    "-",
)
READ_ONLY = (
    "unshare",
    "-m",
    "bash",
    "-c",
    'mount -t tmpfs -o ro x . && cd "$PWD" && exec "$@"',
    "-",
)


def is_allowed(*before):
    return shutil.which(before[0]) is not None and (
        subprocess.run([*before, "true"], capture_output=True, check=False, cwd="/mnt").returncode
        == 0
    )


needs_uid = pytest.mark.skipif(not is_allowed(*NO_USER), reason="needs root, and setpriv")
needs_mount = pytest.mark.skipif(not is_allowed(*TINY), reason="needs root, and unshare")


def shell(script):
    """What runs a command behind some words of bash."""
    return ("bash", "-c", f'{script} exec "$@"', "-")


def run(words, folder, *, before=(), flags=(), environ=None, stdin=subprocess.DEVNULL):
    """The command as a process in `folder`: exit code, stdout, stderr."""
    words = words.split() if isinstance(words, str) else words
    done = subprocess.run(
        [*before, sys.executable, *flags, "-m", "is_db_bootstrap", *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **NOWHERE, **(environ or {})},
        stdin=stdin,
        capture_output=True,
        timeout=120,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in out + err, err
    assert "Exception ignored" not in err
    assert not sentences_with_two_stops(err), err
    assert "s3cret" not in out + err
    assert done.returncode in DOCUMENTED, (done.returncode, err)
    return done.returncode, out, err


# --- surroundings that change nothing

HARMLESS = {
    "a uid without an entry in passwd": {"before": NO_USER},
    "no home": {"environ": {"HOME": "/nonexistent"}},
    "no place for temporary files": {"environ": {"TMPDIR": "/nonexistent"}},
    "a broken locale": {"environ": {"LANG": "xx_YY.nothing", "LC_ALL": "xx_YY.nothing"}},
    "ASCII": {"environ": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}},
    "an unknown terminal of no width": {"environ": {"TERM": "unknown", "COLUMNS": "0"}},
    "a terminal of absurd width": {"environ": {"COLUMNS": "9" * 30, "LINES": "-5"}},
    "warnings are errors": {"flags": ("-W", "error")},
    "optimised": {"environ": {"PYTHONOPTIMIZE": "2"}},
    "isolated": {"flags": ("-I",)},
    "a warning filter that is none": {"environ": {"PYTHONWARNINGS": "nonsense::::::"}},
    "stdin closed": {"before": shell("exec <&-;")},
    "SIGPIPE ignored": {"before": shell("trap '' PIPE;")},
    "a working directory that is gone": {"before": shell('rmdir "$PWD";')},
    "a .env file that is another program's": {},
    "a .env file that is no text": {},
}
DOTENV = {
    "a .env file that is another program's": b"MILVUS_URI=http://example.invalid\nREDIS_URL=x\n",
    "a .env file that is no text": b"MILVUS_URI=\xff\xfe\x00\n",
}


@pytest.mark.parametrize("where", HARMLESS)
def test_strange_surroundings_change_no_ending(where, tmp_path):
    surroundings = HARMLESS[where]
    if surroundings.get("before") == NO_USER and not is_allowed(*NO_USER):
        pytest.skip("needs root, and setpriv")
    for number, (words, code) in enumerate(COMMANDS.items()):
        folder = tmp_path / str(number)
        folder.mkdir(0o777)
        if where in DOTENV:
            (folder / ".env").write_bytes(DOTENV[where])
        found, out, err = run(words, folder, **surroundings)
        assert found == code, (words, err)
        if "json" in words:
            messages = [store["error"]["message"] for store in json.loads(out)["stores"]]
            assert all("does not answer" in message for message in messages), messages


@pytest.mark.parametrize("text", DOTENV.values(), ids=["another program's", "no text"])
def test_a_client_reads_no_env_file_above_its_own_folder(tmp_path, text):
    """pymilvus looks for `.env` from its own folder upwards.

    A venv lies in its project's folder.
    """
    import pymilvus

    installed = Path(pymilvus.__file__).parents[1]
    site = tmp_path / "project" / "venv" / "site-packages"
    site.mkdir(parents=True)
    for name in ("pymilvus", "dotenv"):
        shutil.copytree(installed / name, site / name)
    (tmp_path / "project" / ".env").write_bytes(text.replace(b"REDIS_URL", b"SEEN_HERE"))
    code = (
        "from is_db_bootstrap import client_imports\n"
        "import os, sys\n"
        "client_imports.import_module('is_db_bootstrap.stores.milvus.bootstrapper')\n"
        "print(sys.modules['pymilvus'].__file__, 'SEEN_HERE' in os.environ,\n"
        "      'PYTHON_DOTENV_DISABLED' in os.environ)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == [str(site / "pymilvus/__init__.py"), "False", "False"], (
        done.stderr
    )


# --- surroundings that keep a command from its work


def name_of_bytes(folder, name=b"odd\xff"):
    """A path of bytes that are no UTF-8."""
    return os.fsdecode(os.fsencode(folder) + b"/" + name)


BAD_PATHS = {
    "--config": "status -b novel_genesis -o json --config",
    "--env-file": "status -b novel_genesis -o json --env-file",
    "--blueprint": "verify -o json --blueprint",
    "--blueprint of migrate": "migrate history -o json --blueprint",
}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize("option", BAD_PATHS)
def test_a_path_that_is_no_utf_8_is_named_on_stderr_in_json_and_in_the_log(
    option, locale, tmp_path
):
    path = name_of_bytes(tmp_path)
    log = tmp_path / "log"
    words = [*BAD_PATHS[option].split(), path, "--termination-log", str(log)]
    environ = {"LC_ALL": locale, "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code, out, err = run(words, tmp_path, environ=environ)
    assert code == 2
    assert "odd\\udcff" in err
    assert "odd\\udcff" in json.loads(out)["error"]["message"]
    assert "odd\\udcff" in json.loads(log.read_text())["error"]["message"]


def test_a_blueprint_and_a_log_below_a_folder_that_is_no_utf_8_work(tmp_path):
    folder = Path(name_of_bytes(tmp_path))
    folder.mkdir()
    assert run("new own --stores redis", folder)[0] == 0
    blueprint = str(folder / "own")
    assert run(["check", "-b", blueprint], folder)[0] == 0
    log = folder / "log"
    code, out, _ = run(
        ["status", "-b", blueprint, "-o", "json", "--termination-log", str(log)], folder
    )
    assert (code, json.loads(out)["exit_code"]) == (4, 4)
    assert json.loads(log.read_text())["exit_code"] == 4


#: What is in the way, the exit code, and the words that name object and cause.
REFUSED = {
    "a config that is a folder": ("status --config .", {}, 2, ["--config", "is a directory"]),
    "an env file that is a folder": ("status --env-file .", {}, 2, ["--env-file", "directory"]),
    "a log that is a folder": ("status --termination-log .", {}, 2, ["--termination-log"]),
    "a blueprint that holds none": ("check -b .", {}, 2, ["holds no blueprint"]),
    "a config that cannot be read": (
        "status --config /proc/self/mem",
        {},
        2,
        ["/proc/self/mem", "cannot be read"],
    ),
    "an env file that cannot be read": (
        "status --env-file /proc/self/mem",
        {},
        2,
        ["/proc/self/mem", "cannot be read"],
    ),
    "too few files": (
        "status -b novel_genesis",
        {"before": shell("ulimit -n 20;")},
        2,
        ["may open 20 files", "ulimit -n 1024"],
    ),
    "a working directory that is gone": (
        "new own",
        {"before": shell('rmdir "$PWD";')},
        2,
        ["The working directory is gone", "Change to a folder"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_in_the_way_is_named(what, tmp_path):
    words, surroundings, code, named = REFUSED[what]
    folder = tmp_path / "here"
    folder.mkdir()
    found, _, err = run(words, folder, **surroundings)
    assert found == code, err
    assert all(word in err for word in named), err


@needs_uid
@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("local up", "Set HOME or IS_DB_BOOTSTRAP_DATA"),
        ("local status", "Set HOME or IS_DB_BOOTSTRAP_DATA"),
        ("local down", "Set HOME or IS_DB_BOOTSTRAP_DATA"),
        ("local status --data-dir ~/x", "Give an absolute path"),
        ("local up --data-dir /not_ours", "/not_ours cannot be used: Permission denied"),
        ("new own", "cannot be written: Permission denied"),
    ],
)
def test_a_user_without_a_home_or_a_right_is_told_what_to_give(words, named, tmp_path):
    code, _, err = run(words, tmp_path, before=NO_USER)
    assert code == (1 if words == "new own" else 2), err
    assert named in err
    assert len(err.splitlines()) == 1


@needs_mount
@pytest.mark.parametrize(("disk", "cause"), [(TINY, "No space left"), (READ_ONLY, "Read-only")])
def test_a_folder_that_cannot_be_written_is_not_left_half_written(disk, cause, tmp_path):
    ls = "; code=$?; ls -A; exit $code"
    before = [word.replace('exec "$@"', f'"$@"{ls}') for word in disk]
    code, out, err = run("new own", tmp_path, before=before)
    assert (code, out) == (1, ""), (out, err)
    assert cause in err
    assert "/own" in err
    assert "No file was left" in err


@needs_mount
def test_a_full_disk_below_a_local_stack_is_told_with_the_servers_own_words(tmp_path):
    mount = 'mount -t tmpfs -o size=2m x /mnt && exec "$@"'  # where `nobody` may go
    before = ("unshare", "-m", "bash", "-c", mount, "-")
    code, out, err = run("local up --data-dir /mnt/stack", tmp_path, before=before)
    assert (code, out) == (4, "")
    assert "No space left on device" in err
    assert "run again" in err


@pytest.mark.parametrize("module", ["click", "is_db_bootstrap.cli"])
def test_a_ctrl_c_while_the_command_is_imported_ends_it_like_every_other(tmp_path, module):
    """The import of `module` sends the signal, so that it comes in time on every machine."""
    hook = (
        "import os, signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
    )
    (tmp_path / "sitecustomize.py").write_text(hook)
    code, out, err = run("status", tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    assert (code, out) == (130, "")
    assert err == "is-db-bootstrap: interrupted before it began. Run again.\n"


@pytest.mark.parametrize(
    "command", ["apply", "plan", "repair", "selftest", "status", "verify", "wait"]
)
def test_without_any_time_to_wait_each_store_is_still_asked_once(command, tmp_path):
    args = [command, "-b", "novel_genesis", "--timeout", "0", "-o", "json"]
    code, out, err = run_here(args, tmp_path, NOWHERE)
    assert code == 4, err
    kinds = [store["error"]["kind"] for store in json.loads(out)["stores"]]
    assert kinds == ["unavailable"] * 4
