"""Where the stores are, who we are there, and how long we wait."""

from is_db_bootstrap.settings.address import DEFAULT_SOURCE, SCHEMES, StoreUrl
from is_db_bootstrap.settings.choice import Choice, chosen_blueprint
from is_db_bootstrap.settings.elsewhere import address_elsewhere
from is_db_bootstrap.settings.pool import pool_profile
from is_db_bootstrap.settings.run_options import RunOptions
from is_db_bootstrap.settings.secrets import read_secret
from is_db_bootstrap.settings.settings import (
    Identity,
    Settings,
    check_ca_file,
    ignored_version_tables,
)
from is_db_bootstrap.settings.sources import (
    echo,
    number,
    process_variable,
    set_process_variable,
)
from is_db_bootstrap.settings.timing import Timing

__all__ = [
    "DEFAULT_SOURCE",
    "SCHEMES",
    "Choice",
    "Identity",
    "RunOptions",
    "Settings",
    "StoreUrl",
    "Timing",
    "address_elsewhere",
    "check_ca_file",
    "chosen_blueprint",
    "echo",
    "ignored_version_tables",
    "number",
    "pool_profile",
    "process_variable",
    "read_secret",
    "set_process_variable",
]
