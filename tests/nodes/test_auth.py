"""Tokens: who gets through, who does not, and that no secret is printed. Status codes over a socket: tests/wire."""

from collections import namedtuple
from typing import Any

import grpc
import pytest

from nodes.runtime.auth import Credentials, RequireToken, bearer

Details = namedtuple("Details", ["method", "invocation_metadata"])
TRAIN, ASSUME = "/nodes.v1.Participants/Train", "/nodes.v1.Participants/Assume"
HANDLER = grpc.unary_unary_rpc_method_handler(lambda request, context: None)


@pytest.fixture
def credentials() -> Credentials:
    return Credentials()


async def passes(credentials: Credentials, method: str, metadata: Any) -> bool:
    async def found(_details: object) -> grpc.RpcMethodHandler:
        return HANDLER

    return await RequireToken(credentials).intercept_service(found, Details(method, metadata)) is HANDLER


async def test_each_token_opens_its_own_methods_only(credentials: Credentials) -> None:
    coordinator, adversary = bearer(credentials.coordinator), bearer(credentials.adversary)
    assert await passes(credentials, TRAIN, coordinator)
    assert await passes(credentials, ASSUME, adversary)
    assert not await passes(credentials, TRAIN, adversary)
    assert not await passes(credentials, ASSUME, coordinator)


@pytest.mark.parametrize("given", [None, (), (("authorization", ""),), (("authorization", "Bearer "),)])
async def test_no_token_opens_nothing(credentials: Credentials, given: Any) -> None:
    assert not await passes(credentials, TRAIN, given)
    assert not await passes(credentials, ASSUME, given)


async def test_a_token_counts_whole_and_in_its_place(credentials: Credentials) -> None:
    token = credentials.coordinator
    for text in (token, f"bearer {token}", f"Bearer {token} ", f"Bearer {token[:-1]}", f"Basic {token}", "Bearer ü"):
        assert not await passes(credentials, TRAIN, (("authorization", text),))
    assert not await passes(credentials, TRAIN, (("x-authorization", f"Bearer {token}"),))
    assert not await passes(credentials, TRAIN, bearer(Credentials().coordinator))


@pytest.mark.parametrize("method", ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/X"])
async def test_health_and_reflection_are_open(credentials: Credentials, method: str) -> None:
    assert await passes(credentials, method, ())


async def test_a_method_that_does_not_exist_is_left_to_grpc(credentials: Credentials) -> None:
    async def nothing(_details: object) -> None:
        return None

    details = Details("/nodes.v1.Participants/Nope", ())
    assert await RequireToken(credentials).intercept_service(nothing, details) is None


def test_secrets_differ_and_are_not_printed(credentials: Credentials) -> None:
    other = Credentials()
    secrets = {credentials.coordinator, credentials.adversary, other.coordinator, other.adversary}
    assert len(secrets) == 4
    assert min(map(len, secrets)) >= 40
    assert not any(secret in f"{credentials!r} {credentials}" for secret in secrets)
