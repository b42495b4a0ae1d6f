"""Where the tests of Kubernetes find the cluster, and what they deploy there."""

import os
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
#: An address of this machine that pods reach.
HOST = os.environ.get("KUBE_HOST", "")
#: Stores that have a password.
SECRETS = ("postgres", "neo4j", "redis")
