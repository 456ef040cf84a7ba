"""`python -m deploy.stubs [--check] PROTO…`: the gRPC stubs, made anew or compared with the committed."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path


def generate(protos: list[Path], target: Path) -> None:
    """Write the stubs of `protos` under `target`. Raises CalledProcessError when a file does not compile."""
    outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *outputs, *map(str, protos)]
    subprocess.run(command, check=True)


def differing(protos: list[Path]) -> list[Path]:
    """Return the committed stubs that differ from freshly made ones, or are missing."""
    with tempfile.TemporaryDirectory() as folder:
        generate(protos, Path(folder))
        fresh = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        committed = [path.relative_to(folder) for path in fresh]
        return [
            old
            for old, new in zip(committed, fresh, strict=True)
            if not old.exists() or old.read_bytes() != new.read_bytes()
        ]


def main() -> int:
    """Run the command; 1 when `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail on a difference")
    parser.add_argument("protos", nargs="+", type=Path)
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.protos, Path())
        return 0
    stale = differing(arguments.protos)
    for path in stale:
        sys.stderr.write(f"{path} is not what proto/ says: run `make stubs`\n")
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
