"""The coordinator's end of the wire against actors that do not keep to the protocol: only whole updates count."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from coordinator.collection import Collection
from coordinator.grpc_link import GrpcLink
from nodes.runtime.arrays import F32
from nodes.runtime.wire import CHUNK_BYTES, Parcel, announce
from nodes.v1 import participants_pb2 as pb
from nodes.v1 import participants_pb2_grpc as rpc

SIZE = CHUNK_BYTES // 4 + 5
Answers = list[pb.TrainResponse | grpc.StatusCode]


class Scripted(rpc.ParticipantsServicer):
    """Answers a Train with what it was told, and keeps what it was sent."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.received: list[pb.TrainRequest] = []

    async def Train(
        self, request_iterator: AsyncIterator[pb.TrainRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.TrainResponse]:
        async for request in request_iterator:
            self.received.append(request)
        for answer in self.answers:
            if isinstance(answer, pb.TrainResponse):
                yield answer
            else:
                await context.abort(answer, "on purpose")


Train = Callable[..., Awaitable[tuple[Collection, F32, Scripted]]]


@pytest.fixture
def train() -> Train:
    """One round with participants 0 to 2 on an actor that gives `answers`."""

    async def run(answers: Answers, size: int = SIZE, timeout: float = 10) -> tuple[Collection, F32, Scripted]:
        servicer = Scripted(answers)
        server = grpc.aio.server()
        rpc.add_ParticipantsServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        link = GrpcLink("actor-9", f"127.0.0.1:{port}", (0, 1, 2), "tiny", "token", timeout)
        matrix_ND = np.zeros((3, size), np.float32)
        collection = Collection(1, (0, 1, 2), matrix_ND)
        await collection.train(link, Parcel(np.arange(size, dtype=np.float32)))
        await link.close()
        await server.stop(0)
        return collection, matrix_ND, servicer

    return run


def update(participant: int, value: float = 1.0, size: int = SIZE, **changes: Any) -> pb.Update:
    fields = {"round": 1, "rows": 10, "vector": announce(np.full(size, value, np.float32)), **changes}
    return pb.Update(participant=participant, **fields)


def parts(participant: int, value: float = 1.0, size: int = SIZE, **changes: Any) -> list[pb.TrainResponse]:
    """An update too large for its message, with its chunks."""
    content = np.full(size, value, np.float32).tobytes()
    chunks = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    announced = pb.TrainResponse(updates=[update(participant, size=size, **changes)])
    return [announced, *(pb.TrainResponse(chunk=chunk) for chunk in chunks)]


def states(collection: Collection) -> list[str]:
    return [row.state for row in collection.rows.values()]


async def test_the_model_is_sent_whole_and_updates_land_in_their_rows(train: Train) -> None:
    collection, matrix_ND, actor = await train([*parts(2, 3.0), *parts(0, 1.0), *parts(1, 2.0)])
    assert states(collection) == ["admitted"] * 3
    assert [row.tolist() for row in matrix_ND[:, :1]] == [[1.0], [2.0], [3.0]]
    order, *rest = actor.received
    assert tuple(order.order.participants) == (0, 1, 2)
    sent_D = np.frombuffer(b"".join(part.chunk for part in rest), np.float32)
    assert np.array_equal(sent_D, np.arange(SIZE, dtype=np.float32))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": SIZE + 1}, f"shape: {SIZE + 1} parameters, expected {SIZE}"),
        ({"round": 7}, "stale: of round 7, expected round 1"),
        ({"value": np.inf}, f"not finite: {SIZE} of {SIZE} values"),
    ],
)
async def test_the_chunks_of_a_refused_update_are_thrown_away(train: Train, changes: Any, reason: str) -> None:
    collection, matrix_ND, _ = await train([*parts(0, 1.0), *parts(1, **changes), *parts(2, 3.0)])
    assert states(collection) == ["admitted", "refused", "admitted"]
    assert collection.rows[1].reason == reason
    assert set(matrix_ND[0]) == {1.0}
    assert set(matrix_ND[2]) == {3.0}


async def test_a_stranger_and_a_second_delivery_do_not_touch_a_row(train: Train) -> None:
    collection, matrix_ND, _ = await train([*parts(0, 1.0), *parts(5, 9.0), *parts(0, 8.0), *parts(1), *parts(2)])
    assert states(collection) == ["admitted"] * 3
    assert set(matrix_ND[0]) == {1.0}


async def test_an_update_cut_short_is_lost_with_what_would_have_followed(train: Train) -> None:
    collection, _, _ = await train([*parts(0), *parts(1)[:-1]])
    assert states(collection) == ["admitted", "lost", "lost"]
    assert collection.rows[1].reason == f"actor-9, its update: {CHUNK_BYTES} bytes, expected {SIZE * 4}"


async def test_too_many_bytes_are_no_update(train: Train) -> None:
    collection, _, _ = await train([*parts(0)[:-1], pb.TrainResponse(chunk=b"\0" * 21), *parts(1), *parts(2)])
    assert states(collection) == ["lost"] * 3
    assert "actor-9, its update: at least " in collection.rows[0].reason


async def test_bytes_that_nobody_announced_are_ignored(train: Train) -> None:
    stray = pb.TrainResponse(chunk=b"\1" * 100)
    collection, matrix_ND, _ = await train([stray, *parts(0), stray, *parts(1), *parts(2), stray])
    assert states(collection) == ["admitted"] * 3
    assert set(matrix_ND.ravel()) == {1.0}


async def test_a_message_may_hold_some_good_and_some_bad_updates(train: Train) -> None:
    bundle = [
        update(1, 2.0, 4),
        update(0, np.nan, 4),
        pb.Update(round=1, participant=2, failure="ValueError: no rows"),
    ]
    collection, matrix_ND, _ = await train([pb.TrainResponse(updates=bundle)], size=4)
    assert states(collection) == ["refused", "admitted", "lost"]
    assert collection.rows[2].reason == "ValueError: no rows"
    assert matrix_ND[1].tolist() == [2.0] * 4


async def test_what_arrived_before_an_actor_failed_counts(train: Train) -> None:
    collection, _, _ = await train([*parts(0), grpc.StatusCode.RESOURCE_EXHAUSTED])
    assert states(collection) == ["admitted", "lost", "lost"]
    assert collection.rows[1].reason == "actor-9: RESOURCE_EXHAUSTED: on purpose"


async def test_an_actor_that_is_not_there_loses_all(train: Train) -> None:
    collection = Collection(1, (0, 1), np.zeros((2, 4), np.float32))
    link = GrpcLink("actor-9", "127.0.0.1:1", (0, 1), "tiny", "token", 5)
    await collection.train(link, Parcel(np.zeros(4, np.float32)))
    await link.close()
    assert states(collection) == ["lost", "lost"]
    assert collection.rows[0].reason.startswith("actor-9: UNAVAILABLE: ")
