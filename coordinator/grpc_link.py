"""A `Link` over gRPC: one RPC per actor and round, the model sent once, updates received into the caller's rows."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from coordinator.transport import Arrival, Inbox, Order
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
        self,
        name: str,
        address: str,
        participants: tuple[int, ...],
        run: str,
        token: str,
        timeout_seconds: float,
        on_spans: Callable[[str, str], None] = lambda _name, _spans: None,
    ) -> None:
        """`on_spans` gets the actor's name and a line of its finished spans, at the end of a training."""
        self.name = name
        self.participants = participants
        self._run = run
        self._token = token
        self._timeout = timeout_seconds
        self._on_spans = on_spans
        self._channel = grpc.aio.insecure_channel(address, options=wire.COORDINATOR_OPTIONS)
        self._stub = rpc.ParticipantsStub(self._channel)  # type: ignore[no-untyped-call]

    async def describe(self) -> pb.DescribeResponse:
        """What the actor carries."""
        with _NodeErrors(self.name):
            response: pb.DescribeResponse = await self._stub.Describe(
                pb.DescribeRequest(), timeout=self._timeout, metadata=self._metadata()
            )
        return response

    async def train(self, order: Order, model: wire.Parcel, inbox: Inbox) -> None:
        """See `Link.train`."""
        message = pb.TrainOrder(
            run=self._run, round=order.round, participants=order.participants, model=model.header, sums=_sums(order)
        )
        with _NodeErrors(self.name):
            requests = _requests(pb.TrainRequest, message, model)
            call = self._stub.Train(requests, timeout=self._timeout, metadata=self._metadata())
            try:
                await self._receive(call, inbox)
            finally:
                call.cancel()

    async def _receive(self, call: AsyncIterator[pb.TrainResponse], inbox: Inbox) -> None:
        pending: _Pending | None = None
        async for message in call:
            for update in message.updates:
                arrival = Arrival.of(update)
                row_D = inbox.row_for(arrival)
                if arrival.norm is None:
                    pending = _Pending.of(row_D, update.vector, self.name, partial(inbox.received, arrival))
            for item in message.sums:
                ids = tuple(item.participants)
                row_D = inbox.row_for_sum(item.block, ids, item.vector.length)
                done = partial(inbox.received_sum, item.block, ids)
                pending = _Pending.of(row_D, item.vector, self.name, done)
            if message.chunk and pending is not None:
                pending = pending.feed(message.chunk)
            if message.spans:
                self._on_spans(self.name, message.spans)
        if pending is not None:
            pending.check()

    async def evaluate(self, ids: Sequence[int], model: wire.Parcel) -> Mapping[int, Mapping[str, float]]:
        """See `Link.evaluate`."""
        order = pb.EvaluateOrder(run=self._run, participants=ids, model=model.header)
        with _NodeErrors(self.name):
            requests = _requests(pb.EvaluateRequest, order, model)
            response = await self._stub.Evaluate(requests, timeout=self._timeout, metadata=self._metadata())
        return {evaluation.participant: dict(evaluation.figures) for evaluation in response.evaluations}

    async def close(self) -> None:
        """See `Link.close`."""
        await self._channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return bearer(self._token) + outgoing()


async def _requests(request: Callable[..., Any], order: Any, model: wire.Parcel) -> AsyncIterator[Any]:
    """Yield what opens a call: the order, then the chunks of the model that it announces."""
    yield request(order=order)
    for chunk in model.chunks:
        yield request(chunk=chunk)


def _sums(order: Order) -> pb.SumOrder | None:
    if order.sums is None:
        return None
    blocks = [pb.Block(id=id, participants=ids) for id, ids in order.sums.blocks]
    return pb.SumOrder(total=order.sums.total, uniform=order.sums.uniform, blocks=blocks)


@dataclass
class _Pending:
    """A vector whose chunks are still to come; without a receiver they are thrown away."""

    receiver: wire.Receiver | None
    done: Callable[[], None]

    @classmethod
    def of(cls, row_D: F32 | None, vector: pb.Vector, name: str, done: Callable[[], None]) -> "_Pending | None":
        """Receive what an announcement holds; None when that was all."""
        pending = cls(None if row_D is None else wire.Receiver(row_D, vector, f"{name}, its update"), done)
        return None if pending._complete() else pending

    def feed(self, chunk: bytes) -> "_Pending | None":
        """Take a chunk; None when that was the last. Raises WireError when there is more than was announced."""
        if self.receiver is not None:
            self.receiver.feed(chunk)
        return None if self._complete() else self

    def check(self) -> None:
        """Raises WireError unless every byte has arrived, or is not wanted."""
        if self.receiver is not None:
            self.receiver.check()

    def _complete(self) -> bool:
        if self.receiver is None or not self.receiver.complete:
            return False
        self.done()
        return True


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
