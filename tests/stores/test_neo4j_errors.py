"""What the codes of Neo4j mean to a run; those that cannot be had from a server of one member."""

from __future__ import annotations

import pytest
from neo4j import exceptions as raised

from is_db_bootstrap.errors import (
    AccessDenied,
    ChangeFailed,
    StoreBusy,
    StoreConflict,
    StoreUnavailable,
)
from is_db_bootstrap.results import Change
from is_db_bootstrap.stores.neo4j.errors import first_line, translated

CHANGE = Change("V001__a.cypher", "cypher")


def of(code: str, change: Change | None = None) -> type[Exception]:
    exc = raised.Neo4jError._hydrate_neo4j(code=code, message="told")
    return type(
        translated(
            exc, "bolt://h:7687", "V001__a.cypher, statement 1 (line 1)" if change else "", change
        )
    )


@pytest.mark.parametrize(
    ("code", "looking", "applying"),
    [
        ("Neo.ClientError.Transaction.TransactionTimedOut", StoreUnavailable, ChangeFailed),
        (
            "Neo.ClientError.Transaction.TransactionTimedOutClientConfiguration",
            StoreUnavailable,
            ChangeFailed,
        ),
        ("Neo.TransientError.General.DatabaseUnavailable", StoreUnavailable, StoreUnavailable),
        ("Neo.TransientError.Database.DatabaseUnavailable", StoreUnavailable, StoreUnavailable),
        ("Neo.TransientError.Transaction.DeadlockDetected", StoreBusy, StoreBusy),
        ("Neo.TransientError.Transaction.LockClientStopped", StoreUnavailable, StoreUnavailable),
        ("Neo.TransientError.Transaction.Terminated", StoreUnavailable, StoreUnavailable),
        ("Neo.TransientError.General.TransactionMemoryLimit", StoreUnavailable, ChangeFailed),
        ("Neo.ClientError.Cluster.NotALeader", StoreUnavailable, StoreUnavailable),
        ("Neo.ClientError.General.ForbiddenOnReadOnlyDatabase", StoreUnavailable, StoreUnavailable),
        ("Neo.ClientError.Security.AuthenticationRateLimit", AccessDenied, AccessDenied),
        ("Neo.ClientError.Statement.SyntaxError", StoreConflict, ChangeFailed),
    ],
)
def test_each_code_is_waited_for_or_permanent(code, looking, applying):
    assert of(code) is looking
    assert of(code, CHANGE) is applying


@pytest.mark.parametrize(
    "kind", [raised.ServiceUnavailable, raised.SessionExpired, raised.IncompleteCommit]
)
def test_a_lost_connection_is_unavailable_and_names_the_file(kind):
    error = translated(
        kind("gone"), "bolt://h:7687", "V001__a.cypher, statement 1 (line 1)", CHANGE
    )
    assert type(error) is StoreUnavailable
    assert error.subject == "V001__a.cypher"


def test_the_message_has_the_statement_and_the_subject_the_file_alone():
    exc = raised.Neo4jError._hydrate_neo4j(
        code="Neo.ClientError.Statement.SyntaxError",
        message='told (line 1, column 2 (offset: 1))\n"RETRUN 1"\n ^',
    )
    error = translated(exc, "bolt://h:7687", "V001__a.cypher, statement 1 (line 1)", CHANGE)
    assert isinstance(error, ChangeFailed)
    assert error.subject == "V001__a.cypher"
    assert error.message.startswith(
        "V001__a.cypher, statement 1 (line 1) was refused: told (line 1"
    )


def test_a_message_shows_no_class_of_the_driver():
    said = (
        "Timed out: ResolvedIPv4Address(('127.0.0.1', 37493)) (deadline "
        "Deadline(timeout=0.8009644410003602))"
    )
    assert first_line(Exception(said)) == "Timed out: 127.0.0.1:37493"
