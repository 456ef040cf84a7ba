"""What `nodes.v1.Participants` refuses: each with its status, the value, and what was expected; then it goes on."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from nodes.runtime.auth import Credentials, bearer
from nodes.runtime.wire import announce
from nodes.v1 import participants_pb2 as pb

Code = grpc.StatusCode
METHODS = ["Describe", "Train", "Evaluate", "Assume", "Release"]
ASSUME = {"run": "tiny", "behaviour": "x", "participants": [0], "factory": "fake_behaviours:make", "parameters": "{}"}


def request(method: str) -> Any:
    """A request that the method would take."""
    return {
        "Describe": pb.DescribeRequest(),
        "Train": [train()],
        "Evaluate": [pb.EvaluateRequest(order=pb.EvaluateOrder(run="tiny", participants=[0], model=model()))],
        "Assume": pb.AssumeRequest(**ASSUME),
        "Release": pb.ReleaseRequest(run="tiny", behaviour="x"),
    }[method]


def model() -> pb.Vector:
    return announce(np.zeros(57, np.float32))


def train(**changes: Any) -> pb.TrainRequest:
    order = {"run": "tiny", "round": 1, "participants": [0], "model": model(), **changes}
    return pb.TrainRequest(order=pb.TrainOrder(**order))


async def call(served: Any, method: str, given: Any, token: str | None) -> None:
    metadata = () if token is None else bearer(token)

    async def stream() -> AsyncIterator[Any]:
        for part in given:
            yield part

    rpc = getattr(served.stub, method)
    answer = rpc(stream() if isinstance(given, Iterable) else given, metadata=metadata, timeout=10)
    if method == "Train":
        async for _ in answer:
            pass
    else:
        await answer


async def refused(served: Any, method: str, given: Any, token: str | None) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(served, method, given, token)
    return error.value.code(), error.value.details() or ""


def right(served: Any, method: str) -> str:
    of: Credentials = served.credentials
    return of.adversary if method in ("Assume", "Release") else of.coordinator


@pytest.mark.parametrize("method", METHODS)
async def test_tokens(served: Any, method: str) -> None:
    wrong = served.credentials.coordinator if right(served, method) != served.credentials.coordinator else None
    for token, code in (
        (None, Code.UNAUTHENTICATED),
        ("guess", Code.PERMISSION_DENIED),
        (wrong or served.credentials.adversary, Code.PERMISSION_DENIED),
    ):
        given, text = await refused(served, method, request(method), token)
        assert given is code
        assert f"/nodes.v1.Participants/{method} wants the " in text
        assert served.credentials.coordinator not in text
        assert served.credentials.adversary not in text


@pytest.mark.parametrize("method", METHODS)
async def test_no_run(serve: Any, method: str) -> None:
    served = await serve(None)
    assert await refused(served, method, request(method), right(served, method)) == (
        Code.FAILED_PRECONDITION,
        "no run is assigned to this actor",
    )


BAD: dict[str, tuple[str, Any, grpc.StatusCode, str]] = {
    "run": ("Train", [train(run="other")], Code.NOT_FOUND, "run 'other' is not assigned here, but 'tiny'"),
    "participants": ("Train", [train(participants=[0, 9, 7])], Code.NOT_FOUND, "participants [7, 9] are not carried"),
    "round": ("Train", [train(round=0)], Code.INVALID_ARGUMENT, "order.round: got 0, expected a round, from 1"),
    "length": (
        "Train",
        [train(model=announce(np.zeros(56, np.float32)))],
        Code.INVALID_ARGUMENT,
        "the order's model: 56 parameters, expected 57",
    ),
    "dtype": (
        "Train",
        [train(model=pb.Vector(dtype="<f8", length=57, data=b"\0" * 456))],
        Code.INVALID_ARGUMENT,
        "the order's model: dtype '<f8', expected '<f4'",
    ),
    "truncated": (
        "Train",
        [train(model=pb.Vector(dtype="<f4", length=57, data=b"\0" * 227))],
        Code.INVALID_ARGUMENT,
        "the order's model: 227 bytes, expected 228",
    ),
    "too few chunks": (
        "Train",
        [train(model=pb.Vector(dtype="<f4", length=57)), pb.TrainRequest(chunk=b"\0" * 100)],
        Code.INVALID_ARGUMENT,
        "the order's model: 100 bytes, expected 228",
    ),
    "too many chunks": (
        "Train",
        [train(model=pb.Vector(dtype="<f4", length=57)), pb.TrainRequest(chunk=b"\0" * 229)],
        Code.INVALID_ARGUMENT,
        "the order's model: at least 229 bytes, expected 228",
    ),
    "order twice": (
        "Train",
        [train(model=pb.Vector(dtype="<f4", length=57)), train()],
        Code.INVALID_ARGUMENT,
        "the order's model: 0 bytes, expected 228",
    ),
    "chunk first": ("Train", [pb.TrainRequest(chunk=b"x")], Code.INVALID_ARGUMENT, "expected an order first"),
    "empty part": ("Train", [pb.TrainRequest()], Code.INVALID_ARGUMENT, "expected an order first"),
    "nothing": ("Train", [], Code.INVALID_ARGUMENT, "request: got None, expected an order"),
    "oversized": (
        "Train",
        [train(run="x" * (5 << 20))],
        Code.RESOURCE_EXHAUSTED,
        "",
    ),
    "evaluate whom": (
        "Evaluate",
        [pb.EvaluateRequest(order=pb.EvaluateOrder(run="tiny", participants=[4], model=model()))],
        Code.NOT_FOUND,
        "participants [4]",
    ),
    "evaluate what": (
        "Evaluate",
        [pb.EvaluateRequest(order=pb.EvaluateOrder(run="tiny", model=pb.Vector(dtype="<f4", length=1)))],
        Code.INVALID_ARGUMENT,
        "1 parameters, expected 57",
    ),
    "assume run": ("Assume", pb.AssumeRequest(**{**ASSUME, "run": "other"}), Code.NOT_FOUND, "run 'other'"),
    "assume whom": ("Assume", pb.AssumeRequest(**{**ASSUME, "participants": [3]}), Code.NOT_FOUND, "[3]"),
    "assume what": (
        "Assume",
        pb.AssumeRequest(**{**ASSUME, "factory": "adversary.behaviours:mak"}),
        Code.INVALID_ARGUMENT,
        "factory: got 'adversary.behaviours:mak'",
    ),
    "assume how": (
        "Assume",
        pb.AssumeRequest(**{**ASSUME, "factory": "adversary.behaviours:make", "parameters": '{"schedule": "late-0"}'}),
        Code.INVALID_ARGUMENT,
        "expected late-K",
    ),
    "release run": ("Release", pb.ReleaseRequest(run="other", behaviour="x"), Code.NOT_FOUND, "run 'other'"),
    "release what": (
        "Release",
        pb.ReleaseRequest(run="tiny", behaviour="x", participants=[0]),
        Code.INVALID_ARGUMENT,
        "got 'x'",
    ),
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_requests(served: Any, case: str) -> None:
    method, given, code, text = BAD[case]
    answer = await refused(served, method, given, right(served, method))
    assert answer[0] is code
    assert text in answer[1]
    assert "\n" not in answer[1]
    await call(served, "Train", [train()], served.credentials.coordinator)


async def test_a_name_can_be_assumed_once(served: Any) -> None:
    adversary = served.credentials.adversary
    await call(served, "Assume", pb.AssumeRequest(**ASSUME), adversary)
    code, text = await refused(served, "Assume", pb.AssumeRequest(**ASSUME), adversary)
    assert code is Code.INVALID_ARGUMENT
    assert "behaviour: got 'x', expected a name that is not installed yet" in text


async def test_an_unknown_method_is_unimplemented_with_and_without_token(served: Any) -> None:
    for metadata in ((), bearer(served.credentials.coordinator)):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await served.channel.unary_unary("/nodes.v1.Participants/Nope")(b"", metadata=metadata, timeout=5)
        assert error.value.code() is Code.UNIMPLEMENTED


@pytest.mark.parametrize("garbage", [b"\xff" * 40, b"\x0a\xff\xff\xff\xff\x7f", b"GET / HTTP/1.1\r\n\r\n"])
@pytest.mark.parametrize("method", ["Describe", "Train"])
async def test_bytes_that_are_no_message_do_no_harm(served: Any, garbage: bytes, method: str) -> None:
    path, metadata = f"/nodes.v1.Participants/{method}", bearer(served.credentials.coordinator)
    make: Callable[..., Any] = served.channel.stream_stream if method == "Train" else served.channel.unary_unary
    given: Any = iter([garbage]) if method == "Train" else garbage
    answer = make(path)(given, metadata=metadata, timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await (answer.read() if method == "Train" else answer)
    assert error.value.code() is (Code.INVALID_ARGUMENT if method == "Train" else Code.UNKNOWN)  # gRPC's own for unary
    await call(served, "Train", [train()], served.credentials.coordinator)
