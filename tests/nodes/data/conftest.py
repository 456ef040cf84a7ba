"""Small made-up files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes text to a file and returns its path."""

    def put(text: str, name: str = "flows.csv") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return put


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A csv of 60 flows: numbers `bytes` and `packets`, a category `service`, classes ok (40), scan (15), worm (5)."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "bytes": rng.integers(40, 9000, 60),
            "packets": rng.random(60).round(3),
            "service": rng.choice(["dns", "http", "-"], 60),
            "label": ["ok"] * 40 + ["scan"] * 15 + ["worm"] * 5,
        }
    )
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return str(path)
