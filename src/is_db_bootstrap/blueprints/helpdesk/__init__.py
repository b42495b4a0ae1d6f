"""Persistence for a customer-service desk.

PostgreSQL holds the records. Redis holds copies of them, and short-lived keys of the application.
"""

from is_db_bootstrap import files
from is_db_bootstrap.blueprint import Blueprint
from is_db_bootstrap.blueprints.helpdesk import _keys

BLUEPRINT = Blueprint(
    name="helpdesk",
    summary=(
        "A customer-service desk: "
        "tickets, agents, an audit log, archived sessions, e-mails, with copies in Redis."
    ),
    migrations=files.migrations("helpdesk"),
    models="is_db_bootstrap.blueprints.helpdesk.models",
    keys=_keys.KEYS,
)
