"""Plain PyTorch, written as its tutorials do, against which the trainers are held."""

import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from nodes.data.shard import Shard
from nodes.models.base import Network
from nodes.training.settings import Adam, TrainingSettings


def rows(count: int, num_features: int, num_classes: int, seed: int = 0) -> Shard:
    """Random rows with labels that can be learnt, read-only as they arrive from an object store."""
    rng = np.random.default_rng(seed)
    features_BF = rng.standard_normal((count, num_features)).astype(np.float32)
    scores_BC = features_BF @ rng.standard_normal((num_features, num_classes)) + rng.standard_normal(num_classes)
    labels_B = scores_BC.argmax(axis=1).astype(np.int64)
    for array in (features_BF, labels_B):
        array.setflags(write=False)
    return Shard(features_BF, labels_B, labels_B)


def sequential(widths: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def loss_of(module: nn.Module, features_BF: np.ndarray, labels_B: np.ndarray) -> torch.Tensor:
    """Mean cross-entropy: sigmoid for one output, softmax for more."""
    parameter = next(module.parameters())
    logits, labels = module(torch.tensor(features_BF, dtype=parameter.dtype)), torch.tensor(labels_B)
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(parameter.dtype))
    return functional.cross_entropy(logits, labels)


def load(module: nn.Module, network: Network, params_D: np.ndarray) -> None:
    """Give a module the tensors of a flat vector, by name."""
    module.load_state_dict({name: torch.tensor(value) for name, value in network.layout.split(params_D).items()})


def watch_kinks(module: nn.Module) -> list[float]:
    """Return a list that gets the smallest distance of a ReLU's input from zero, for each forward pass to come.

    A unit within rounding of its kink may fall either way; from there on, two right trainings differ.
    """
    distances: list[float] = []
    for layer in module.modules():
        if isinstance(layer, nn.ReLU):
            layer.register_forward_pre_hook(lambda _, inputs: distances.append(inputs[0].detach().abs().min().item()))
    return distances


def flat(module: nn.Module) -> np.ndarray:
    """All parameters in one vector."""
    return nn.utils.parameters_to_vector(module.parameters()).detach().numpy()


def train(
    module: nn.Module, shard: Shard, settings: TrainingSettings, rng: np.random.Generator, lr: float | None = None
) -> list[float]:
    """Train with torch.optim; return the mean loss of each pass."""
    chosen = settings.optimizer
    lr, decay = lr or chosen.lr, chosen.weight_decay
    optimizer: torch.optim.Optimizer
    if isinstance(chosen, Adam):
        optimizer = torch.optim.Adam(module.parameters(), lr, (chosen.beta1, chosen.beta2), chosen.eps, decay)
    else:
        optimizer = torch.optim.SGD(module.parameters(), lr, chosen.momentum, weight_decay=decay)
    losses: list[float] = []
    steps = 0
    while True:
        order_B = rng.permutation(len(shard))
        total, seen = 0.0, 0
        for batch_B in np.split(order_B, range(settings.batch_size, len(order_B), settings.batch_size)):
            optimizer.zero_grad()
            loss = loss_of(module, shard.features_BF[batch_B], shard.labels_B[batch_B])
            loss.backward()
            optimizer.step()
            total, seen, steps = total + loss.item() * len(batch_B), seen + len(batch_B), steps + 1
            if steps == settings.steps:
                return [*losses, total / seen]
        losses.append(total / seen)
        if len(losses) == settings.epochs:
            return losses
