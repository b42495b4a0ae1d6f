"""A Milvus that asks for a password and limits the rate of calls."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import pytest

from certificates import Certificates
from is_db_bootstrap.blueprints import novel_genesis
from is_db_bootstrap.engine import BootstrapOrchestrator
from is_db_bootstrap.engine.retry import RetryPolicy
from is_db_bootstrap.errors import AccessDenied
from is_db_bootstrap.grant_list import GrantWish, Purpose
from is_db_bootstrap.results import Mode, Outcome
from is_db_bootstrap.rungs import Rung
from is_db_bootstrap.settings import StoreUrl
from is_db_bootstrap.stores.milvus.bootstrapper import MilvusBootstrapper
from servers import milvus_client
from tls_front import TlsFront

pytestmark = pytest.mark.milvus


def run(url, mode=Mode.APPLY, **options):
    return BootstrapOrchestrator([MilvusBootstrapper(url, novel_genesis.BLUEPRINT)], **options).run(
        mode
    )


@pytest.fixture(scope="module")
def start(farm):
    """A server that is starting, what was told while waiting for it, and how that ended.

    Two servers of 2.3 cannot run beside each other: the peer port of their etcd is fixed.
    """
    farm.shared("milvus", "2.3").stop()
    server = farm.make("milvus", "2.3-guarded", start=False)
    server.start()
    told = []
    yield (
        StoreUrl.parse("milvus", server.url),
        told,
        run(server.url, Mode.WAIT, observers=[told.append]),
    )
    server.kill()


@pytest.fixture(scope="module")
def guarded(start):
    return start[0]


@pytest.fixture(scope="module")
def root(guarded):
    client = milvus_client(guarded.reveal())
    yield client
    client.close()


def test_a_server_that_is_starting_is_waited_for(start):
    _, told, result = start
    assert result.ok, result
    waits = [e.message for e in told if e.kind == "waiting"]
    assert waits
    assert all("does not answer" in message or "not ready yet" in message for message in waits)


@pytest.mark.parametrize(
    ("username", "password"), [("root", "wrong"), ("nobody", "x"), ("", ""), ("", "token")]
)
def test_wrong_credentials_are_denied_and_tried_once(guarded, username, password):
    events = []
    result = run(replace(guarded, username=username, password=password), observers=[events.append])
    assert result.exit_code == 5
    assert isinstance(result.stores[0].exception, AccessDenied)
    assert "MILVUS_PASSWORD" in result.stores[0].error.hint
    assert not [e for e in events if e.kind == "waiting"]


#: Seconds within which a wrong password is told, with what other work may add.
AT_ONCE_S = 6.0


@pytest.mark.parametrize("has_tls", [False, True])
def test_a_wrong_password_ends_the_wait_within_seconds(guarded, tmp_path, has_tls):
    """Its client would try for minutes by itself."""
    url, front = replace(guarded, password="wrong"), None
    if has_tls:
        certificates = Certificates.make(tmp_path)
        front = TlsFront(url.port(0), certificates.pem("server"), certificates.key("server"))
        place = f"localhost:{front.port}"
        url = replace(url, scheme="https", hosts=place, ca_file=certificates.pem("ours"))
    begun = time.monotonic()
    try:
        result = run(url, Mode.WAIT, climbs=True, retry=RetryPolicy(deadline_s=60))
    finally:
        if front is not None:
            front.close()
    assert time.monotonic() - begun < AT_ONCE_S
    assert result.exit_code == 5, result
    assert result.stores[0].rungs[-1].rung is Rung.LOGIN
    assert result.stores[0].rungs[-1].is_permanent


def test_a_missing_privilege_is_told_with_those_that_are_needed(guarded, root):
    root.create_user("weak", "weak-password")
    result = run(replace(guarded, username="weak", password="weak-password"))
    assert result.exit_code == 5
    assert "PrivilegeDescribeAlias: permission deny to weak" in result.stores[0].error.message
    assert "needs ShowCollections" in result.stores[0].error.hint


@pytest.mark.parametrize("password", ["p%ss@:/#?word", "pä ss wörd"])
def test_a_password_may_hold_any_character(guarded, root, password):
    root.create_user("odd", password)
    try:
        url = replace(guarded, username="odd", password=password)
        assert MilvusBootstrapper(url, novel_genesis.BLUEPRINT).ping(5)
        assert MilvusBootstrapper(url.reveal(), novel_genesis.BLUEPRINT).ping(5)
    finally:
        root.drop_user("odd")


@pytest.mark.parametrize("form", ["http://:root%3AMilvus@{}", "http://root%3AMilvus@{}"])
def test_a_token_is_taken_alone_and_never_shown(guarded, form):
    store = MilvusBootstrapper(form.format(guarded.hosts), novel_genesis.BLUEPRINT)
    assert store.ping(5)
    assert "Milvus" not in store.target


def test_a_limited_rate_is_waited_for(guarded):
    events = []
    result = run(guarded, observers=[events.append])
    assert result.stores[0].outcome is Outcome.CHANGED, result
    assert any("limits the rate of such calls" in e.message for e in events)
    assert run(guarded).stores[0].outcome is Outcome.UNCHANGED


# --- roles that have just what `grants` prints


BLUEPRINT = novel_genesis.BLUEPRINT


def listed(purpose):
    """The calls that are printed for Milvus 2.3, without those that make the role itself."""
    store = MilvusBootstrapper("http://nowhere", BLUEPRINT)
    found = store.grants(GrantWish("ROLE", frozenset({purpose}))).grants
    return [each.statement for each in found if "grant_privilege" in each.statement]


@pytest.fixture
def user_with(guarded, root):
    """Makes a user whose role has what some calls give it. Returns the user's address."""
    made = []

    def make(statements):
        role = f"role_{uuid.uuid4().hex[:8]}"
        made.append(role)
        root.create_user(role, "a-word-of-tests")
        head = MilvusBootstrapper(guarded, BLUEPRINT).grants(GrantWish(role, frozenset()))
        for statement in (head.grants[0].statement, head.grants[1].statement, *statements):
            eval(statement.replace("ROLE", role), {"client": root})
        return replace(guarded, username=role, password="a-word-of-tests")

    yield make
    for role in made:
        root.drop_user(role)
        for held in root.describe_role(role)["privileges"]:
            keys = ("object_type", "privilege", "object_name", "db_name")
            root.revoke_privilege(role_name=role, **{key: held[key] for key in keys})
        root.drop_role(role)


