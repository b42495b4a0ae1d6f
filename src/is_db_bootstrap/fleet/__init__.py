"""One blueprint on many targets: the databases, graphs, collections and key spaces of tenants."""

from is_db_bootstrap.fleet.ledger import Ledger
from is_db_bootstrap.fleet.run import Fleet, FleetResult, Order, TargetResult
from is_db_bootstrap.fleet.targets import Refused, Target, read, shard

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
