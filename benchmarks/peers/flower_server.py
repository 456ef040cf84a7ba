"""Flower's server and its simulation engine: FedAvg by rows, tested on the server after each round, not on clients."""

import argparse
import time
from pathlib import Path

import torch
from flower_client import app as client_app
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from task import initial, make_net, save, test


def main() -> None:
    """Run one simulation in this process; Ray starts and ends with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--style", choices=("tuned", "tutorial", "none"), required=True)
    for name in ("participants", "rounds", "epochs", "batch"):
        parser.add_argument(f"--{name}", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    server_app = ServerApp()
    ends: list[float] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Test the global model after each round; Turncoat does not test the initial one either."""
        if server_round == 0:
            return None
        net = make_net(chosen.data)
        net.load_state_dict(arrays.to_torch_state_dict())
        figures = test(net, chosen.data)
        ends.append(time.time())
        return MetricRecord(figures)

    @server_app.main()
    def serve(grid: Grid, _: Context) -> None:
        """Run all rounds."""
        count = chosen.participants
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count)
        config = {"data": chosen.data, "style": chosen.style, "epochs": chosen.epochs, "batch": chosen.batch}
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(initial(chosen.data).state_dict()),
            num_rounds=chosen.rounds,
            train_config=ConfigRecord(config),
            evaluate_fn=evaluate,
        )
        net = make_net(chosen.data)
        net.load_state_dict(result.arrays.to_torch_state_dict())
        save(net, ends, chosen.out)

    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=chosen.participants,
        backend_config={
            "init_args": {"_node_ip_address": "127.0.0.1"},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    main()
