"""Both trainers against plain PyTorch: same start, same batches, many steps."""

import numpy as np
import pytest
import torch
from torch_reference import flat, load, loss_of, rows, sequential, train, watch_kinks

from nodes.models.base import Fit, Loss, Network
from nodes.training.autograd import TorchNetwork
from nodes.training.mlp import MLP
from nodes.training.settings import SGD, Adam, TrainingSettings

OPTIMIZERS = {
    "adam": Adam(lr=1e-3),
    "adam-decay": Adam(lr=2e-3, beta1=0.8, beta2=0.99, eps=1e-4, weight_decay=1e-2),
    "sgd": SGD(lr=0.1),
    "sgd-momentum": SGD(lr=0.05, momentum=0.9),
    "sgd-momentum-decay": SGD(lr=0.05, momentum=0.9, weight_decay=1e-2),
}
LENGTHS = {
    "epochs": {"epochs": 20, "batch_size": 32},  # 10 steps a pass, the last batch has 13 rows of 32
    "epochs-even": {"epochs": 12, "batch_size": 43},  # 7 equal batches
    "steps": {"steps": 205, "batch_size": 32},  # ends inside a pass
    "whole": {"epochs": 30, "batch_size": 1000},  # one batch is the whole shard
}
NETWORKS: dict[str, tuple[tuple[int, ...], Loss]] = {
    "sigmoid": ((7, 16, 12, 1), "sigmoid"),
    "softmax": ((7, 16, 12, 4), "softmax"),
    "logistic": ((7, 1), "sigmoid"),
    "linear-softmax": ((7, 3), "softmax"),
}


def build(kind: str, widths: tuple[int, ...], loss: Loss) -> Network:
    if kind == "numpy":
        return MLP(widths, loss)
    return TorchNetwork(lambda: sequential(widths), widths[0], widths[-1], loss)


@pytest.mark.parametrize("kind", ["numpy", "autograd"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("network", NETWORKS)
def test_same_parameters_and_losses_as_pytorch(kind: str, optimizer: str, length: str, network: str) -> None:
    widths, loss = NETWORKS[network]
    shard = rows(301, widths[0], max(2, widths[-1]))
    settings = TrainingSettings.model_validate({**LENGTHS[length], "optimizer": OPTIMIZERS[optimizer]})
    ours = build(kind, widths, loss)
    for seed in range(20):
        params_D = MLP(widths, loss).initial(np.random.default_rng(seed))
        theirs = sequential(widths)
        load(theirs, ours, params_D)
        kinks = watch_kinks(theirs)
        losses = train(theirs, shard, settings, np.random.default_rng(2))
        if min(kinks, default=1) > 2e-6:
            break
    report = ours.fit(params_D, Fit(shard, settings, np.random.default_rng(2)))
    np.testing.assert_allclose(params_D, flat(theirs), rtol=1e-4, atol=1e-5)
    assert report.first_loss == pytest.approx(losses[0], rel=1e-5)
    assert report.last_loss == pytest.approx(losses[-1], rel=1e-4)


@pytest.mark.parametrize("batch_size", [32, 96, 512])
def test_the_study_s_network_over_two_hundred_steps(batch_size: int) -> None:
    widths, shard = (39, 128, 128, 1), rows(1500, 39, 2)
    settings = TrainingSettings(steps=200, batch_size=batch_size, optimizer=Adam(lr=1e-4))
    ours, theirs = MLP(widths, "sigmoid"), sequential(widths)
    params_D = ours.initial(np.random.default_rng(1))
    load(theirs, ours, params_D)
    ours.fit(params_D, Fit(shard, settings, np.random.default_rng(2)))
    train(theirs, shard, settings, np.random.default_rng(2))
    np.testing.assert_allclose(params_D, flat(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["numpy", "autograd"])
def test_learning_rate_decays_by_round(kind: str) -> None:
    widths, shard = (5, 6, 2), rows(64, 5, 2)
    settings = TrainingSettings(epochs=2, batch_size=16, optimizer=SGD(lr=0.1), lr_decay=0.9, lr_decay_rounds=20)
    ours, theirs = build(kind, widths, "softmax"), sequential(widths)
    params_D = ours.initial(np.random.default_rng(1))
    load(theirs, ours, params_D)
    ours.fit(params_D, Fit(shard, settings, np.random.default_rng(2), round=41))
    train(theirs, shard, settings, np.random.default_rng(2), lr=0.1 * 0.81)
    np.testing.assert_allclose(params_D, flat(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["numpy", "autograd"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("count", [1, 2, 512, 1111, 2600])
def test_gradient_and_logits_of_any_batch(kind: str, network: str, count: int) -> None:
    widths, loss = NETWORKS[network]
    shard = rows(count, widths[0], max(2, widths[-1]))
    ours, theirs = build(kind, widths, loss), sequential(widths).double()
    params_D = ours.initial(np.random.default_rng(1))
    load(theirs, ours, params_D)
    mean, gradient_D = ours.gradient(params_D, shard.features_BF, shard.labels_B)
    expected = loss_of(theirs, shard.features_BF, shard.labels_B)
    expected.backward()
    expected_D = torch.cat([parameter.grad.reshape(-1) for parameter in theirs.parameters()]).numpy()
    assert mean == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(gradient_D, expected_D, rtol=1e-4, atol=1e-6)
    logits_BC = theirs(torch.tensor(shard.features_BF).double()).detach().numpy()
    np.testing.assert_allclose(ours.logits(params_D, shard.features_BF), logits_BC, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["sigmoid", "softmax"])
def test_extreme_logits_stay_finite_and_exact(loss: Loss) -> None:
    network = MLP((1, 1 if loss == "sigmoid" else 2), loss)
    slope = [1000.0] if loss == "sigmoid" else [-500.0, 500.0]
    params_D = np.float32([*slope, *([0.0] * len(slope))])
    features_BF, labels_B = np.float32([[1], [1], [-1], [-1]]), np.array([1, 0, 0, 1])
    mean, gradient_D = network.gradient(params_D, features_BF, labels_B)
    assert mean == pytest.approx(500.0)
    np.testing.assert_allclose(gradient_D[0], 0.5 if loss == "sigmoid" else -0.5)
