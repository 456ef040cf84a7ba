"""The truth log: who was controlled and how much was poisoned, by round, whatever ends the run."""

from pathlib import Path

import pandas as pd
import pytest

from adversary.schedule import parse
from adversary.truth import TRUTH, TruthLog


@pytest.fixture
def log(tmp_path: Path) -> TruthLog:
    return TruthLog(tmp_path, 4, (1, 3), "label-flip", parse("late-2", 0.5))


def test_a_row_per_round_and_participant(log: TruthLog, tmp_path: Path) -> None:
    for round in (1, 2):
        log.event("round_started", round=round, participants=4)
        log.event("participant_lost", round=round, participant=1, reason="gone")
        log.round_done(object())
    log.close()
    log.close()
    frame = pd.read_parquet(tmp_path / TRUTH)
    assert list(zip(frame["round"], frame["participant"], strict=True)) == [(r, p) for r in (1, 2) for p in range(4)]
    assert frame["controlled"].tolist() == [False, True, False, True] * 2
    assert frame["rate"].tolist() == [0, 0, 0, 0, 0, 0.5, 0, 0.5]
    assert frame["attack"].fillna("").tolist() == ["", "label-flip", "", "label-flip"] * 2


def test_a_run_that_ends_before_its_first_round_leaves_an_empty_table(log: TruthLog, tmp_path: Path) -> None:
    log.close()
    frame = pd.read_parquet(tmp_path / TRUTH)
    assert len(frame) == 0
    assert list(frame) == ["round", "participant", "controlled", "attack", "rate"]
