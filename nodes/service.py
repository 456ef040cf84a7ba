"""The gRPC face of an actor: `nodes.v1.Participants` around a `Host`. Training runs in one thread, beside the loop."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple, Unpack

import grpc
import grpc.aio
import numpy as np
from google.protobuf.message import DecodeError

from nodes.host import Failed, Host, Result, Summed, UnknownParticipantError
from nodes.participant import Assignment, Trained
from nodes.runtime import wire
from nodes.runtime.arrays import F32
from nodes.runtime.errors import InputError, WireError
from nodes.runtime.sums import SumOrder
from nodes.runtime.telemetry import Telemetry, incoming
from nodes.v1 import participants_pb2 as pb
from nodes.v1 import participants_pb2_grpc as rpc

FLUSH_SECONDS = 0.02

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

Request = pb.TrainRequest | pb.EvaluateRequest
Order = pb.TrainOrder | pb.EvaluateOrder


class ParticipantsService(rpc.ParticipantsServicer):
    """Serves whatever run is assigned; `assign` replaces it."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self._host: Host | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")
        self._training = asyncio.Lock()  # a large update leaves the host in chunks: no other may train meanwhile

    async def assign(self, assignment: Assignment | None) -> None:
        """Carry the participants of `assignment` from now on, and nothing of a run before; None carries nobody."""
        self._host = None
        if assignment is not None:
            self.telemetry.enabled = assignment.trace
            self._host = await self._in_thread(Host, assignment, self.telemetry)

    def close(self) -> None:
        """End the training thread; a training in hand ends first."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def Describe(
        self,
        request: pb.DescribeRequest,
        context: grpc.aio.ServicerContext,
    ) -> pb.DescribeResponse:
        async with _status(context):
            host = await self._require(context)
            return pb.DescribeResponse(
                run=host.assignment.run,
                parameters=host.size,
                layout=[pb.Tensor(name=name, shape=shape) for name, shape in host.network.layout.tensors],
                participants=[
                    pb.Participant(id=p.id, rows=len(p.shard), test_rows=len(p.local_test))
                    for p in host.assignment.participants
                ],
            )
        raise AssertionError("unreachable: abort raises")

    async def Train(
        self, request_iterator: AsyncIterator[pb.TrainRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.TrainResponse]:
        stop = threading.Event()
        parent = incoming(context.invocation_metadata())
        try:
            async with _status(context):
                host = await self._require(context)
                order, model_D = await _receive(request_iterator, host)
                if not isinstance(order, pb.TrainOrder) or order.round < 1:
                    raise InputError("order.round", getattr(order, "round", None), "a round, from 1")
                ids, sums = list(order.participants), _sum_order(order)
                messages = encode_results(order.round, host.train(order.round, ids, model_D, stop.is_set, parent, sums))
                async with self._training:
                    while (message := await self._in_thread(_advance, messages)) is not None:
                        yield message
                if spans := self.telemetry.drain():
                    yield pb.TrainResponse(spans=spans)
        finally:
            stop.set()

    async def Evaluate(
        self, request_iterator: AsyncIterator[pb.EvaluateRequest], context: grpc.aio.ServicerContext
    ) -> pb.EvaluateResponse:
        async with _status(context):
            host = await self._require(context)
            order, model_D = await _receive(request_iterator, host)
            figures = await self._in_thread(host.evaluate, list(order.participants), model_D)
            return pb.EvaluateResponse(
                evaluations=[pb.Evaluation(participant=id, figures=values) for id, values in figures.items()]
            )
        raise AssertionError("unreachable: abort raises")

    async def Assume(self, request: pb.AssumeRequest, context: grpc.aio.ServicerContext) -> pb.AssumeResponse:
        async with _status(context):
            host = await self._require(context, request.run)
            host.assume(request.behaviour, list(request.participants), request.factory, request.parameters)
        return pb.AssumeResponse()

    async def Release(self, request: pb.ReleaseRequest, context: grpc.aio.ServicerContext) -> pb.ReleaseResponse:
        async with _status(context):
            (await self._require(context, request.run)).release(request.behaviour, list(request.participants))
        return pb.ReleaseResponse()

    async def _require(self, context: grpc.aio.ServicerContext, run: str | None = None) -> Host:
        if self._host is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no run is assigned to this actor")
        assert self._host is not None
        if run is not None:
            _check_run(self._host, run)
        return self._host

    async def _in_thread(self, function: Callable[[Unpack[Arguments]], T], *arguments: *Arguments) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)


def _advance(messages: Iterator[pb.TrainResponse]) -> pb.TrainResponse | None:
    return next(messages, None)


def _check_run(host: Host, run: str) -> None:
    if run != host.assignment.run:
        raise UnknownParticipantError(f"run {run!r} is not assigned here, but {host.assignment.run!r}")


async def _receive(requests: AsyncIterator[Request], host: Host) -> tuple[Order, F32]:
    """Return the order that opens a stream and the model that follows it."""
    order: Order | None = None
    model_D = np.empty(host.size, dtype=np.float32)
    receiver: wire.Receiver | None = None
    async for request in requests:
        if receiver is not None:
            receiver.feed(request.chunk)
        elif request.WhichOneof("part") != "order":
            raise InputError("request", request.WhichOneof("part"), "an order first")
        else:
            order = request.order
            _check_run(host, order.run)
            receiver = wire.Receiver(model_D, order.model, "the order's model")
        if receiver.complete:
            break
    if receiver is None or order is None:
        raise InputError("request", None, "an order")
    receiver.check()
    return order, model_D


def _sum_order(order: pb.TrainOrder) -> SumOrder | None:
    if not order.HasField("sums"):
        return None
    if not order.sums.total > 0:
        raise InputError("order.sums.total", order.sums.total, "a positive number")
    blocks = tuple((block.id, tuple(block.participants)) for block in order.sums.blocks)
    return SumOrder(order.sums.total, order.sums.uniform, blocks)


def encode_results(round: int, results: Iterator[Result]) -> Iterator[pb.TrainResponse]:
    """Yield the messages of a `Train` stream: small ones bundled while they come fast, large vectors in chunks."""
    message, size, since = pb.TrainResponse(), 0, time.monotonic()
    for result in results:
        vector_D = _add(message, round, result)
        chunked = vector_D is not None and vector_D.nbytes > wire.CHUNK_BYTES
        size += 0 if vector_D is None or chunked else vector_D.nbytes
        if chunked or size >= wire.CHUNK_BYTES or time.monotonic() - since >= FLUSH_SECONDS:
            yield message
            message, size, since = pb.TrainResponse(), 0, time.monotonic()
        if vector_D is not None:
            for chunk in wire.chunks(vector_D):
                yield pb.TrainResponse(chunk=chunk)
    if message.updates or message.sums:
        yield message


def _add(message: pb.TrainResponse, round: int, result: Result) -> F32 | None:
    """Add what announces `result` to a message; return the vector that it announces, if any."""
    if isinstance(result, Failed):
        message.updates.add(round=round, participant=result.participant, failure=result.reason, refused=result.refused)
        return None
    if isinstance(result, Summed):
        vector = wire.announce(result.sum_D)
        message.sums.add(round=round, block=result.block, participants=result.participants, vector=vector)
        return result.sum_D
    message.updates.append(_encode(round, result))
    return result.update_D if result.norm is None else None


def _encode(round: int, result: Trained) -> pb.Update:
    start = time.perf_counter()
    vector = wire.announce(result.update_D) if result.norm is None else None
    return pb.Update(
        round=round,
        participant=result.participant,
        rows=result.rows,
        steps=result.report.steps,
        first_loss=result.report.first_loss,
        last_loss=result.report.last_loss,
        seconds={**result.seconds, "encode": time.perf_counter() - start},
        figures=result.figures,
        vector=vector,
        norm=result.norm,
    )


@asynccontextmanager
async def _status(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """Turn errors raised on purpose into gRPC status codes."""
    try:
        yield
    except (InputError, WireError, DecodeError) as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except UnknownParticipantError as error:
        await context.abort(grpc.StatusCode.NOT_FOUND, str(error))


def method_names() -> Sequence[str]:
    """Full names of the services served here, for reflection."""
    return (pb.DESCRIPTOR.services_by_name["Participants"].full_name,)
