"""Benchmark A, first row: the bare trainer loop against its matrix products alone, on one thread.

One local epoch over 80,000 rows of 39 features, a 39-128-128-1 perceptron, Adam. In every round of the measurement the
trainer, its floor and plain PyTorch take turns, so that they meet the same machine; medians are reported.

Floor: the eight products that a step needs (three forward, three for weight gradients, two for the gradients of
activations) into preallocated outputs, as many times as the epoch has steps. The last of them has rank one and is
done by `np.multiply`, which is faster there than a matrix product; `floor_all_gemm` uses `np.matmul` for it too.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.harness import options, report, take_turns
from nodes.data.shard import Shard
from nodes.models.base import Fit
from nodes.runtime.arrays import F32
from nodes.runtime.seeds import generator
from nodes.training.mlp import MLP
from nodes.training.settings import Adam, TrainingSettings

WIDTHS = (39, 128, 128, 1)
TARGETS = {32: 2.0, 128: 1.7, 512: 1.5}


def flows(rows: int) -> Shard:
    """Return random rows with a label that can be learnt."""
    rng = generator(1313, "benchmark-rows")
    features_BF = rng.random((rows, WIDTHS[0]), dtype=np.float32)
    labels_B = (features_BF[:, :5].sum(axis=1) > 2.5).astype(np.int64)
    return Shard(features_BF, labels_B, labels_B)


def trainer(shard: Shard, batch: int) -> Callable[[], object]:
    """Return one epoch of the trainer, from the same start each time."""
    network = MLP(WIDTHS, "sigmoid")
    start_D = network.initial(generator(1313, "benchmark-start"))
    settings = TrainingSettings(epochs=1, batch_size=batch, optimizer=Adam(lr=1e-4))
    return lambda: network.fit(start_D.copy(), Fit(shard, settings, generator(1313, "benchmark-order")))


def products(batch: int, *, all_gemm: bool) -> Callable[[], None]:
    """Return the eight products of one step."""
    rng = generator(1313, "benchmark-products")

    def full(*shape: int) -> F32:
        return rng.standard_normal(shape, dtype=np.float32)

    layers = list(itertools.pairwise(WIDTHS))
    inputs = [full(batch, wide) for wide, _ in layers]
    outputs = [full(batch, narrow) for _, narrow in layers]
    weights = [full(narrow, wide) for wide, narrow in layers]
    gradients = [full(narrow, wide) for wide, narrow in layers]
    calls: list[tuple[Any, F32, F32, F32]] = []
    for a, w, z, g in zip(inputs, weights, outputs, gradients, strict=True):
        calls.append((np.matmul, a, w.T, z))
        calls.append((np.matmul, z.T, a, g))
    for a, w, z in zip(inputs[1:], weights[1:], outputs[1:], strict=True):
        calls.append((np.matmul if all_gemm or len(w) > 1 else np.multiply, z, w, np.empty_like(a)))

    def step() -> None:
        for call, left, right, out in calls:
            call(left, right, out=out)

    return step


def floor(rows: int, batch: int, *, all_gemm: bool) -> Callable[[], None]:
    """Return the products of one epoch; the ragged last batch counts by its share of rows."""
    step = products(batch, all_gemm=all_gemm)
    tail = products(rows % batch, all_gemm=all_gemm) if rows % batch else None

    def epoch() -> None:
        for _ in range(rows // batch):
            step()
        if tail is not None:
            tail()

    return epoch


def eager(shard: Shard, batch: int) -> Callable[[], None]:
    """Return one epoch of plain PyTorch on tensor slices, without DataLoader."""
    import torch

    torch.set_num_threads(1)
    features, labels = torch.from_numpy(shard.features_BF), torch.from_numpy(shard.labels_B).float()
    layers: list[torch.nn.Module] = []
    for wide, narrow in itertools.pairwise(WIDTHS):
        layers += [torch.nn.Linear(wide, narrow), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1])

    def epoch() -> None:
        adam = torch.optim.Adam(model.parameters(), lr=1e-4)
        order = torch.randperm(len(labels))
        for start in range(0, len(labels), batch):
            rows = order[start : start + batch]
            adam.zero_grad()
            logits = model(features[rows])[:, 0]
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels[rows]).backward()  # type: ignore[no-untyped-call]
            adam.step()

    return epoch


def main() -> None:
    """Print the table, write JSON."""
    chosen = options(__doc__, rows=80_000, repeats=7, torch=1)
    shard = flows(chosen.rows)
    rows = []
    with threadpool_limits(limits=1):
        for batch, target in TARGETS.items():
            contestants: dict[str, Callable[[], object]] = {
                "trainer": trainer(shard, batch),
                "floor": floor(chosen.rows, batch, all_gemm=False),
                "floor_all_gemm": floor(chosen.rows, batch, all_gemm=True),
            }
            if chosen.torch:
                contestants["torch_eager"] = eager(shard, batch)
            times = take_turns(contestants, chosen.repeats)
            steps = -(-chosen.rows // batch)
            micros = {f"{name} us": time["wall_s"] / steps * 1e6 for name, time in times.items()}
            rows.append(
                {
                    "batch": batch,
                    "ratio": times["trainer"]["wall_s"] / times["floor"]["wall_s"],
                    "target": target,
                    **micros,
                    "trainer cpu us": times["trainer"]["cpu_s"] / steps * 1e6,
                }
            )
    report("A trainer / its matrix products, microseconds a step, one thread", rows, chosen.out)


if __name__ == "__main__":
    main()
