"""Which of a Neo4j server's words may be told everywhere, because they cannot hold values of rows.

What a server says of a failure often names values ("Text cannot be parsed to a Date
"anna@example""), under nearly every code, `SyntaxError` included, and in more forms than can be
listed. So there is a list of what is known to name only objects, texts of the statement and the
server itself. Everything else is told by code and GQL status; the whole text is then a detail, for
a person at a terminal.
"""

from __future__ import annotations

import re

#: Beginnings of codes whose messages are about connections, users, transactions and locks.
_SAFE_CODES = (
    "ClientError.Cluster.",
    "ClientError.General.ForbiddenOnReadOnlyDatabase",
    "ClientError.Procedure.ProcedureNotFound",
    "ClientError.Security.AuthenticationRateLimit",
    "ClientError.Security.CredentialsExpired",
    "ClientError.Statement.ParameterMissing",
    # Not all of this kind: what a transaction hook says (`TransactionHookFailed`) may name values.
    "ClientError.Transaction.ForbiddenDueToTransactionType",
    "ClientError.Transaction.LockClientStopped",
    "ClientError.Transaction.Terminated",
    "ClientError.Transaction.TransactionTimedOut",
    "TransientError.Cluster.",
    "TransientError.Database.",
    "TransientError.General.",
    "TransientError.Transaction.",
    # Of schema statements, whose names and definitions stand in the statement.
    "ClientError.Schema.ConstraintAlreadyExists",
    "ClientError.Schema.ConstraintWithNameAlreadyExists",
    "ClientError.Schema.EquivalentSchemaRuleAlreadyExists",
    "ClientError.Schema.IndexAlreadyExists",
    "ClientError.Schema.IndexWithNameAlreadyExists",
    "DatabaseError.Schema.ConstraintDropFailed",
    "DatabaseError.Schema.IndexDropFailed",
)
#: Whole messages without any value.
_SAFE_TEXTS = frozenset(
    {
        "/ by zero",
        "long overflow",
        "integer overflow",
        (
            "Cannot delete node that was created in this transaction, "
            "because it still has relationships."
        ),
    }
)
_NAME = r"`(?:[^`]|``)+`"
_OBJECT = r"(?:Node|Relationship)\(\d+\)"
#: Messages that are safe up to where the form ends; what follows are values.
_SAFE_BEGINNINGS = (
    re.compile(
        rf"{_OBJECT} already exists with (?:label|type) {_NAME} and propert(?:y|ies) {_NAME}(?= = )"
    ),
    re.compile(
        rf"Both {_OBJECT} and {_OBJECT} have the (?:label|type) {_NAME} "
        rf"and propert(?:y|ies) {_NAME}(?= = )"
    ),
    re.compile(rf"{_OBJECT} with (?:label|type) {_NAME} must have the propert(?:y|ies) {_NAME}"),
    re.compile(
        r"Unable to create Constraint\( name='[^']*', type='[A-Z_ ]+', schema=[^=]*? \)(?=:\s)"
    ),
    re.compile(
        r"Schema operation '\w+' on database '[^']*' is not allowed "
        r"for user '[^']*' with roles \[[^\]]*\]"
    ),
)
#: What the compiler of Cypher says, before a statement has read anything: it ends with the place in
#: the statement, and a copy of that line.
_COMPILED = re.compile(
    r"(?P<words>[^\r\n]* \(line \d+, column \d+ \(offset: \d+\)\))\r?\n.*", re.DOTALL
)
#: `condition - subcondition` of a GQL status, which are the standard's words; what follows them may
#: name values.
_STATUS = re.compile(r"error: (?P<words>[a-z][a-z ,-]+)(?:\. |\.?$)")


def safe_words(code: str, message: str) -> str:
    """What may be told of `message`, without a full stop; empty when nothing of it may be.

    `code` is the server's code without `Neo.`. "…" stands for the values that were left out.
    """
    if code.startswith(_SAFE_CODES) or message in _SAFE_TEXTS:
        return _one_line(message)
    compiled = _COMPILED.fullmatch(message) if code.startswith("ClientError.Statement.") else None
    if compiled:
        return _one_line(compiled["words"])
    for form in _SAFE_BEGINNINGS:
        found = form.match(message)
        if found:
            rest = message[found.end() :]
            return _one_line(found[0]) + (" = …" if rest.startswith(" = ") else _ending(rest))
    return ""


def status_words(description: str) -> str:
    """The standard's words of a GQL status, such as "data exception - invalid value type".

    Empty for none.
    """
    found = _STATUS.match(description)
    if found is None or "unexpected error" in found["words"]:
        return ""
    return found["words"]


def _ending(rest: str) -> str:
    return ": …" if rest.strip(".") else ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")
