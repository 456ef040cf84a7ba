"""Short strings for common schedules, parsed strictly.

Those of the label-flipping study (Lavaur, Busnel, Autrel, ARES 2024: `continuous-R`, `late-K`, `redemption-K`) and
`one-shot-K`, `increments-R`, `window-K-L`. R is a whole percentage, K and L are rounds, which count from 1.
"""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from adversary.windows import Window, window


@dataclass(frozen=True, slots=True)
class Form:
    """One kind of string: its `grammar`, which numbers are `valid`, the window they make with a rate.

    states_rate: the numbers are rates, and the scenario's `rate` has no say; else they are rounds.
    """

    grammar: str
    count: int
    valid: Callable[[list[int]], bool]
    build: Callable[[list[int], float], Window]
    states_rate: bool = False


FORMS = {
    "continuous": Form(
        grammar="continuous-R (R percent in every round, 0 to 100)",
        count=1,
        valid=lambda n: n[0] <= 100,
        build=lambda n, _: window(1, rate=n[0] / 100),
        states_rate=True,
    ),
    "increments": Form(
        grammar="increments-R (R points more every round, 1 to 100)",
        count=1,
        valid=lambda n: 1 <= n[0] <= 100,
        build=lambda n, _: window(1, rate=n[0] / 100, rise=n[0] / 100),
        states_rate=True,
    ),
    "late": Form(
        grammar="late-K (poisoned from round K on, K from 1)",
        count=1,
        valid=lambda n: n[0] >= 1,
        build=lambda n, rate: window(n[0], rate=rate),
    ),
    "one-shot": Form(
        grammar="one-shot-K (poisoned in round K only, K from 1)",
        count=1,
        valid=lambda n: n[0] >= 1,
        build=lambda n, rate: window(n[0], n[0], rate),
    ),
    "redemption": Form(
        grammar="redemption-K (clean from round K on, K from 2)",
        count=1,
        valid=lambda n: n[0] >= 2,
        build=lambda n, rate: window(1, n[0] - 1, rate),
    ),
    "window": Form(
        grammar="window-K-L (poisoned in rounds K to L, 1 <= K <= L)",
        count=2,
        valid=lambda n: 1 <= n[0] <= n[1],
        build=lambda n, rate: window(n[0], n[1], rate),
    ),
}


def read(text: str) -> tuple[Form, list[int]]:
    """Return the form of a string and its numbers. Raises ValueError with the grammar that was expected.

    >>> read("window-3-6")[1]
    [3, 6]
    >>> read("late-0")
    Traceback (most recent call last):
    ValueError: expected late-K (poisoned from round K on, K from 1)
    >>> read("redemtion-3")
    Traceback (most recent call last):
    ValueError: expected redemption-K (clean from round K on, K from 2)
    """
    for name, form in FORMS.items():
        if re.fullmatch(name + "-(0|[1-9][0-9]{0,8})" * form.count, text):
            numbers = [int(digits) for digits in text.removeprefix(name + "-").split("-")]
            if form.valid(numbers):
                return form, numbers
    raise ValueError(f"expected {_nearest_grammar(text)}")


def _nearest_grammar(text: str) -> str:
    word = re.split(r"[-_ ]*[0-9]", text, maxsplit=1)[0].strip("-_ ").lower().replace("_", "-")
    close = difflib.get_close_matches(word, FORMS, n=1)
    return FORMS[close[0]].grammar if close else "one of " + ", ".join(form.grammar for form in FORMS.values())
