"""Tables as comparable data, read from a live PostgreSQL, MariaDB or SQLite, and from SQLAlchemy
metadata.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy import inspect

#: What each engine shows for a type of the page (section 4 of the blueprint).
SHOWN = {
    "postgresql": {
        "INTEGER": "INTEGER",
        "BIGINT": "BIGINT",
        "DOUBLE": "DOUBLE PRECISION",
        "BOOLEAN": "BOOLEAN",
        "TEXT": "TEXT",
        "TIMESTAMP": "TIMESTAMP",
        "JSON": "JSONB",
    },
    "mysql": {
        "INTEGER": "INTEGER",
        "BIGINT": "BIGINT",
        "DOUBLE": "DOUBLE",
        "BOOLEAN": "TINYINT",
        "TEXT": "TEXT",
        "TIMESTAMP": "DATETIME(6)",
        "JSON": "LONGTEXT",
    },
    "sqlite": {
        "INTEGER": "INTEGER",
        "BIGINT": "BIGINT",
        "DOUBLE": "DOUBLE",
        "BOOLEAN": "BOOLEAN",
        "TEXT": "TEXT",
        "TIMESTAMP": "DATETIME",
        "JSON": "JSON",
    },
}


def declared(metadata, dialect):
    """What the engine `dialect` should show for these tables."""
    return {name: _declared_table(table, dialect) for name, table in metadata.tables.items()}


def _declared_table(table, dialect):
    return {
        "columns": {
            c.name: (_declared_type(c.type, dialect), c.nullable, _declared_default(c))
            for c in table.columns
        },
        "key": list(table.primary_key.columns.keys()),
        "references": {
            k.name: (k.column_keys[0], k.elements[0].target_fullname, k.ondelete)
            for k in table.foreign_key_constraints
        },
        "uniques": {
            c.name: list(c.columns.keys())
            for c in table.constraints
            if isinstance(c, sa.UniqueConstraint)
        },
        "indexes": {i.name: (list(i.columns.keys()), bool(i.unique)) for i in table.indexes},
        "checks": {
            c.type.name: sorted(c.type.enums) for c in table.columns if isinstance(c.type, sa.Enum)
        },
    }


def _declared_type(kind, dialect):
    if isinstance(kind, sa.Enum) or (isinstance(kind, sa.String) and not isinstance(kind, sa.Text)):
        return f"VARCHAR({kind.length})"
    names = {
        sa.Integer: "INTEGER",
        sa.BigInteger: "BIGINT",
        sa.Double: "DOUBLE",
        sa.Boolean: "BOOLEAN",
        sa.Text: "TEXT",
        sa.DateTime: "TIMESTAMP",
        sa.JSON: "JSON",
    }
    return SHOWN[dialect][names[type(kind)]]


def _declared_default(column):
    if column.server_default is None:
        return None
    return _plain(str(column.server_default.arg))


def live(connection):
    """What is there, apart from the version table."""
    inspector, dialect = inspect(connection), connection.dialect.name
    return {name: _live_table(inspector, name, dialect) for name in _in_order(inspector)}


def _in_order(inspector):
    return [name for name in inspector.get_table_names() if name != "alembic_version"]


def _live_table(inspector, table, dialect):
    unique = {
        u["name"]: u["column_names"]
        for u in inspector.get_unique_constraints(table)
        if u["name"].startswith("uq_")
    }
    return {
        "columns": {
            c["name"]: (_live_type(c["type"], dialect), c["nullable"], _live_default(c))
            for c in inspector.get_columns(table)
        },
        "key": inspector.get_pk_constraint(table)["constrained_columns"],
        "references": {
            k["name"]: (
                k["constrained_columns"][0],
                f"{k['referred_table']}.{k['referred_columns'][0]}",
                k["options"].get("ondelete"),
            )
            for k in inspector.get_foreign_keys(table)
        },
        "uniques": unique,
        "indexes": {
            i["name"]: (i["column_names"], bool(i["unique"]))
            for i in inspector.get_indexes(table)
            if i["name"].startswith("IDX_")
        },
        "checks": {
            c["name"]: sorted(re.findall(r"'([^']+)'", c["sqltext"]))
            for c in inspector.get_check_constraints(table)
            if c["name"] and c["name"].startswith("ck_")
        },
    }


def _live_type(kind, dialect):
    if dialect == "mysql" and type(kind).__name__ == "DATETIME":
        return f"DATETIME({kind.fsp})"
    text = str(kind.compile(dialect=None) if dialect == "sqlite" else kind.__class__.__name__)
    if isinstance(kind, sa.String) and kind.length and text.startswith("VARCHAR"):
        return f"VARCHAR({kind.length})"
    return {"DOUBLE_PRECISION": "DOUBLE PRECISION"}.get(text, text)


def _live_default(column):
    text = column["default"]
    if text is None or column.get("autoincrement") is True or text.startswith("nextval"):
        return None
    return _plain(text)


def _plain(text):
    """A default without what each engine adds: casts, quotes, brackets, its words for now and for
    truth.
    """
    text = re.sub(r"::[a-z ]+$", "", text.strip())
    if text.lower().strip("()") in {"now", "current_timestamp"} or re.fullmatch(
        r"current_timestamp(\(\d?\))?|now\(\)", text.lower()
    ):
        return "now"
    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
    return {"true": "1", "false": "0"}.get(text.lower(), text)
