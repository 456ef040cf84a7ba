"""A host whose network stacks its participants: what each gives is what it gives one after the other."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fakes import assignment, host

from nodes.data.shard import Shard
from nodes.host import Failed, Host, Summed
from nodes.models.base import Network, Task, head
from nodes.models.mlp import MLPConfig
from nodes.participant import ParticipantSpec, Trained
from nodes.runtime.arrays import F32
from nodes.runtime.seeds import generator
from nodes.runtime.sums import SumOrder
from nodes.runtime.telemetry import Telemetry
from nodes.training.settings import Device, TrainingSettings
from nodes.training.stacked import WIDTH, StackedMLP

FAKE = "fake_behaviours:make"
IDS = tuple(range(WIDTH + 3))


class StackedConfig(MLPConfig):
    """A perceptron that is stacked on the CPU too."""

    def build(self, num_features: int, num_classes: int, task: Task, device: Device = "cpu") -> Network:
        num_outputs, loss = head(num_classes, task)
        return StackedMLP((num_features, *self.hidden, num_outputs), loss, device="cpu")


def stacked(ids: tuple[int, ...] = IDS, **changes: Any) -> Host:
    return host(ids, model=StackedConfig(hidden=(8,)), **changes)


def model(of: Host) -> F32:
    return of.network.initial(generator(7, "model-init"))


def results(of: Host, ids: tuple[int, ...] = IDS, round: int = 1) -> dict[int, Trained | Failed]:
    found: dict[int, Trained | Failed] = {}
    for result in of.train(round, ids, model(of)):
        assert not isinstance(result, Summed)
        copied = replace(result, update_D=result.update_D.copy()) if isinstance(result, Trained) else result
        found[result.participant] = copied
    return found


def bits(of: Host, ids: tuple[int, ...] = IDS) -> dict[int, bytes]:
    return {id: result.update_D.tobytes() for id, result in results(of, ids).items() if isinstance(result, Trained)}


def assert_close(ours: Host, theirs: Host) -> None:
    expected = results(theirs)
    given = results(ours)
    assert list(given) == list(expected)
    for id, result in given.items():
        other = expected[id]
        assert isinstance(result, Trained)
        assert isinstance(other, Trained)
        np.testing.assert_allclose(result.update_D, other.update_D, rtol=1e-3, atol=1e-5)
        assert (result.rows, result.report.steps) == (other.rows, other.report.steps)
        assert result.report.last_loss == pytest.approx(other.report.last_loss, rel=1e-4)
        assert result.figures.keys() == other.figures.keys()
        assert result.seconds.keys() == other.seconds.keys()


def test_groups_give_what_one_after_the_other_gives() -> None:
    assert_close(stacked(), host(IDS))


def test_an_update_does_not_depend_on_the_group() -> None:
    together = bits(stacked())
    assert len(together) == len(IDS)
    assert bits(stacked(), IDS[::-1]) == together
    assert bits(stacked(), (0, 0, 1)) == {id: together[id] for id in (0, 1)}
    assert {id: bits(stacked((id,)), (id,))[id] for id in IDS[:4]} == {id: together[id] for id in IDS[:4]}


def test_a_takeover_changes_its_members_only() -> None:
    of = stacked()
    honest = bits(of)
    of.assume("flip", (1,), FAKE, '{"flip": true}')
    of.assume("double", (2,), FAKE, '{"scale": 2}')
    turned = bits(of)
    assert {id for id in IDS if turned[id] != honest[id]} == {1, 2}
    assert np.array_equal(np.frombuffer(turned[2], np.float32), 2 * np.frombuffer(honest[2], np.float32))


def test_a_takeover_between_two_results_reaches_an_upload_of_the_same_group() -> None:
    of = stacked((0, 1))
    honest = bits(of, (0, 1))
    stream = of.train(1, (0, 1), model(of))
    next(stream)
    of.assume("double", (1,), FAKE, '{"scale": 2}')
    last = next(stream)
    assert isinstance(last, Trained)
    assert np.array_equal(last.update_D, 2 * np.frombuffer(honest[1], np.float32))


def test_a_participant_that_fails_does_not_stop_its_group() -> None:
    of = stacked()
    honest = bits(of)
    of.assume("broken", (1,), FAKE, '{"raise": "no luck"}')
    found = results(of)
    assert list(found) == list(IDS)
    assert found[1] == Failed(1, "RuntimeError: no luck")
    assert bits(of) == {id: update for id, update in honest.items() if id != 1}


def test_rows_that_do_not_fit_fail_alone() -> None:
    run = assignment(IDS, model=StackedConfig(hidden=(8,)))
    bad = run.participants[2].shard
    specs = list(run.participants)
    specs[2] = ParticipantSpec(2, Shard(bad.features_BF, bad.labels_B + 7, bad.classes_B), specs[2].local_test)
    found = results(Host(replace(run, participants=tuple(specs)), Telemetry("test", enabled=False)))
    failed = [result for result in found.values() if isinstance(result, Failed)]
    assert [result.participant for result in failed] == [2]
    assert failed[0].reason.startswith("ValueError: labels reach from 7")


def test_what_the_network_raises_fails_the_group_and_the_next_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    of = stacked()
    train, calls = of.network.fit_many, []  # type: ignore[attr-defined]

    def fit_many(params: Any, jobs: Any) -> Any:
        calls.append(len(jobs))
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return train(params, jobs)

    monkeypatch.setattr(of.network, "fit_many", fit_many)
    found = results(of)
    assert calls == [WIDTH, 3]
    assert [isinstance(found[id], Failed) for id in IDS] == [True] * WIDTH + [False] * 3


def test_stopping_ends_the_group_between_steps() -> None:
    of, calls = stacked(), 0

    def stop() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3

    assert list(of.train(1, IDS, model(of), stop)) == []
    assert calls < 10


def test_blocks_are_summed_from_groups() -> None:
    of = stacked()
    honest = bits(of)
    order = SumOrder(float(len(IDS)), True, ((0, IDS),))
    *trained, summed = list(of.train(1, (), model(of), sums=order))
    assert isinstance(summed, Summed)
    assert summed.participants == IDS
    assert all(isinstance(result, Trained) and result.norm is not None for result in trained)
    mean_D = np.mean([np.frombuffer(update, np.float32) for update in honest.values()], axis=0)
    np.testing.assert_allclose(summed.sum_D, mean_D, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_round_on_cuda_agrees_with_the_cpu() -> None:
    of = host(IDS, training=TrainingSettings(epochs=2, batch_size=16, device="cuda"))
    assert_close(of, host(IDS))
    sent = of.network.resident.sent  # type: ignore[attr-defined]
    assert bits(of) == bits(of)
    assert of.network.resident.sent == sent  # type: ignore[attr-defined]
