"""One blueprint on many targets: the databases, graphs, collections and key spaces of tenants."""

from is_db_bootstrap.fleet.ledger import Ledger
from is_db_bootstrap.fleet.results import FleetResult, TargetResult
from is_db_bootstrap.fleet.run import Fleet
from is_db_bootstrap.fleet.targets import Refused, Target, read, shard
from is_db_bootstrap.fleet.worker import Order

__all__ = [
    "Fleet",
    "FleetResult",
    "Ledger",
    "Order",
    "Refused",
    "Target",
    "TargetResult",
    "read",
    "shard",
]
