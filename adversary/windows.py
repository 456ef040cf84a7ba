"""Windows of rounds in which participants poison, each at its own rate."""

from itertools import pairwise
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from nodes.runtime.components import Config

Rate = Annotated[float, Field(ge=0, le=1)]
Round = Annotated[int, Field(ge=1)]


class Window(Config):
    """Rounds `from` to `to`, poisoned at `rate`, which may rise from there."""

    model_config = ConfigDict(serialize_by_alias=True)

    start: Round = Field(alias="from")
    """First round."""
    to: Round | None = None
    """Last round, included; null for the run's last."""
    rate: Rate = 1.0
    """Share of the candidate rows that is poisoned (DPR, alpha)."""
    rise: Rate = 0.0
    """Added to the rate every `every` rounds, up to 1."""
    every: Annotated[int, Field(ge=1)] = 1

    @field_validator("to")
    @classmethod
    def _not_before_start(cls, to: int | None, info: ValidationInfo) -> int | None:
        start = info.data.get("start")
        if to is not None and start is not None and to < start:
            raise ValueError(f"expected a round from {start} on, where the window begins")
        return to

    @field_validator("every")
    @classmethod
    def _not_without_rise(cls, every: int, info: ValidationInfo) -> int:
        if every > 1 and info.data.get("rise") == 0:
            raise ValueError("expected a rise above 0 along with it")
        return every

    def covers(self, round: int) -> bool:
        """Whether the round is in the window."""
        return self.start <= round and (self.to is None or round <= self.to)

    def rate_in(self, round: int) -> float:
        """Return min(1, rate + rise * ((round - from) // every)), rounded to 12 decimals: 0.1 + 2 * 0.1 is 0.3.

        >>> window(1, rate=0.1, rise=0.1).rate_in(3)
        0.3
        """
        return min(1.0, round_off(self.rate + self.rise * ((round - self.start) // self.every)))

    def __str__(self) -> str:
        """Say it in words.

        >>> str(window(3, 6, 0.5)), str(window(2))
        ('from 3 to 6 at 0.5', 'from 2 on at 1')
        """
        end = "on" if self.to is None else f"to {self.to}"
        rise = f", {self.rise:g} more every {self.every} rounds" if self.rise else ""
        return f"from {self.start} {end} at {self.rate:g}{rise}"


def window(start: int, to: int | None = None, rate: float = 1.0, rise: float = 0.0) -> Window:
    """Return the window; `from`, the scenario's word for `start`, cannot be a Python argument."""
    return Window.model_validate({"from": start, "to": to, "rate": rate, "rise": rise})


def round_off(rate: float) -> float:
    """Return the rate to 12 decimals, free of the noise of float sums."""
    return round(rate, 12)


def check_apart(windows: tuple[Window, ...]) -> tuple[Window, ...]:
    """Return the windows by first round. Raises ValueError when there is none or when two have a round in common.

    >>> check_apart((window(1, 3), window(3)))
    Traceback (most recent call last):
    ValueError: expected windows without a common round, not 'from 1 to 3 at 1' and 'from 3 on at 1'
    """
    if not windows:
        raise ValueError("expected at least one window")
    ordered = tuple(sorted(windows, key=lambda each: each.start))
    for earlier, later in pairwise(ordered):
        if earlier.covers(later.start):
            raise ValueError(f"expected windows without a common round, not '{earlier}' and '{later}'")
    return ordered
