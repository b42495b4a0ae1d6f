"""What of PostgreSQL's own catalogue is compared, walked column by column on real servers."""

from __future__ import annotations

import re
from importlib import resources

import psycopg
import pytest

from coverage_page import PAGE, coverage, page_with_tables
from is_db_bootstrap.stores.postgres.catalogue import all_kinds

COLUMNS = """
    SELECT c.relname, a.attname FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r'
"""
#: Kinds without a column: that an object is there is all that is told of it.
BY_NAME_ALONE = {"schema", "extension", "partition", "role"}
#: Kinds that another kind's block finds, or that have the columns of another one.
LIKE_ANOTHER = {
    "procedure",
    "sequence owner",
    "sequence grant",
}
#: Columns of which the query has no name, because a function of the server tells them.
TOLD_BY_FUNCTION = {
    "pg_constraint": "pg_get_constraintdef",
    "pg_index": "pg_get_indexdef",
    "pg_partitioned_table": "pg_get_partkeydef",
    "pg_trigger": "pg_get_triggerdef",
    "pg_rewrite": "pg_get_ruledef",
    "pg_statistic_ext": "pg_get_statisticsobjdef",
    "pg_proc": "pg_get_function_arguments",
    "pg_aggregate": "to_jsonb(a)",
}


def decided(columns):
    """Every column of a table that the list names, with repetitions."""
    reasons = columns.get("not_compared", {})
    return [
        *columns.get("identity", []),
        *columns.get("compared", {}),
        *(name for names in reasons.values() for name in names),
    ]


@pytest.mark.postgres
@pytest.mark.parametrize("version", ["14", "15", "16", "17", "18"])
def test_every_column_of_the_servers_catalogue_is_decided(farm, version):
    server = farm.shared("postgres", version)
    with psycopg.connect(f"{server.url}/postgres") as connection:
        found = connection.execute(COLUMNS).fetchall()
    listed = coverage()
    unknown_tables = {table for table, _ in found} - listed.keys()
    assert unknown_tables == set(), "add them to catalogue.toml, and decide what is compared"
    undecided = [
        f"{table}.{column}"
        for table, column in found
        if not isinstance(listed[table].get("not_compared"), str)
        and column not in decided(listed[table])
    ]
    assert undecided == []


def test_each_column_is_decided_once():
    twice = [
        f"{table}.{column}"
        for table, columns in coverage().items()
        if not isinstance(columns.get("not_compared"), str)
        for column in set(decided(columns))
        if decided(columns).count(column) > 1
    ]
    assert twice == []


def test_every_kind_of_the_query_is_in_the_list_and_the_other_way_round():
    listed = {
        kind
        for columns in coverage().values()
        for kinds in columns.get("compared", {}).values()
        for kind in kinds
    }
    assert listed | BY_NAME_ALONE | LIKE_ANOTHER == set(all_kinds())


def test_what_is_said_to_be_compared_is_in_the_query():
    package = "is_db_bootstrap.stores.postgres"
    query = resources.files(package).joinpath("catalogue.sql").read_text(encoding="utf-8")
    words = set(re.findall(r"\w+", query))
    missing = [
        f"{table}.{column}"
        for table, columns in coverage().items()
        for column in columns.get("compared", {})
        if column not in words and TOLD_BY_FUNCTION.get(table, "none") not in query
    ]
    assert missing == []


def test_the_page_says_what_the_list_says():
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with_tables(page), "run: python tests/support/coverage_page.py"
