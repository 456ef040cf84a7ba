"""The same federation as a plain loop in one process: train one participant after the other, average, test."""

import argparse
import time
from pathlib import Path

import torch
from task import TRAIN, initial, make_net, rows, save, test
from torch import nn


def main() -> None:
    """Run all rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    for name in ("participants", "rounds", "epochs", "batch", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    data, count = chosen.data, chosen.participants
    model = initial(data)
    weights = torch.tensor([len(rows(data, str(part))[1]) for part in range(count)], dtype=torch.float64)
    shares = (weights / weights.sum()).float()
    ends: list[float] = []
    for round in range(1, chosen.rounds + 1):
        start = nn.utils.parameters_to_vector(model.parameters()).detach()
        mean = torch.zeros_like(start)
        for part in range(count):
            net = make_net(data)
            nn.utils.vector_to_parameters(start.clone(), net.parameters())
            TRAIN["tuned"](net, data, part, round, chosen.epochs, chosen.batch)
            mean += shares[part] * nn.utils.parameters_to_vector(net.parameters()).detach()
        nn.utils.vector_to_parameters(mean, model.parameters())
        test(model, data)
        ends.append(time.time())
    save(model, ends, chosen.out)


if __name__ == "__main__":
    main()