def run_when_granted(url, mode, is_expected):
    """A run after the server has taken in what was granted, which takes it a moment."""
    deadline = time.monotonic() + 60
    while True:
        result = run(url, mode)
        if is_expected(result) or time.monotonic() > deadline:
            return result
        time.sleep(0.05)


def drop_all(root):
    for collection in root.list_collections():
        for alias in root.list_aliases(collection_name=collection)["aliases"]:
            root.drop_alias(alias)
        root.drop_collection(collection)


def test_roles_of_milvus_with_just_the_printed_privileges_do_all(user_with, root):
    drop_all(root)
    url = user_with(listed(Purpose.APPLY))
    first = run_when_granted(url, Mode.APPLY, lambda result: result.ok)
    assert first.outcome is Outcome.CHANGED, first
    assert root.list_collections() == [BLUEPRINT.collections[0].name]
    assert run(url).outcome is Outcome.UNCHANGED
    reader = user_with(listed(Purpose.VERIFY))
    assert run_when_granted(reader, Mode.VERIFY, lambda result: result.ok).ok
    for mode in (Mode.WAIT, Mode.PLAN, Mode.VERIFY, Mode.STATUS):
        assert run(url, mode).ok
        assert run(reader, mode).ok
    for lacking in listed(Purpose.VERIFY):
        if "GetLoad" in lacking:
            continue  # for newer versions
        if is_for_a_missing_alias(lacking):
            continue  # the alias is there
        url = user_with([each for each in listed(Purpose.VERIFY) if each != lacking])
        told = lacking.replace("ROLE", url.username)
        result = run_when_granted(url, Mode.VERIFY, lambda result, told=told: names(result, told))
        assert (result.exit_code, names(result, told)) == (5, True), result


def is_for_a_missing_alias(statement):
    """Whether a privilege is needed only while an alias is missing."""
    return any(f"privilege='{name}'" in statement for name in MISSING_ALIAS)


MISSING_ALIAS = ("GetStatistics", "Query", "ListAliases")


def test_a_role_with_just_the_printed_privileges_completes_a_run_killed_before_its_alias(
    user_with, root
):
    drop_all(root)
    url = user_with(listed(Purpose.APPLY))
    assert run_when_granted(url, Mode.APPLY, lambda result: result.ok).ok
    [declared] = BLUEPRINT.collections
    reader = user_with(listed(Purpose.VERIFY))
    for release in (lambda: None, lambda: root.release_collection(declared.name)):
        release()
        root.drop_alias(declared.alias)
        looked = run_when_granted(reader, Mode.VERIFY, lambda result: result.exit_code == 3)
        assert looked.exit_code == 3, looked
        result = run(url)
        assert (result.exit_code, result.outcome) == (0, Outcome.CHANGED), result


def names(result, statement):
    """Whether this statement, and no other one, is asked for."""
    hint = result.stores[0].error.hint if result.stores[0].error else ""
    return statement in hint and hint.count("client.grant_privilege") == 1


def needed_by_a_first_run():
    """What `apply` needs on an empty Milvus 2.3."""
    is_looked_at = (each for each in listed(Purpose.APPLY) if "Get" not in each)
    return [each for each in is_looked_at if not is_for_a_missing_alias(each)]


@pytest.mark.parametrize("lacking", needed_by_a_first_run())
def test_apply_on_milvus_without_one_of_the_privileges_names_it_and_makes_nothing(
    user_with, root, lacking
):
    drop_all(root)
    url = user_with([each for each in listed(Purpose.APPLY) if each != lacking])
    told = lacking.replace("ROLE", url.username)
    result = run_when_granted(url, Mode.APPLY, lambda result: names(result, told))
    assert (result.exit_code, names(result, told)) == (5, True), result
    assert root.list_collections() == []
