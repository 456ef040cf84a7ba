"""Runs a scenario on a Ray cluster of two nodes on this machine; a process of its own, since Ray is one per process.

`python two_nodes.py SCENARIO OUT` prints the model's digest and the number of nodes that carried actors.
"""

import os
import secrets
import sys
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

from ray.cluster_utils import Cluster

from deploy.cli.progress import Quiet
from deploy.loading import load_scenario
from deploy.session import Session

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    try:
        with Session(Quiet(), cluster.address) as session:
            summary = session.run(load_scenario(Path(sys.argv[1])), Path(sys.argv[2]))
        print(summary["model_sha256"], summary["nodes"])
    finally:
        cluster.shutdown()
