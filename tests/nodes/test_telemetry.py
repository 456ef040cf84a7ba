"""Spans: a valid OTLP line, one tree across processes, and nothing when switched off."""

import json
import threading
import time
from typing import Any

import pytest

from nodes.runtime import telemetry as module
from nodes.runtime.telemetry import Telemetry, incoming, outgoing


def spans(telemetry: Telemetry) -> dict[str, dict[str, Any]]:
    line = telemetry.drain()
    assert line.endswith("\n")
    assert line.count("\n") == 1
    (resource_spans,) = json.loads(line)["resourceSpans"]
    (scope_spans,) = resource_spans["scopeSpans"]
    return {span["name"]: span for span in scope_spans["spans"]}


def attributes(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: pair["value"] for pair in pairs}


def test_a_line_is_what_the_collectors_file_receiver_reads() -> None:
    telemetry = Telemetry("actor-0007")
    before = time.time_ns()
    with telemetry.span("round", {"fl.round": 3, "fl.run": "x", "share": 0.5, "late": True}):
        pass
    after = time.time_ns()
    document = json.loads(line := telemetry.drain())
    assert line == json.dumps(document, separators=(",", ":")) + "\n"
    assert document.keys() == {"resourceSpans"}
    (resource_spans,) = document["resourceSpans"]
    assert attributes(resource_spans["resource"]["attributes"])["service.name"] == {"stringValue": "actor-0007"}
    (span,) = resource_spans["scopeSpans"][0]["spans"]
    assert len(span["traceId"]) == 32
    assert len(span["spanId"]) == 16
    assert int(span["traceId"], 16) > 0
    assert int(span["spanId"], 16) > 0
    start, end = span["startTimeUnixNano"], span["endTimeUnixNano"]
    assert isinstance(start, str)
    assert before <= int(start) <= int(end) <= after
    assert span["kind"] == 1  # SPAN_KIND_INTERNAL
    assert "parentSpanId" not in span
    assert attributes(span["attributes"]) == {
        "fl.round": {"intValue": "3"},
        "fl.run": {"stringValue": "x"},
        "share": {"doubleValue": 0.5},
        "late": {"boolValue": True},
    }


def test_children_point_to_their_parent() -> None:
    telemetry = Telemetry("test")
    with telemetry.span("outer"):
        with telemetry.span("inner"):
            pass
        with telemetry.span("second"):
            pass
    found = spans(telemetry)
    assert found["inner"]["parentSpanId"] == found["second"]["parentSpanId"] == found["outer"]["spanId"]
    assert len({span["traceId"] for span in found.values()}) == 1
    assert len({span["spanId"] for span in found.values()}) == 3


def test_a_call_carries_the_parent_to_another_process_and_thread() -> None:
    coordinator, actor = Telemetry("coordinator"), Telemetry("actor")

    def served(metadata: tuple[tuple[str, str], ...]) -> None:
        with actor.span("participant", {"fl.participant": 1}, incoming(metadata)), actor.span("train"):
            pass

    with coordinator.span("round"):
        thread = threading.Thread(target=served, args=((("authorization", "Bearer x"), *outgoing()),))
        thread.start()
        thread.join()
    ours, theirs = spans(coordinator), spans(actor)
    assert theirs["participant"]["parentSpanId"] == ours["round"]["spanId"]
    assert theirs["participant"]["traceId"] == ours["round"]["traceId"] == theirs["train"]["traceId"]
    assert theirs["train"]["parentSpanId"] == theirs["participant"]["spanId"]


@pytest.mark.parametrize("metadata", [None, (), (("traceparent", "garbage"),), (("traceparent", b"\xff"),)])
def test_a_call_without_a_readable_parent_starts_a_trace_of_its_own(metadata: Any) -> None:
    telemetry = Telemetry("actor")
    with telemetry.span("bystander"), telemetry.span("served", None, incoming(metadata)):
        pass
    found = spans(telemetry)
    assert "parentSpanId" not in found["served"]
    assert found["served"]["traceId"] != found["bystander"]["traceId"]


def test_a_failed_block_is_marked_and_its_error_passes() -> None:
    telemetry = Telemetry("test")
    with pytest.raises(LookupError), telemetry.span("outer"), telemetry.span("inner"):
        raise LookupError("no such row")
    for span in spans(telemetry).values():
        assert span["status"]["code"] == 2  # STATUS_CODE_ERROR
        assert "no such row" in span["status"]["message"]


def test_drained_spans_are_forgotten_and_unfinished_ones_wait() -> None:
    telemetry = Telemetry("test")
    with telemetry.span("outer"):
        with telemetry.span("inner"):
            pass
        assert spans(telemetry).keys() == {"inner"}
        assert telemetry.drain() == ""
    assert spans(telemetry).keys() == {"outer"}


def test_switched_off_it_records_nothing_and_carries_nothing() -> None:
    telemetry = Telemetry("test", enabled=False)
    with telemetry.span("round") as span:
        assert span is None
        assert outgoing() == ()
    assert telemetry.drain() == ""


def test_what_exceeds_the_bound_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SPANS", 2)
    telemetry = Telemetry("test")
    for name in "abc":
        with telemetry.span(name):
            pass
    assert telemetry.dropped == 1
    assert spans(telemetry).keys() == {"a", "b"}
