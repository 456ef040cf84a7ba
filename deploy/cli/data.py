"""`turncoat data`: looks at data files."""

import json
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(help="Look at data files.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look at data files."""


@app.command()
def describe(
    path: Annotated[str, typer.Argument(help="A csv, csv.gz or parquet file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a file holds: its source, classes, features, what is dropped and why, and its quirks."""
    from nodes.data.describe import describe as describe_file

    description = describe_file(path)
    if as_json:
        typer.echo(json.dumps(description.to_dict(), indent=2))
        return
    console = Console(highlight=False)
    console.print(description)
