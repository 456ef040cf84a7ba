"""What every test gets: the real data if it is here, caches of its own, and one thread."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep benign references out of the user's cache folder."""
    monkeypatch.setenv("TURNCOAT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True, scope="session")
def _one_numeric_thread() -> Iterator[None]:
    """As in an actor: another number may add in another order, and few cores would wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], str]:
    """Returns the path of a file of the data folder, or skips the test."""
    folder = Path(os.environ.get("TURNCOAT_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> str:
        path = folder / name
        if not path.is_file():
            pytest.skip(f"needs {name} in the data folder: set TURNCOAT_DATA to it")
        return str(path)

    return find
