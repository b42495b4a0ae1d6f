"""Keys of novel_genesis: every pattern can be built, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import pytest

from is_db_bootstrap.blueprints.novel_genesis.keys import BUCKETS, KEYS, build_key

ID = "0190af3e-7c5b-7a00-8000-00000000000a"
GOOD = {
    "session_id": ID,
    "round_path": "2.1.10",
    "login_session_id": "42",
    "user_id": "u-7",
    "jti": "a_B-9",
    "refresh_hash": "0f" * 32,
    "bucket": "login",
    "ip": "192.0.2.1",
}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_ng_17_every_pattern_is_built_and_recognised(key):
    parts = {part: value for part, value in GOOD.items() if part in key.placeholders}
    built = build_key(key.name, **parts)
    assert [each.name for each in KEYS if each.matches(built)] == [key.name]


def test_ng_17_uuids_are_written_in_lower_case():
    wanted = f"lock:session:{ID}"
    assert build_key("session_lock", session_id=UUID(ID)) == wanted
    assert build_key("session_lock", session_id=ID.upper()) == wanted


@pytest.mark.parametrize(
    ("given", "written"),
    [("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001-0db8-0000-0000-0000-0000-0000-0001")],
)
def test_addresses_are_written_exploded(given, written):
    assert build_key("rate_limit_ip", ip=given, bucket="auth") == f"rate_limit:ip:{written}:auth"


@pytest.mark.parametrize(
    "bad", ["*", "a b", "a:b", "", "a\n", "ä", "x" * 65, True, None, 1.5, ["a"]]
)
def test_ng_17_bad_parts_are_refused(bad):
    for name in ("token_blacklist", "login_session_by_jti"):
        with pytest.raises(ValueError, match="jti"):
            build_key(name, jti=bad)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("session_lock", {"session_id": "{" + ID + "}"}),
        ("session_lock", {"session_id": ID.replace("-", "")}),
        ("dialogue_round", {"session_id": ID, "round_path": "01"}),
        ("dialogue_round", {"session_id": ID, "round_path": "1..2"}),
        ("dialogue_round", {"session_id": ID, "round_path": "1." * 32 + "1"}),
        ("login_session", {"login_session_id": "1" * 20}),
        ("login_session_by_refresh", {"refresh_hash": "0F" * 32}),
        ("rate_limit_user", {"user_id": "7", "bucket": "other"}),
        ("rate_limit_ip", {"ip": "fe80::1%eth0", "bucket": "login"}),
        ("rate_limit_ip", {"ip": "256.0.0.1", "bucket": "login"}),
        ("session_lock", {}),
        ("session_lock", {"session_id": ID, "more": "x"}),
        ("nothing", {}),
    ],
)
def test_ng_17_wrong_names_and_missing_surplus_or_unacceptable_parts_are_refused(name, parts):
    with pytest.raises(ValueError, match=r"\w"):
        build_key(name, **parts)


def test_there_are_twelve_patterns_and_all_of_them_expire():
    assert len({key.name for key in KEYS}) == 12
    assert all(key.longest_ttl for key in KEYS)
    assert BUCKETS["forgot_password"] == (3, 3600)
    with pytest.raises(TypeError):
        BUCKETS["login"] = (1, 1)


def test_building_keys_needs_no_client():
    code = (
        "import sys, is_db_bootstrap.blueprints.novel_genesis.keys; sys.exit('redis' in "
        "sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
