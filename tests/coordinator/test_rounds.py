"""The round's state machine: what it asks for, and what it does not care about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.rounds import (
    Abort,
    Aggregate,
    Aggregated,
    Begin,
    DeadlinePassed,
    Dispatch,
    Evaluate,
    Evaluated,
    Event,
    Finish,
    Instruction,
    ParticipantLost,
    Rounds,
    UpdateArrived,
)


def begun(participants: tuple[int, ...] = (0, 1, 2), num_rounds: int = 2, min_updates: int = 1) -> Rounds:
    machine = Rounds(num_rounds, participants, min_updates)
    machine.handle(Begin())
    return machine


def answers(machine: Rounds, events: list[Event]) -> list[Instruction]:
    return [instruction for event in events for instruction in machine.handle(event)]


def test_begin_dispatches_to_all_sorted_and_only_once() -> None:
    machine = Rounds(1, (3, 0, 2))
    assert machine.handle(Begin()) == [Dispatch(1, (0, 2, 3))]
    assert machine.handle(Begin()) == []


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([UpdateArrived(1, 2), UpdateArrived(1, 0), UpdateArrived(1, 1)], (0, 1, 2)),
        ([UpdateArrived(1, 2), ParticipantLost(1, 0), UpdateArrived(1, 1)], (1, 2)),
        ([UpdateArrived(1, 2), DeadlinePassed(1)], (2,)),
        ([ParticipantLost(1, 0), ParticipantLost(1, 1), UpdateArrived(1, 2)], (2,)),
        ([UpdateArrived(1, 0), UpdateArrived(1, 0), UpdateArrived(1, 1), ParticipantLost(1, 2)], (0, 1)),
    ],
)
def test_a_round_closes_with_the_last_answer(events: list[Event], kept: tuple[int, ...]) -> None:
    machine = begun()
    for event in events[:-1]:
        assert machine.handle(event) == []
    assert machine.handle(events[-1]) == [Aggregate(1, kept)]


def test_an_update_that_arrived_stays_when_its_participant_is_lost_afterwards() -> None:
    machine = begun((0, 1))
    events: list[Event] = [UpdateArrived(1, 0), ParticipantLost(1, 0), UpdateArrived(1, 1)]
    assert answers(machine, events) == [Aggregate(1, (0, 1))]


def test_a_lost_participant_does_not_come_back_in_the_same_round() -> None:
    machine = begun((0, 1))
    events: list[Event] = [ParticipantLost(1, 0), UpdateArrived(1, 0), UpdateArrived(1, 1)]
    assert answers(machine, events) == [Aggregate(1, (1,))]


def test_a_lost_participant_is_asked_again_in_the_next_round() -> None:
    machine = begun((0, 1))
    events: list[Event] = [ParticipantLost(1, 0), UpdateArrived(1, 1), Aggregated(1), Evaluated(1)]
    assert answers(machine, events)[-1] == Dispatch(2, (0, 1))


@pytest.mark.parametrize(
    "stale",
    [
        UpdateArrived(2, 0),
        UpdateArrived(0, 0),
        UpdateArrived(1, 99),
        ParticipantLost(2, 0),
        ParticipantLost(1, 99),
        DeadlinePassed(2),
        Aggregated(1),
        Evaluated(1),
        Begin(),
    ],
)
def test_events_of_another_round_phase_or_stranger_change_nothing(stale: Event) -> None:
    machine = begun((0, 1))
    machine.handle(UpdateArrived(1, 1))
    assert machine.handle(stale) == []
    assert machine.handle(UpdateArrived(1, 0)) == [Aggregate(1, (0, 1))]


@pytest.mark.parametrize("late", [UpdateArrived(1, 1), ParticipantLost(1, 1), DeadlinePassed(1), Evaluated(1)])
def test_what_comes_during_aggregation_is_too_late(late: Event) -> None:
    machine = begun((0, 1))
    answers(machine, [UpdateArrived(1, 0), DeadlinePassed(1)])
    assert machine.handle(late) == []
    assert answers(machine, [Aggregated(1), late, Aggregated(1)]) in ([Evaluate(1)], [Evaluate(1), Dispatch(2, (0, 1))])


@pytest.mark.parametrize("arrived", [0, 1])
def test_too_few_updates_abort_and_end_everything(arrived: int) -> None:
    machine = begun(min_updates=2)
    for participant in range(arrived):
        assert machine.handle(UpdateArrived(1, participant)) == []
    (abort,) = machine.handle(DeadlinePassed(1))
    assert isinstance(abort, Abort)
    assert abort.reason == f"{arrived} updates admitted in round 1, at least 2 needed"
    rest: list[Event] = [Begin(), UpdateArrived(1, 2), DeadlinePassed(1), Aggregated(1), Evaluated(1)]
    assert answers(machine, rest) == []


@st.composite
def collections(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Event], int]:
    """Participants, answers in any order and number (each participant gives one at least), fewest updates."""
    ids = draw(st.lists(st.integers(0, 50), min_size=1, max_size=6, unique=True))
    kinds = st.sampled_from([UpdateArrived, ParticipantLost])
    once = [draw(kinds)(1, id) for id in ids]
    more = draw(st.lists(st.builds(lambda kind, id: kind(1, id), kinds, st.sampled_from([*ids, 51])), max_size=8))
    events: list[Event] = draw(st.permutations([*once, *more]))
    if draw(st.booleans()):
        events.insert(draw(st.integers(0, len(events))), DeadlinePassed(1))
    return tuple(ids), events, draw(st.integers(1, len(ids)))


@given(collections())
def test_any_order_ends_the_round_once_with_the_first_answers(
    case: tuple[tuple[int, ...], list[Event], int],
) -> None:
    ids, events, min_updates = case
    first: dict[int, type] = {}
    for event in events:
        if len(first) == len(ids) or isinstance(event, DeadlinePassed):
            break
        assert isinstance(event, UpdateArrived | ParticipantLost)
        if event.participant in ids:
            first.setdefault(event.participant, type(event))
    arrived = tuple(sorted(id for id, kind in first.items() if kind is UpdateArrived))
    (instruction,) = answers(begun(ids, min_updates=min_updates), events)
    if len(arrived) < min_updates:
        assert isinstance(instruction, Abort)
    else:
        assert instruction == Aggregate(1, arrived)


@given(st.integers(1, 5), st.sets(st.integers(0, 9), min_size=1), st.randoms())
def test_a_whole_run_asks_for_every_step_of_every_round_once(num_rounds: int, ids: set[int], rng: object) -> None:
    machine = Rounds(num_rounds, tuple(ids))
    everyone = tuple(sorted(ids))
    log = machine.handle(Begin())
    for round in range(1, num_rounds + 1):
        arrivals: list[Event] = [UpdateArrived(round, id) for id in ids]
        rng.shuffle(arrivals)
        log += answers(machine, [*arrivals, Aggregated(round), Evaluated(round)])
    expected: list[Instruction] = []
    for round in range(1, num_rounds + 1):
        expected += [Dispatch(round, everyone), Aggregate(round, everyone), Evaluate(round)]
    assert log == [*expected, Finish()]
    assert answers(machine, [Begin(), Evaluated(num_rounds), DeadlinePassed(num_rounds)]) == []
