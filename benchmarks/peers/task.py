"""The workload in plain PyTorch, for Flower's client and for the sequential loop: rows, model, training, test.

Runs in the peers' environment, without Turncoat. Rows, initial weights and seed come from the file that the benchmark
writes; `slices` meets its rows in the same order as Turncoat does.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LEARNING_RATE = 1e-4


@functools.cache
def rows(data: str, part: str) -> tuple[Tensor, Tensor]:
    """Features [B, F] and labels [B, 1] of a participant ("0", "1", …) or of the "test", read once per process."""
    with np.load(data) as arrays:
        return torch.from_numpy(arrays[f"features_{part}"]), torch.from_numpy(arrays[f"labels_{part}"])


def make_net(data: str) -> nn.Sequential:
    """The multilayer perceptron for these rows."""
    with np.load(data) as arrays:
        wide, *hidden = arrays["widths"].tolist()
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(wide, width), nn.ReLU()]
        wide = width
    return nn.Sequential(*layers[:-1])


def initial(data: str) -> nn.Sequential:
    """The network with the initial weights of the file."""
    net = make_net(data)
    with np.load(data) as arrays:
        nn.utils.vector_to_parameters(torch.from_numpy(arrays["initial"]), net.parameters())
    return net


def order(data: str, round: int, participant: int) -> np.random.Generator:
    """The generator that shuffles a participant's rows in a round, seeded as Turncoat's."""
    with np.load(data) as arrays:
        seed = int(arrays["seed"])
    tag = int.from_bytes(hashlib.sha256(b"local-training").digest()[:8], "little")
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence(entropy=(seed, tag), spawn_key=(round, participant)))
    )


def train_slices(net: nn.Module, data: str, part: int, round: int, epochs: int, batch: int) -> float:
    """Tuned: rows stay in two tensors, each epoch shuffles them once and cuts them; no number leaves torch."""
    features, labels = rows(data, str(part))
    rng = order(data, round, part)
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    net.train()
    total = torch.zeros(())
    for _ in range(epochs):
        shuffled = torch.from_numpy(rng.permutation(len(labels)))
        for x, y in zip(features[shuffled].split(batch), labels[shuffled].split(batch), strict=True):
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.detach()
    return total.item() / (epochs * -(-len(labels) // batch))


def train_loader(net: nn.Module, data: str, part: int, round: int, epochs: int, batch: int) -> float:
    """As Flower's PyTorch tutorials: a shuffling DataLoader, and each step's loss as a number."""
    device = torch.device("cpu")
    seed = int(order(data, round, part).integers(1 << 62))
    dataset = TensorDataset(*rows(data, str(part)))
    loader = DataLoader(dataset, batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(seed))
    net.to(device)
    criterion = nn.BCEWithLogitsLoss().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    net.train()
    total = 0.0
    for _ in range(epochs):
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item()
    return total / (epochs * len(loader))


TRAIN: dict[str, Callable[[nn.Module, str, int, int, int, int], float]] = {
    "tuned": train_slices,
    "tutorial": train_loader,
}


def test(net: nn.Module, data: str) -> dict[str, float]:
    """Accuracy and F1 of detection on the test rows."""
    features, labels = rows(data, "test")
    net.eval()
    with torch.no_grad():
        found, attack = net(features)[:, 0] > 0, labels[:, 0] > 0
    hits, alarms = int((found & attack).sum()), int(found.sum())
    attacks = int(attack.sum())
    f1 = 2 * hits / (alarms + attacks) if alarms + attacks else 0.0
    return {"accuracy": int((found == attack).sum()) / len(labels), "f1": f1}


def save(net: nn.Module, ends: list[float], out: Path) -> None:
    """Leave the final model and the times at which rounds ended for the benchmark."""
    vector: npt.NDArray[np.float32] = nn.utils.parameters_to_vector(net.parameters()).detach().numpy()
    np.savez(out, model=vector, ends=np.asarray(ends))
