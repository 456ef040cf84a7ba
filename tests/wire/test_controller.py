"""The adversary's controller against real servers: it reaches its members and nobody else."""

from typing import Any

import pytest
from fakes import assignment

from adversary.controller import Controller
from coordinator.transport import Order
from nodes.runtime.errors import NodeError
from nodes.runtime.wire import Parcel

PLAN = {"attack": {"name": "label-flip", "target": "untargeted"}, "schedule": None, "rate": None}


async def update_of(served: Any, box: Any, participant: int) -> bytes:
    link, inbox = served.link(), box(served.model_D.size)
    await link.train(Order(1, (participant,)), Parcel(served.model_D), inbox)
    await link.close()
    return inbox.rows[participant].tobytes()


def controller(*served: Any, **changes: Any) -> Controller:
    first = served[0]
    actors = {each.address: [spec.id for spec in each.run.participants] for each in served}
    given = {"run": "tiny", "actors": actors, "token": first.credentials.adversary, **changes}
    return Controller(**given)


async def test_a_takeover_and_a_release_reach_the_members_only(serve: Any, box: Any) -> None:
    served = await serve(assignment((0, 1, 2)))
    honest = [await update_of(served, box, id) for id in (0, 1, 2)]
    adversary = controller(served)
    await adversary.takeover("scenario", [1, 99], PLAN)
    turned = [await update_of(served, box, id) for id in (0, 1, 2)]
    assert [one == other for one, other in zip(honest, turned, strict=True)] == [True, False, True]
    await adversary.release("scenario", [1])
    assert [await update_of(served, box, id) for id in (0, 1, 2)] == honest


async def test_actors_without_a_member_are_not_called(served: Any) -> None:
    adversary = controller(served, actors={served.address: [0, 1, 2], "127.0.0.1:1": [3, 4]})
    await adversary.takeover("scenario", [0, 2], PLAN)
    await adversary.release("scenario", [2])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"token": "guess"}, "PERMISSION_DENIED: /nodes.v1.Participants/Assume wants the adversary's"),
        ({"run": "other"}, "NOT_FOUND: run 'other'"),
        ({"actors": {"127.0.0.1:1": [0]}}, "Assume at 127.0.0.1:1: UNAVAILABLE: "),
    ],
)
async def test_an_actor_that_refuses_or_is_gone_is_named(served: Any, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(NodeError) as error:
        await controller(served, **changes).takeover("scenario", [0], PLAN)
    assert text in str(error.value)
    assert served.credentials.adversary not in str(error.value)


async def test_a_takeover_twice_is_refused_by_name(served: Any) -> None:
    adversary = controller(served)
    await adversary.takeover("scenario", [0], PLAN)
    with pytest.raises(NodeError, match="INVALID_ARGUMENT: behaviour: got 'scenario'"):
        await adversary.takeover("scenario", [0, 1], PLAN)
