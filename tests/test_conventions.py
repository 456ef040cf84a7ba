"""What holds all over the project: light imports where thousands of processes pay for them, and documented names."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("nodes", "coordinator", "adversary", "analysis", "deploy")
SOURCES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
MODULES = [path for path in SOURCES if not path.name.endswith(("_pb2.py", "_grpc.py"))]
HEAVY = ("torch", "pandas", "sklearn", "pyarrow", "matplotlib", "ray", "byzfl")


def imported(statement: str) -> set[str]:
    """The heavy packages that are in memory after a statement, in a process of its own."""
    code = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "modules", ["nodes.server, nodes.service, nodes.host, nodes.participant, nodes.models.mlp, nodes.training.mlp",
                "adversary.behaviours, adversary.attacks.label_flip"]
)  # fmt: skip
def test_what_an_actor_needs_is_light(modules: str) -> None:
    assert imported(f"import {modules}") == set()


def test_an_actor_that_trains_an_mlp_and_is_taken_over_stays_light() -> None:
    statement = """
import sys
sys.path.insert(0, "tests")
import numpy as np
from fakes import host
of = host()
of.assume("flip", [0], "adversary.behaviours:make", '{"attack": {"name": "label-flip"}}')
assert len(list(of.train(1, [0, 1], of.network.initial(np.random.default_rng(0))))) == 2
"""
    assert imported(statement) == set()


def test_the_actor_module_brings_nothing_heavy_but_ray() -> None:
    assert imported("import nodes.actor") - imported("import ray") == set()


def test_the_command_line_starts_without_ray_and_torch() -> None:
    assert imported("import deploy.cli.main") & {"ray", "torch", "sklearn", "matplotlib"} == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    if tree.body and path.name != "__init__.py":
        assert ast.get_docstring(tree), "the module says nothing of itself"
    assert list(undocumented(tree)) == []


def undocumented(scope: ast.Module | ast.ClassDef) -> list[str]:
    found = []
    for node in scope.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not inherited(node, scope):
            found.append(node.name)
        if isinstance(node, ast.ClassDef):
            found += undocumented(node)
    return found


def inherited(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, scope: ast.Module | ast.ClassDef) -> bool:
    """Methods of a class with bases, or of a private one, may say in the base what they do."""
    if not isinstance(scope, ast.ClassDef):
        return False
    return bool(scope.bases) or isinstance(node, ast.ClassDef)


def test_proto_holds_no_python() -> None:
    """`proto` is the import name of proto-plus."""
    assert list((ROOT / "proto").rglob("*.py")) == []
    assert {path.suffix for path in (ROOT / "proto").rglob("*") if path.is_file()} == {".proto"}
