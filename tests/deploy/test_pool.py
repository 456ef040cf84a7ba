"""How participants are dealt to actors."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.pool import gpu_slots, pack

Packing = int | Literal["auto"]


@given(st.integers(1, 300), st.one_of(st.integers(1, 400), st.just("auto")), st.integers(0, 64))
def test_everybody_is_carried_once_in_order(num_participants: int, per_actor: Packing, cores: int) -> None:
    actors = pack(num_participants, per_actor, cores)
    assert [id for actor in actors for id in actor] == list(range(num_participants))
    assert all(actors)
    if per_actor == "auto":
        assert len(actors) <= max(cores, 1)
    else:
        assert max(map(len, actors)) <= per_actor
        assert len(actors) == -(-num_participants // per_actor)


@pytest.mark.parametrize(
    ("num_participants", "cores", "sizes"), [(10, 2, [5, 5]), (3, 8, [1, 1, 1]), (10, 4, [3, 3, 3, 1]), (7, 0, [7])]
)
def test_auto_is_about_one_actor_per_core(num_participants: int, cores: int, sizes: list[int]) -> None:
    assert [len(actor) for actor in pack(num_participants, "auto", cores)] == sizes


@pytest.mark.parametrize(("gpus", "share", "slots"), [(1, 0.25, 4), (2, 1, 2), (3, 2, 1), (0, 0.5, 0), (4, 0.4, 8)])
def test_an_actor_s_share_is_on_one_gpu(gpus: float, share: float, slots: int) -> None:
    assert gpu_slots(gpus, share) == slots
