"""A `Link` over gRPC: one RPC per actor and round, the model sent once, updates received into the caller's rows."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from coordinator.transport import Arrival, Inbox
from nodes.runtime import wire
from nodes.runtime.arrays import F32
from nodes.runtime.auth import bearer
from nodes.runtime.errors import NodeError
from nodes.runtime.telemetry import outgoing
from nodes.v1 import participants_pb2 as pb
from nodes.v1 import participants_pb2_grpc as rpc


class GrpcLink:
    """An actor at `address`. `timeout_seconds` bounds each call; a round's training may take as long as that."""

    def __init__(
        self, name: str, address: str, participants: tuple[int, ...], run: str, token: str, timeout_seconds: float
    ) -> None:
        self.name = name
        self.participants = participants
        self._run = run
        self._token = token
        self._timeout = timeout_seconds
        self._channel = grpc.aio.insecure_channel(address, options=wire.MESSAGE_OPTIONS)
        self._stub = rpc.ParticipantsStub(self._channel)  # type: ignore[no-untyped-call]

    async def describe(self) -> pb.DescribeResponse:
        """What the actor carries."""
        with _NodeErrors(self.name):
            response: pb.DescribeResponse = await self._stub.Describe(
                pb.DescribeRequest(), timeout=self._timeout, metadata=self._metadata()
            )
        return response

    async def train(self, round: int, ids: Sequence[int], model_D: F32, inbox: Inbox) -> None:
        """See `Link.train`."""
        order = pb.TrainOrder(run=self._run, round=round, participants=ids, model=wire.announce(model_D))

        async def requests() -> AsyncIterator[pb.TrainRequest]:
            yield pb.TrainRequest(order=order)
            for chunk in wire.chunks(model_D):
                yield pb.TrainRequest(chunk=chunk)

        with _NodeErrors(self.name):
            call = self._stub.Train(requests(), timeout=self._timeout, metadata=self._metadata())
            try:
                await _receive(call, inbox, self.name)
            finally:
                call.cancel()

    async def evaluate(self, ids: Sequence[int], model_D: F32) -> Mapping[int, Mapping[str, float]]:
        """See `Link.evaluate`."""
        order = pb.EvaluateOrder(run=self._run, participants=ids, model=wire.announce(model_D))

        async def requests() -> AsyncIterator[pb.EvaluateRequest]:
            yield pb.EvaluateRequest(order=order)
            for chunk in wire.chunks(model_D):
                yield pb.EvaluateRequest(chunk=chunk)

        with _NodeErrors(self.name):
            response = await self._stub.Evaluate(requests(), timeout=self._timeout, metadata=self._metadata())
        return {evaluation.participant: dict(evaluation.figures) for evaluation in response.evaluations}

    async def close(self) -> None:
        """See `Link.close`."""
        await self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self._token) + outgoing()


async def _receive(call: AsyncIterator[pb.TrainResponse], inbox: Inbox, name: str) -> None:
    incomplete: tuple[Arrival, wire.Receiver | None] | None = None
    async for message in call:
        for update in message.updates:
            arrival = Arrival.of(update)
            row_D = inbox.row_for(arrival)
            receiver = None if row_D is None else wire.Receiver(row_D, update.vector, f"{name}, its update")
            if receiver is not None and receiver.complete:
                inbox.received(arrival)
            else:
                incomplete = (arrival, receiver)
        if message.chunk and incomplete is not None and incomplete[1] is not None:
            incomplete[1].feed(message.chunk)
            if incomplete[1].complete:
                inbox.received(incomplete[0])
                incomplete = None
    if incomplete is not None and incomplete[1] is not None:
        incomplete[1].check()


class _NodeErrors:
    """Turns a failed call into a NodeError that names the actor."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, grpc.RpcError):
            raise NodeError(f"{self._name}: {error.code().name}: {error.details()}") from error
