"""Bearer tokens: who may train participants, and who may take them over."""

import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

HEADER = "authorization"
ADVERSARY_METHODS = frozenset({"/nodes.v1.Participants/Assume", "/nodes.v1.Participants/Release"})


def _token() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The two secrets of one pool of actors; never logged (`repr` hides them)."""

    coordinator: str = field(default_factory=_token, repr=False)
    adversary: str = field(default_factory=_token, repr=False)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """Return the call metadata that presents `token`."""
    return ((HEADER, f"Bearer {token}"),)


class RequireToken(grpc.aio.ServerInterceptor):
    """Refuses calls to `nodes.v1` without the right token; health and reflection stay open."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler = await continuation(details)
        if handler is None or not details.method.startswith("/nodes.v1."):
            return handler
        given = dict(details.invocation_metadata or ()).get(HEADER, "")
        adversarial = details.method in ADVERSARY_METHODS
        wanted = self._credentials.adversary if adversarial else self._credentials.coordinator
        if hmac.compare_digest(str(given).encode(), f"Bearer {wanted}".encode()):
            return handler
        role = "adversary" if adversarial else "coordinator"
        code = grpc.StatusCode.PERMISSION_DENIED if given else grpc.StatusCode.UNAUTHENTICATED
        return _refusal(handler, code, f"{details.method} wants the {role}'s bearer token in {HEADER!r}")


def _refusal(handler: grpc.RpcMethodHandler, code: grpc.StatusCode, message: str) -> grpc.RpcMethodHandler:
    async def abort(_request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(code, message)

    async def abort_stream(_request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(code, message)
        yield  # pragma: no cover - makes this an async generator

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    return make(
        abort_stream if handler.response_streaming else abort,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )
