"""What a run was made by: versions, machine, source state; and the digest that a cached result is kept under."""

import hashlib
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOMS = ("nodes", "coordinator", "adversary", "analysis", "deploy")
PACKAGES = ("turncoat", "ray", "grpcio", "protobuf", "numpy", "torch", "pandas", "pyarrow", "scikit-learn", "pydantic")
ROOT = Path(__file__).resolve().parent.parent


@cache
def code_digest() -> str:
    """SHA-256 over the source of every room: results made by other code are other results."""
    digest = hashlib.sha256()
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def environment(seed: int) -> dict[str, Any]:
    """Versions, machine, seed and git state, for `environment.json`."""
    return {
        "seed": seed,
        "python": platform.python_version(),
        "packages": versions(),
        "machine": {
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "host": platform.node(),
        },
        "code": code_digest(),
        "git": _git_state(),
        "command": sys.argv,
    }


def versions() -> dict[str, str | None]:
    """Installed versions of the packages that decide a result."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    try:
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "clean": not changed}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
