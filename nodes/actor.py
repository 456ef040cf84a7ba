"""The Ray actor: a `NodeServer` in a process of its own. This is the only module of the room that knows Ray."""

import os
from dataclasses import replace
from typing import Any

import ray
from threadpoolctl import threadpool_limits

from nodes.holding import Holding
from nodes.participant import Assignment
from nodes.runtime.auth import Credentials
from nodes.server import NodeServer


class NodeActor:
    """Carries participants on some machine of the cluster. Ray places and ends it; all else goes over gRPC."""

    def __init__(self, name: str, credentials: Credentials, threads: int) -> None:
        threadpool_limits(threads)
        self._server = NodeServer(name, credentials)

    async def start(self, loopback: bool) -> tuple[str, int, str]:
        """Listen on loopback or on this node's address; return the address, the process id and Ray's id of the node."""
        address = await self._server.start("127.0.0.1" if loopback else _node_address())
        return address, os.getpid(), ray.get_runtime_context().get_node_id()

    async def assign(self, assignment: Assignment | None, holding: Holding | None) -> str:
        """Carry another run with the participants of `holding`, or none; return the spans of the one before."""
        if assignment is not None and holding is not None:
            assignment = replace(assignment, participants=holding.participants)
        return await self._server.assign(assignment)


def place(name: str, credentials: Credentials, *, num_cpus: float, threads: int, num_gpus: float = 0) -> Any:
    """Ask Ray for an actor, spread over the nodes; returns its handle at once.

    `num_cpus` and `num_gpus` are reserved, `threads` used by one training; an actor sees the GPUs that it reserved.
    """
    options = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "scheduling_strategy": "SPREAD",
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": 16,
    }
    return ray.remote(NodeActor).options(**options).remote(name, credentials, threads)


def _node_address() -> str:
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]
