"""The label-flipping study (Lavaur, Busnel, Autrel, ARES 2024) on the reduced NF-CSE-CIC-IDS2018-v2.

`make study` runs it (about seven minutes on two cores), prints the table that the README shows, and leaves it in
runs/studies/label-flipping.csv. The reduced file has 28 batches an epoch where the study had 157, so that all but the
matched-steps runs learn less; the bounds are those of a plain loop of the same shape.
"""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.runs import open_run
from deploy.cli.progress import Quiet
from deploy.loading import load_scenario
from deploy.session import Session

pytestmark = [pytest.mark.study, pytest.mark.serial]

ROOT = Path(__file__).parents[2]
SEEDS = (1313, 1977, 327)
CASES = {
    "benign": ("benign", []),
    "benign, 1,570 steps a round": ("benign", ["training.epochs=null", "training.steps=1570"]),
    "continuous-100, tau .3": ("label-flip-continuous", ["adversary.share=0.3"]),
    "continuous-100, tau .5": ("label-flip-continuous", ["adversary.share=0.5"]),
    "continuous-100, tau .7": ("label-flip-continuous", ["adversary.share=0.7"]),
    "late-3, tau .5": ("label-flip-late", []),
    "redemption-3, tau .7": ("label-flip-redemption", []),
}


@pytest.fixture(scope="module")
def rounds(shared_data: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Every case, seed and round: accuracy, F1, AASR, RASR."""
    path = shared_data("netflow_v2/NF-CSE-CIC-IDS2018-v2_reduced.parquet")
    folder = tmp_path_factory.mktemp("study")
    frames = []
    with Session(Quiet()) as session:
        for case, (name, settings) in CASES.items():
            for seed in SEEDS:
                scenario = load_scenario(ROOT / "scenarios" / f"{name}.yaml", [f"data.path={path}", *settings], seed)
                directory = folder / f"{case}-{seed}"
                session.run(scenario, directory)
                frames.append(open_run(directory).rounds().assign(case=case, seed=seed))
    table = pd.concat(frames, ignore_index=True)
    _publish(table)
    return table


def _publish(rounds: pd.DataFrame) -> None:
    target = ROOT / "runs" / "studies"
    target.mkdir(parents=True, exist_ok=True)
    rounds.to_csv(target / "label-flipping.csv", index=False)
    last = rounds[rounds["round"] == 10].groupby("case", sort=False)[["accuracy", "f1", "aasr", "rasr"]]
    table = pd.concat({"mean": last.mean(), "sd": last.std()}, axis=1).swaplevel(axis=1).sort_index(axis=1)
    print("\nround 10, seeds", *SEEDS)
    print(table.round(4).to_string())
    shape = rounds.pivot_table(index="case", columns="round", values="accuracy", sort=False)
    print("\nmean accuracy by round")
    print(shape.round(3).to_string())


def final(rounds: pd.DataFrame, case: str, column: str) -> float:
    """Mean over seeds at round 10."""
    return by_round(rounds, case, 10, column)


def by_round(rounds: pd.DataFrame, case: str, round: int, column: str) -> float:
    """Mean over seeds at a round."""
    chosen = rounds[(rounds["case"] == case) & (rounds["round"] == round)]
    return float(chosen[column].mean())


def test_benign_detector_is_as_good_as_a_plain_loop(rounds: pd.DataFrame) -> None:
    assert final(rounds, "benign", "accuracy") == pytest.approx(0.987, abs=0.003)
    assert final(rounds, "benign", "f1") == pytest.approx(0.949, abs=0.01)


def test_matched_steps_reach_the_published_detector(rounds: pd.DataFrame) -> None:
    assert final(rounds, "benign, 1,570 steps a round", "accuracy") == pytest.approx(0.994, abs=0.002)
    assert final(rounds, "benign, 1,570 steps a round", "f1") == pytest.approx(0.977, abs=0.006)


def test_three_attackers_of_ten_do_little_and_seven_take_over(rounds: pd.DataFrame) -> None:
    assert final(rounds, "continuous-100, tau .3", "accuracy") >= 0.955
    assert final(rounds, "continuous-100, tau .7", "accuracy") <= 0.08


def test_redemption_heals_within_two_rounds(rounds: pd.DataFrame) -> None:
    case = "redemption-3, tau .7"
    assert all(by_round(rounds, case, round, "accuracy") < 0.1 for round in (1, 2))
    assert by_round(rounds, case, 4, "accuracy") > 0.94
