"""Whoever asks for JSON gets JSON on stdout, and nothing else.

That holds on failure too, and when nothing is to do.
tests/edges/test_options.py walks all commands.
"""

import json

import pytest

from commands import run_here

pytestmark = pytest.mark.postgres

NOBODY = "postgresql://u:p@127.0.0.1:1/x"
#: Each command that takes `--output`, and how it is called here.
CALLS = {
    "adopt": ("--timeout", "0.2"),
    "apply": ("--timeout", "0.2"),
    "plan": ("--timeout", "0.2"),
    "verify": ("--timeout", "0.2"),
    "wait": ("--timeout", "0.2"),
    "status": ("--timeout", "0.2"),
    "doctor": ("--timeout", "0.2"),
    "selftest": ("--timeout", "0.2"),
    "repair": ("--timeout", "0.2", "--yes"),
    "setup": ("--timeout", "0.2", "--yes"),
    "revision": ("--timeout", "0.2", "-m", "more"),
}
#: Those that ask another store, and the key of the document that they give.
OF_ANOTHER_STORE = {
    "vector prune": ("milvus", "dropped", "--yes"),
    "vector rollback": ("milvus", "moved"),
    "vector status": ("milvus", "collections"),
    "vector upgrade": ("milvus", "upgraded"),
    "redis audit": ("redis", "exit_code"),
    "redis fix-ttl": ("redis", "patterns", "--yes"),
    "unlock": ("redis", "removed", "redis", "--yes"),
}
#: These ask no store. `local up` starts servers: tests/edges/test_local.py has it.
WITHOUT_STORE = {
    "blueprints": (),
    "grants": ("-b", "agentic_projects"),
    "local status": ("--data-dir", "none"),
    "local up": None,
}


def document(text):
    """The one document in `text`, None when there is no text at all."""
    return json.loads(text) if text else None


def environment(url):
    return {"PATH": "/usr/bin:/bin", "POSTGRES_URL": url, "HOME": "/nonexistent"}


@pytest.mark.parametrize("name", CALLS)
def test_json_is_all_that_stdout_gets_when_the_call_is_refused(tmp_path, name):
    args = (name, *CALLS[name], "-o", "json", "-b", "no_such_blueprint")
    code, out, err = run_here(args, tmp_path, environment(NOBODY))
    assert (code, document(out)["exit_code"]) == (2, 2)
    assert "no_such_blueprint" in document(out)["error"]["message"]
    assert "no_such_blueprint" in err


@pytest.mark.parametrize("name", CALLS)
def test_json_is_all_that_stdout_gets_when_the_store_is_down(tmp_path, name):
    args = (name, *CALLS[name], "-o", "json", "-b", "agentic_projects")
    code, out, err = run_here(args, tmp_path, environment(NOBODY))
    assert code in {1, 4}
    assert "does not answer" in err
    assert document(out)["exit_code"] == code


@pytest.mark.parametrize("name", CALLS)
def test_json_is_all_that_stdout_gets_when_nothing_is_to_do(tmp_path, migrated, name):
    url = migrated("agentic_projects")
    patient = ["60" if word == "0.2" else word for word in CALLS[name]]
    if name == "adopt":
        patient.append("--yes")  # nobody has recorded yet what was converged together
    args = (name, *patient, "-o", "json", "-b", "agentic_projects")
    code, out, err = run_here(args, tmp_path, environment(url))
    assert code == 0, err
    found = document(out)
    if name == "revision":
        assert found["files"] == found["operations"] == []
    else:
        assert (found["blueprint"], found["exit_code"]) == ("agentic_projects", 0)


def call_of_another(name, folder, url, blueprint="novel_genesis", patience="20"):
    store, _, *args = OF_ANOTHER_STORE[name]
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", f"{store.upper()}_URL": url}
    environ["IS_DB_BOOTSTRAP_CONNECT_TIMEOUT"] = patience
    return run_here((*name.split(), *args, "-o", "json", "-b", blueprint), folder, environ)


@pytest.mark.parametrize("name", OF_ANOTHER_STORE)
def test_json_is_all_that_stdout_gets_when_another_store_is_down(tmp_path, name):
    url = {"milvus": "http://127.0.0.1:1", "redis": "redis://127.0.0.1:1"}
    nobody = url[OF_ANOTHER_STORE[name][0]]
    code, out, err = call_of_another(name, tmp_path, nobody, "no_such_blueprint")
    assert (code, document(out)["exit_code"], "no_such_blueprint" in err) == (2, 2, True), err
    code, out, err = call_of_another(name, tmp_path, nobody, patience="1")
    assert (code, "does not answer" in err) == (4, True), err
    assert document(out)["error"]["kind"] == "unavailable"


@pytest.mark.parametrize("name", OF_ANOTHER_STORE)
def test_json_is_all_that_stdout_gets_from_another_store(tmp_path, name, milvus_url, redis_url):
    store, key, *_ = OF_ANOTHER_STORE[name]
    url = {"milvus": milvus_url, "redis": redis_url}[store]
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", f"{store.upper()}_URL": url}
    apply = ("apply", "--only", store, "-b", "novel_genesis")
    assert run_here(apply, tmp_path, environ)[0] == 0
    code, out, err = call_of_another(name, tmp_path, url)
    if name == "vector rollback":  # there is no version before
        assert (code, document(out)["error"]["kind"]) == (6, "conflict"), err
        assert "no earlier version" in err
    else:
        assert (code, key in document(out)) == (0, True), err


@pytest.mark.parametrize("name", [name for name, args in WITHOUT_STORE.items() if args is not None])
def test_json_is_all_that_stdout_gets_without_a_store(tmp_path, name):
    args = (*name.split(), *WITHOUT_STORE[name], "-o", "json")
    code, out, _ = run_here(args, tmp_path, environment(NOBODY))
    assert (code, document(out) is None) == (0, False)


def test_what_setup_tells_a_person_goes_to_stderr(tmp_path, postgres_url):
    args = ("setup", "--yes", "-o", "json", "-b", "agentic_projects")
    code, out, err = run_here(args, tmp_path, environment(postgres_url))
    assert code == 0
    [store] = document(out)["stores"]
    assert [change["name"] for change in store["changes"]] == ["agt_0001", "agt_0002", "agt_0003"]
    assert "Step 4 of 4: Verification" in err


def test_an_output_that_would_not_be_obeyed_is_refused(tmp_path):
    args = ("blueprints", "-o", "json", "show", "agentic_projects")
    code, out, err = run_here(args, tmp_path, environment(NOBODY))
    assert (code, document(out)["exit_code"]) == (2, 2)
    assert "--format json" in err


def test_a_self_test_that_ends_before_its_first_check_says_selftest(tmp_path):
    call = ("selftest", "--timeout", "0.2", "-b", "agentic_projects")
    _, out, _ = run_here(call, tmp_path, environment(NOBODY))
    assert "agentic_projects: selftest failed" in out
    _, out, _ = run_here((*call, "-o", "json"), tmp_path, environment(NOBODY))
    assert document(out)["mode"] == "selftest"
