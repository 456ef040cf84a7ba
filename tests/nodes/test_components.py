"""Registries: a component is one file, found by its name; a wrong name is answered with the nearest."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from nodes.runtime.components import Component, Config, OneOf, Registry, nearest
from nodes.runtime.errors import ScenarioError

FILE = '''
from typing import Literal
from made_up import KINDS
from nodes.runtime.components import Component

@KINDS.register
class {title}(Component):
    """The {name} kind.

    More words.
    """
    name: Literal["{name}"] = "{name}"
    size: int = 1
'''


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Any]]:
    """A package `made_up` with the components round-one and square."""
    folder = tmp_path / "made_up"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from nodes.runtime.components import Registry\nKINDS = Registry('kind', 'made_up')\n"
    )
    (folder / "round_one.py").write_text(FILE.format(name="round-one", title="RoundOne"))
    (folder / "square.py").write_text(FILE.format(name="square", title="Square"))
    (folder / "_private.py").write_text("raise RuntimeError('imported a private file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("made_up").KINDS
    for name in [name for name in sys.modules if name.partition(".")[0] == "made_up"]:
        del sys.modules[name]


def test_a_component_is_found_by_name_importing_only_its_file(kinds: Registry[Any]) -> None:
    assert kinds.get("round-one").key() == "round-one"
    assert "made_up.round_one" in sys.modules
    assert "made_up.square" not in sys.modules


def test_all_are_listed_sorted_with_their_summary(kinds: Registry[Any]) -> None:
    assert kinds.names() == ["round-one", "square"]
    assert [item.summary() for item in kinds] == ["The round-one kind.", "The square kind."]


@pytest.mark.parametrize("name", ["squaer", "_private", "", "os", "round_two"])
def test_an_unknown_name_is_refused_with_what_there_is(kinds: Registry[Any], name: str) -> None:
    with pytest.raises(ScenarioError) as error:
        kinds.get(name)
    assert str(error.value).startswith(f"kind: got {name!r}, expected ")
    assert "round-one, square" in str(error.value)


def test_two_classes_of_one_name_are_refused(kinds: Registry[Any]) -> None:
    kinds.names()

    class Impostor(Component):
        """Another."""

        name: Literal["square"] = "square"

    with pytest.raises(ValueError, match="kind 'square' is both"):
        kinds.register(Impostor)
    assert kinds.get("square") is not Impostor


def test_one_of_reads_each_component_by_its_name_and_closes_it_to_strangers(kinds: Registry[Any]) -> None:
    choice: TypeAdapter[Any] = TypeAdapter(Annotated[Component, OneOf(kinds)])
    read = choice.validate_json('{"name": "square", "size": 4}')
    assert read is not None
    assert type(read) is kinds.get("square")
    assert (read.name, read.size) == ("square", 4)
    assert choice.dump_python(read, mode="json") == {"name": "square", "size": 4}
    assert {"RoundOne", "Square"} <= choice.json_schema()["$defs"].keys()
    for wrong in (
        '{"name": "circle"}',
        '{"size": 4}',
        '{"name": "square", "sise": 4}',
        '{"name": "square", "size": "4"}',
    ):
        with pytest.raises(ValidationError):
            choice.validate_json(wrong)


def test_configuration_is_frozen_strict_and_finite() -> None:
    class Knob(Config):
        """A knob."""

        level: float = 0.5
        """How far it is turned."""

    with pytest.raises(ValidationError, match="frozen"):
        Knob().level = 1.0
    for value in ("0.5", float("nan"), float("inf"), True, None):
        with pytest.raises(ValidationError):
            Knob(level=value)
    assert Knob.model_json_schema()["properties"]["level"]["description"] == "How far it is turned."


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("medain", "'median' (of fedavg, median)"),
        ("FEDAVG!", "one of fedavg, median"),
        ("", "one of fedavg, median"),
        ("zzz", "one of fedavg, median"),
    ],
)
def test_nearest(word: str, said: str) -> None:
    assert nearest(word, ["fedavg", "median"]) == said
