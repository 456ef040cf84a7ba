from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adversary.schedule import parse
from adversary.shorthand import FORMS
from adversary.windows import Window
from nodes.runtime.errors import ScenarioError


def rates(value: Any, rate: float | None = None, rounds: int = 6) -> list[float]:
    schedule = parse(value, rate)
    return [schedule.rate(round) for round in range(1, rounds + 1)]


@pytest.mark.parametrize(
    ("text", "rate", "expected"),
    [
        ("continuous-70", None, [0.7, 0.7, 0.7, 0.7, 0.7, 0.7]),
        ("continuous-100", None, [1, 1, 1, 1, 1, 1]),
        ("continuous-0", None, [0, 0, 0, 0, 0, 0]),
        ("late-1", None, [1, 1, 1, 1, 1, 1]),
        ("late-3", None, [0, 0, 1, 1, 1, 1]),
        ("late-3", 0.4, [0, 0, 0.4, 0.4, 0.4, 0.4]),
        ("redemption-3", None, [1, 1, 0, 0, 0, 0]),
        ("redemption-2", 0.4, [0.4, 0, 0, 0, 0, 0]),
        ("one-shot-5", None, [0, 0, 0, 0, 1, 0]),
        ("window-3-5", 0.5, [0, 0, 0.5, 0.5, 0.5, 0]),
        ("window-2-2", None, [0, 1, 0, 0, 0, 0]),
        ("increments-10", None, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        ("increments-30", None, [0.3, 0.6, 0.9, 1, 1, 1]),
        (None, None, [1, 1, 1, 1, 1, 1]),
        (None, 0.3, [0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
    ],
)
def test_rates_by_round(text: str | None, rate: float | None, expected: list[float]) -> None:
    assert rates(text, rate) == expected


def test_windows_may_be_many_and_in_any_order() -> None:
    assert rates([{"from": 4}, {"from": 1, "to": 2, "rate": 0.5}]) == [0.5, 0.5, 0, 1, 1, 1]


def test_a_window_rises_from_its_first_round() -> None:
    rising = [{"from": 2, "to": 6, "rate": 0.1, "rise": 0.4, "every": 2}]
    assert rates(rising, rounds=7) == [0, 0.1, 0.1, 0.5, 0.5, 0.9, 0]


@given(st.sampled_from(sorted(FORMS)), st.lists(st.integers(0, 120), min_size=2, max_size=2))
def test_strings_are_read_as_written_or_refused_with_their_grammar(name: str, numbers: list[int]) -> None:
    form = FORMS[name]
    text = "-".join([name, *map(str, numbers[: form.count])])

    if not form.valid(numbers):
        with pytest.raises(ValueError, match=f"^expected {name}-"):
            parse(text)
        return
    schedule = parse(text)
    assert schedule.text == text
    assert all(0 <= schedule.rate(round) <= 1 for round in range(1, 150))


@given(st.integers(2, 50), st.integers(1, 100))
def test_late_and_redemption_complement_each_other(k: int, round: int) -> None:
    assert parse(f"late-{k}").rate(round) + parse(f"redemption-{k}").rate(round) == 1


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("late-0", "late-K"),
        ("late-3x", "late-K"),
        ("late--3", "late-K"),
        ("late-03", "late-K"),
        ("late-3-4", "late-K"),
        ("late-3\n", "late-K"),
        (" late-3", "late-K"),
        ("late-", "late-K"),
        ("late", "late-K"),
        ("late-\u0663", "late-K"),
        ("late_3", "late-K"),
        ("Late-3", "late-K"),
        ("lat-3", "late-K"),
        ("redemption-1", "redemption-K"),
        ("redemption-0", "redemption-K"),
        ("redemtion-3", "redemption-K"),
        ("oneshot-3", "one-shot-K"),
        ("one-shot-0", "one-shot-K"),
        ("one_shot-3", "one-shot-K"),
        ("continuous-170", "continuous-R"),
        ("continuous-0.7", "continuous-R"),
        ("continuous-70%", "continuous-R"),
        ("continous-70", "continuous-R"),
        ("increments-0", "increments-R"),
        ("increment-10", "increments-R"),
        ("window-3", "window-K-L"),
        ("window-6-3", "window-K-L"),
        ("window-0-3", "window-K-L"),
        ("always", "one of continuous-R"),
        ("", "one of continuous-R"),
    ],
)
def test_refuses_a_string_naming_the_nearest_form(text: str, form: str) -> None:
    with pytest.raises(ValueError, match=f"^expected {form} "):
        parse(text)


@pytest.mark.parametrize("value", ["continuous-70", "increments-10", [{"from": 1}]])
def test_a_rate_beside_a_schedule_that_states_its_own_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="expected no rate beside"):
        parse(value, 0.5)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match="expected a number in"):
        parse("late-3", rate)


@pytest.mark.parametrize(
    "windows",
    [
        [],
        [{"from": 1}, {"from": 5}],
        [{"from": 1, "to": 3}, {"from": 3, "to": 4}],
        [{"from": 3, "to": 4}, {"from": 1, "to": 9}],
        [{"from": 3, "to": 2}],
        [{"from": 0}],
        [{"from": True}],
        [{"from": 1, "rate": 1.5}],
        [{"from": 1, "rate": "0.5"}],
        [{"from": 1, "every": 2}],
        [{"from": 1, "until": 2}],
        [{"start": 1}],
        [{"to": 2}],
    ],
)
def test_refuses_windows_that_make_no_sense(windows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError):
        parse(windows)


@pytest.mark.parametrize(
    ("value", "last"),
    [
        ("late-10", 10),
        ("redemption-10", 10),
        ("one-shot-10", 10),
        ("window-3-10", 10),
        ("continuous-70", 1),
        ("increments-10", 1),
        (None, 1),
        ([{"from": 1, "to": 2}, {"from": 10}], 10),
        ([{"from": 1, "to": 10}], 10),
    ],
)
def test_a_round_beyond_the_last_is_refused(value: Any, last: int) -> None:
    schedule = parse(value)

    schedule.check(last)
    if last > 1:
        with pytest.raises(ScenarioError, match=f"^adversary.schedule: got .* expected rounds up to {last - 1}"):
            schedule.check(last - 1)


def test_rounds_count_from_1() -> None:
    with pytest.raises(ValueError, match="rounds count from 1"):
        parse("late-3").rate(0)


def test_text_tells_the_rate_where_it_was_given() -> None:
    assert parse("late-3", 0.5).text == "late-3 at 0.5"
    assert parse(None, 0.5).text == "every round at 0.5"
    rising = [{"from": 2, "to": 3, "rate": 0.5}, {"from": 5, "rate": 0.1, "rise": 0.1}]
    assert parse(rising).text == "from 2 to 3 at 0.5; from 5 on at 0.1, 0.1 more every 1 rounds"


def test_a_window_is_dumped_as_it_is_read() -> None:
    window = Window.model_validate({"from": 2, "rate": 0.5})

    assert Window.model_validate(window.model_dump()) == window
    with pytest.raises(ValidationError, match="frozen"):
        window.rate = 0.1  # type: ignore[misc]
