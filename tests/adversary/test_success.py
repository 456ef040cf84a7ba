"""AASR and RASR against the published figures of the label-flipping study (Lavaur, Busnel, Autrel, ARES 2024)."""

import csv
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adversary.success import Objective, aasr, rasr

ANCHORS = Path(os.environ.get("TURNCOAT_ANCHORS", Path(__file__).parents[2] / "../shared/anchors"))
RECALLS = {
    "bot": "recall_Bot",
    "dos": "recall_DoS",
    "ddos": "recall_DDoS",
    "bruteforce": "recall_Brute_Force",
    "infiltration": "recall_Infilteration",
}
rates = st.floats(0, 1)


def read(name: str) -> list[dict[str, str]]:
    path = ANCHORS / name
    if not path.is_file():
        pytest.skip(f"needs the published figures, {name}, in the folder that TURNCOAT_ANCHORS names")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def objective(target: str) -> Objective:
    return Objective("accuracy") if target == "untargeted" else Objective("recall_per_class", target)


def final_figures(distribution: str, scenario: str, target: str) -> dict[str, object]:
    """Return the published means of round 10 as evaluation figures; `10-0` is the benign run."""
    key = (distribution, "100_10x10", "512", scenario, target, "10")
    names = ("distribution", "epochs", "batch_size", "scenario", "target", "round")
    row = next(row for row in read("ares_by_round.csv") if tuple(row[name] for name in names) == key)
    recalls = {short: float(row[column]) for short, column in RECALLS.items()}
    return {"accuracy": float(row["accuracy"]), "recall_per_class": recalls}


def test_aasr_of_published_recalls_is_the_published_aasr() -> None:
    distributions = {"0.1": "9-1", "0.3": "7-3", "0.5": "5-5", "0.7": "3-7"}
    full = [row for row in read("ares_rq5_final_round.csv") if row["alpha"] == "1.0"]

    assert len(full) == 24
    for row in full:
        figures = final_figures(distributions[row["tau"]], "continuous-100", row["target"])
        # Figures by round are published to 4 decimals.
        assert aasr(figures, objective(row["target"])) == pytest.approx(float(row["aasr_mean"]), abs=6e-5), row


def test_rasr_of_published_aasr_is_the_published_rasr() -> None:
    benign = final_figures("10-0", "continuous-100", "untargeted")
    compared = 0
    for row in read("ares_rq5_final_round.csv"):
        if row["target"] == "infiltration" or float(row["aasr_mean"]) < 0.01:
            continue
        expected = rasr(aasr(benign, objective(row["target"])), float(row["aasr_mean"]))
        # A formula of means, where the study took means of the formula: equal to first order.
        assert expected == pytest.approx(float(row["rasr_mean"]), abs=3e-4), row
        compared += 1
    assert compared > 80


def test_infiltration_is_missed_anyway_so_that_its_rasr_is_smaller() -> None:
    benign = final_figures("10-0", "continuous-100", "untargeted")
    rows = [row for row in read("ares_rq5_final_round.csv") if row["target"] == "infiltration"]
    clear = [row for row in rows if float(row["rasr_mean"]) > 3 * float(row["rasr_sd"])]
    assert len(clear) >= 8
    for row in clear:
        # 1 - AASR_benign is only 0.194, so that what means hide is five times larger.
        expected = rasr(aasr(benign, objective("infiltration")), float(row["aasr_mean"]))
        assert expected == pytest.approx(float(row["rasr_mean"]), abs=1e-3), row


@given(rates.filter(lambda rate: rate < 1), rates)
def test_rasr_is_a_share_and_0_unless_the_attack_did_harm(benign: float, attacked: float) -> None:
    value = rasr(benign, attacked)

    assert value is not None
    assert 0 <= value <= 1
    assert (value > 0) == (attacked > benign)


@given(rates.filter(lambda rate: rate < 1))
def test_rasr_of_a_total_success_is_1(benign: float) -> None:
    assert rasr(benign, 1.0) == 1


def test_rasr_is_unknown_where_nothing_could_be_lost_or_nothing_is_known() -> None:
    assert rasr(1.0, 1.0) is None
    assert rasr(1.0, 0.2) is None
    assert rasr(None, 0.2) is None
    assert rasr(0.2, None) is None


def test_aasr_is_the_miss_rate_of_the_figure() -> None:
    figures = {"accuracy": 0.75, "recall": 0.5, "recall_per_class": {"DoS": 0.25, "Bot": None}}

    assert aasr(figures, Objective("accuracy")) == 0.25
    assert aasr(figures, Objective("recall")) == 0.5
    assert aasr(figures, Objective("recall_per_class", "DoS")) == 0.75
    assert aasr(figures, Objective("recall_per_class", "Bot")) is None
