"""How the adversary's behaviours come to life on a node: the factory that `Assume` names."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from adversary.settings import Poisoning
from nodes.behaviour import Behaviour

FACTORY = "adversary.behaviours:make"
"""What `Assume` is given."""


def make(parameters: Mapping[str, Any]) -> Behaviour:
    """Build the behaviour of `AdversaryConfig.plan()`. Raises ValueError, in one line, when the parameters are wrong.

    >>> type(make({"attack": {"name": "label-flip"}, "schedule": "late-3", "rate": 0.5})).__name__
    '_Flipping'
    >>> make({"attack": {"name": "label-flip"}, "schedule": "late-0"})
    Traceback (most recent call last):
    ValueError: schedule: expected late-K (poisoned from round K on, K from 1)
    """
    try:
        poisoning = Poisoning.model_validate_json(json.dumps(dict(parameters)))
    except ValidationError as error:
        raise ValueError("; ".join(map(_line, error.errors()))) from None
    except TypeError as error:
        raise ValueError(f"expected parameters that JSON can hold: {error}") from None
    return poisoning.attack.build(poisoning.timetable)


def _line(problem: Mapping[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(map(str, problem['loc']))}: {message}"
