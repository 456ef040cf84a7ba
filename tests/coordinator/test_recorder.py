"""The recorder: whatever ends a run, finished rounds are on disk and readable by others."""

import json
import math
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from coordinator.recorder import EVENTS, PARTICIPANTS, ROUNDS, Recorder, class_column, write_json
from coordinator.records import Figure, ParticipantRow, RoundRecord


def record(round: int, **changes: Figure) -> RoundRecord:
    rows = (
        ParticipantRow(round, 1, "refused", "not finite: 1 of 4 values", rows=50, bytes=16),
        ParticipantRow(
            round, 0, "admitted", rows=40, steps=3, first_loss=0.7, last_loss=0.5, bytes=16,
            seconds={"train": 0.25, "encode": 0.5}, update_norm=2.0, cosine=math.nan, kept=True, weight=1.0,
            accuracy_local=0.75,
        ),
        ParticipantRow(round, 2, "lost", "actor-2: UNAVAILABLE: gone"),
    )  # fmt: skip
    figures: dict[str, Figure] = {
        "accuracy": 0.5 + round / 10,
        "rasr": None,
        "recall_per_class": {"Benign": 1.0, "Brute Force": None},
        **changes,
    }
    return RoundRecord(round, figures, rows, {"collect": 1.0, "aggregate": 0.5}, bytes_down=48, bytes_up=32)


def test_rounds_are_readable_after_each_round_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.recorder.REWRITE_SHARE", 0)
    recorder = Recorder(tmp_path)
    for round in (1, 2, 3):
        recorder.round_done(record(round))
        frame = pd.read_parquet(tmp_path / ROUNDS)
        assert frame["round"].tolist() == list(range(1, round + 1))
        assert not list(tmp_path.glob("*.part"))
    recorder.close()


def test_quick_rounds_are_written_at_the_latest_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.recorder.REWRITE_SHARE", 1e9)
    recorder = Recorder(tmp_path)
    for round in (1, 2, 3):
        recorder.round_done(record(round))
    assert pd.read_parquet(tmp_path / ROUNDS)["round"].tolist() == [1]
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert [line["round"] for line in lines if line["event"] == "round_done"] == [1, 2, 3]
    recorder.close()
    assert pd.read_parquet(tmp_path / ROUNDS)["round"].tolist() == [1, 2, 3]


def test_a_round_is_one_flat_row(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.round_done(record(1))
    recorder.round_done(record(2, rasr=0.25))
    recorder.close()
    frame = pd.read_parquet(tmp_path / ROUNDS)
    last = frame.iloc[-1].to_dict()
    assert last["accuracy"] == pytest.approx(0.7)
    assert (last["selected"], last["admitted"], last["refused"], last["lost"], last["late"]) == (3, 1, 1, 1, 0)
    assert (last["bytes_down"], last["bytes_up"], last["seconds_collect"], last["seconds"]) == (48, 32, 1.0, 1.5)
    assert last["recall_Benign"] == 1.0
    assert math.isnan(last["recall_Brute_Force"])
    assert math.isnan(frame["rasr"][0])
    assert frame["rasr"][1] == 0.25
    assert {str(frame[name].dtype) for name in ("round", "selected", "admitted", "bytes_up")} == {"int64"}
    assert {str(frame[name].dtype) for name in ("accuracy", "rasr", "recall_Brute_Force", "seconds")} == {"float64"}


def test_participants_are_a_row_each_sorted_with_typed_columns(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.round_done(record(1))
    recorder.round_done(record(2))
    recorder.close()
    frame = pd.read_parquet(tmp_path / PARTICIPANTS)
    assert list(zip(frame["round"], frame["participant"], strict=True)) == [(r, p) for r in (1, 2) for p in (0, 1, 2)]
    assert frame["state"].tolist()[:3] == ["admitted", "refused", "lost"]
    assert frame["reason"][2] == "actor-2: UNAVAILABLE: gone"
    assert (frame["seconds_train"][0], frame["seconds_encode"][0]) == (0.25, 0.5)
    assert frame[["seconds_evaluate", "cosine", "accuracy_global"]].loc[0].isna().all()
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / PARTICIPANTS)}
    assert {types[name] for name in ("round", "participant", "rows", "steps", "bytes")} == {"int64"}
    assert {types[name] for name in ("first_loss", "weight", "accuracy_global", "seconds_train")} == {"double"}
    assert (types["kept"], types["state"], types["reason"]) == ("bool", "string", "string")


def test_an_exception_in_the_middle_leaves_readable_files(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)

    def go() -> None:
        try:
            recorder.event("round_started", round=1)
            recorder.round_done(record(1))
            recorder.event("round_started", round=2)
            raise RuntimeError("in the middle")
        finally:
            recorder.close()
            recorder.close()

    with pytest.raises(RuntimeError, match="in the middle"):
        go()
    assert len(pd.read_parquet(tmp_path / ROUNDS)) == 1
    assert len(pd.read_parquet(tmp_path / PARTICIPANTS)) == 3
    assert recorder.rounds == [pd.read_parquet(tmp_path / ROUNDS).astype(object).where(lambda f: f.notna(), None)
                               .iloc[0].to_dict()]  # fmt: skip


def test_no_round_at_all_leaves_an_empty_participants_table(tmp_path: Path) -> None:
    Recorder(tmp_path).close()
    frame = pd.read_parquet(tmp_path / PARTICIPANTS)
    assert len(frame) == 0
    assert "update_norm" in frame
    assert not (tmp_path / ROUNDS).exists()


def test_events_are_json_lines_in_order_and_flushed_at_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.event("round_started", round=1, participants=3)
    recorder.event("participant_lost", round=1, participant=2, reason='says "no"\nand goes - away')
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    recorder.round_done(record(1))
    recorder.close()
    assert [line["event"] for line in lines] == ["round_started", "participant_lost"]
    assert lines[1]["reason"] == 'says "no"\nand goes - away'
    assert pd.Timestamp(lines[0]["at"]) <= pd.Timestamp(lines[1]["at"])
    assert pd.Timestamp(lines[0]["at"]).tzinfo is not None
    last = json.loads((tmp_path / EVENTS).read_text().splitlines()[-1])
    assert (last["event"], last["round"], last["admitted"]) == ("round_done", 1, 1)


def test_classes_with_spaces_get_a_column_that_can_be_typed() -> None:
    assert class_column("recall", "Brute Force") == "recall_Brute_Force"


def test_json_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"status": "done"})
    with pytest.raises(TypeError):
        write_json(path, {"status": {1, 2}})
    assert json.loads(path.read_text()) == {"status": "done"}
