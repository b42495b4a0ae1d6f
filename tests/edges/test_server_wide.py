"""Which statements a scratch database does not get, because they act on the whole server."""

import pytest

from is_db_bootstrap.stores.postgres.server_wide import server_wide

REFUSED = {
    "CREATE ROLE app": "CREATE ROLE",
    "CREATE TABLE t (id int);\n  drop   user app": "drop user",
    "/* first */ ALTER SYSTEM SET work_mem = '1GB'": "ALTER SYSTEM",
    "GRANT reader TO app": "GRANT reader TO",
    "DO $$ BEGIN EXECUTE 'CREATE ROLE app'; END $$": "CREATE ROLE",
    "SELECT pg_reload_conf()": "pg_reload_conf",
    "SELECT * FROM dblink('dbname=x', 'DELETE FROM t') AS t(id int)": "dblink",
}
TAKEN = [
    "COMMENT ON TABLE t IS 'create user accounts here; then grant them'",
    "CREATE TABLE users (id int) -- create user table",
    "INSERT INTO notes VALUES ('drop database')",
    "GRANT SELECT ON t TO app",
    "ALTER TABLE t ADD role text",
]


@pytest.mark.parametrize("text", REFUSED)
def test_a_statement_on_the_whole_server_is_recognised(text):
    assert server_wide(text) == REFUSED[text]


@pytest.mark.parametrize("text", TAKEN)
def test_words_of_such_a_statement_elsewhere_are_none(text):
    assert server_wide(text) == ""
