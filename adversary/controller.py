"""The adversary's controller: takes participants over, through their actors' gRPC interface and its own token."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from adversary.behaviours import FACTORY
from nodes.runtime.auth import bearer
from nodes.runtime.errors import NodeError
from nodes.v1 import participants_pb2 as pb
from nodes.v1 import participants_pb2_grpc as rpc

CALL_SECONDS = 30.0


@dataclass(frozen=True)
class Controller:
    """Knows where each participant is reached: `actors` maps an address to the ids carried there."""

    run: str
    actors: Mapping[str, Sequence[int]]
    token: str

    async def takeover(self, name: str, members: Sequence[int], parameters: Mapping[str, Any]) -> None:
        """Install behaviour `name` on `members`. Raises NodeError when an actor refuses or does not answer."""
        wanted = frozenset(members)
        request = {"run": self.run, "behaviour": name, "factory": FACTORY, "parameters": json.dumps(parameters)}
        await asyncio.gather(
            *(
                self._call(address, "Assume", pb.AssumeRequest(participants=here, **request))
                for address, ids in self.actors.items()
                if (here := [id for id in ids if id in wanted])
            )
        )

    async def release(self, name: str, members: Sequence[int]) -> None:
        """Remove behaviour `name` from `members`. Raises NodeError as `takeover`."""
        wanted = frozenset(members)
        await asyncio.gather(
            *(
                self._call(address, "Release", pb.ReleaseRequest(run=self.run, behaviour=name, participants=here))
                for address, ids in self.actors.items()
                if (here := [id for id in ids if id in wanted])
            )
        )

    async def _call(self, address: str, method: str, request: Any) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = rpc.ParticipantsStub(channel)  # type: ignore[no-untyped-call]
            try:
                await getattr(stub, method)(request, timeout=CALL_SECONDS, metadata=bearer(self.token))
            except grpc.RpcError as error:
                raise NodeError(f"{method} at {address}: {error.code().name}: {error.details()}") from error
