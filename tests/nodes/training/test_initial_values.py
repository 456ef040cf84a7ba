"""Initial values have the distributions that PyTorch and Keras document."""

import numpy as np
import pytest

from nodes.training.mlp import MLP


def test_glorot_uniform_is_kerass_default() -> None:
    network = MLP((39, 128, 1), "sigmoid", "glorot-uniform")
    tensors = network.layout.split(network.initial(np.random.default_rng(7)))
    bound = np.sqrt(6 / (39 + 128))
    weights = tensors["0.weight"]
    assert np.abs(weights).max() <= bound
    assert weights.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
    assert not tensors["0.bias"].any()
    assert not tensors["2.bias"].any()


def test_kaiming_uniform_is_torchs_default() -> None:
    torch = pytest.importorskip("torch")
    network = MLP((39, 128, 1), "sigmoid")
    ours = network.layout.split(network.initial(np.random.default_rng(7)))
    with torch.random.fork_rng():
        theirs = torch.nn.Linear(39, 128)
    for name, tensor in (("0.weight", theirs.weight), ("0.bias", theirs.bias)):
        assert np.abs(ours[name]).max() == pytest.approx(tensor.detach().abs().max().item(), rel=0.05)
