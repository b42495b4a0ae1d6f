"""What Milvus answers in states that cannot be staged here, in the words of this tool."""

from __future__ import annotations

import os
import subprocess
import sys

import grpc
import pytest
from pymilvus.exceptions import MilvusException

from is_db_bootstrap.errors import (
    AccessDenied,
    ChangeFailed,
    ConfigurationError,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.milvus.errors import translated
from is_db_bootstrap.stores.tls_look import TlsFailed

TARGET = "http://vectors:19530"


class Refused(grpc.RpcError):
    """A gRPC error as the library raises it."""

    def __init__(self, code, details=""):
        super().__init__()
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


def behind(cause, context=None):
    """The error that pymilvus raises `from` itself, so that its cause is lost and only contexts are
    left.
    """
    try:
        try:
            raise cause
        except grpc.RpcError as exc:
            raise MilvusException(2, "Fail connecting to server") from (context or exc)
    except MilvusException as exc:
        exc.__cause__ = exc
        return exc


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (
            MilvusException(1, "proxy not healthy, StateCode=Abnormal"),
            StoreUnavailable,
            "not ready yet",
        ),  # milvus#16411
        (
            MilvusException(1, "Milvus Proxy is not ready yet. please wait"),
            StoreUnavailable,
            "not ready yet",
        ),  # milvus#16781
        (MilvusException(2, "service unavailable"), StoreUnavailable, "not ready yet"),
        (
            MilvusException(65535, "resource group node not enough [currentNodeNum=0]"),
            StoreBusy,
            "no query node",
        ),  # milvus#32014
        (
            MilvusException(49, "rejected by grpc RateLimiter"),
            StoreBusy,
            "limits the rate",
        ),  # milvus#19542
        (MilvusException(8, "rate limit exceeded[rate=0]"), StoreBusy, "limits the rate"),
        (Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many"), StoreBusy, "limits the rate"),
        (MilvusException(9, "quota exceeded[reason=disk]"), StoreUnavailable, "refuses changes"),
        (
            MilvusException(800, "database not found[database=x]"),
            ConfigurationError,
            "no such database",
        ),
        (MilvusException(1, "database 'x' does not exist"), ConfigurationError, "no such database"),
        (
            Refused(grpc.StatusCode.UNIMPLEMENTED, "unknown method Connect"),
            StoreConflict,
            "pymilvus 3.0",
        ),
        (
            Refused(grpc.StatusCode.UNIMPLEMENTED, "unknown service milvus"),
            ConfigurationError,
            "another gRPC server",
        ),
        (
            Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
            StoreUnavailable,
            "does not answer",
        ),
        (
            Refused(grpc.StatusCode.UNAVAILABLE, "Connection refused"),
            StoreUnavailable,
            "does not answer",
        ),
        (
            behind(Refused(grpc.StatusCode.UNAVAILABLE, "Connection refused")),
            StoreUnavailable,
            "does not answer",
        ),
        (
            behind(Refused(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")),
            AccessDenied,
            "denied access",
        ),
        (
            behind(Refused(grpc.StatusCode.UNAVAILABLE, "CERTIFICATE_VERIFY_FAILED")),
            AccessDenied,
            "TLS",
        ),
        (MilvusException(1100, "invalid parameter"), StoreConflict, "refused a call"),
    ],
)
def test_each_answer_has_its_error(raised, kind, words):
    error = translated(raised, TARGET, "things_v1", None, "pymilvus 3.0, server 2.6")
    # Nobody has looked yet for the cause of a TLS that failed.
    assert type(error) in {kind, TlsFailed if kind is AccessDenied else kind}
    assert words in str(error)
    assert error.hint


def test_a_refusal_of_a_change_names_it():
    change = Change("things_v1.embedding", "index")
    error = translated(MilvusException(1100, "invalid nlist"), TARGET, change.name, change)
    assert isinstance(error, ChangeFailed)
    assert error.change is change
    assert "things_v1.embedding was refused: invalid nlist (code 1100)" in error.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILVUS_URI", "./milvus_demo.db"),
        ("MILVUS_DEFAULT_CONNECTION", "localhost"),
        ("MILVUS_CONN_TIMEOUT", "10s"),
    ],
)
def test_a_variable_of_another_program_does_not_end_the_import_of_the_client(tmp_path, name, value):
    (tmp_path / "blueprint.py").write_text(_SMALL, encoding="utf-8")
    words = ["plan", "-b", str(tmp_path), "--milvus-url", "http://127.0.0.1:1", "--timeout", "0.1"]
    done = subprocess.run(
        [sys.executable, "-m", "is_db_bootstrap", *words],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr


_SMALL = """\
from is_db_bootstrap.blueprint import Blueprint, Collection, Field, Index

FIELDS = (Field("id", "INT64", primary=True), Field("v", "FLOAT_VECTOR", dim=4))
INDEXES = (Index("v", "FLAT", "L2"),)
BLUEPRINT = Blueprint("small", "Small.", collections=(Collection("small_v1", FIELDS, INDEXES),))
"""
