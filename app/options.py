"""Options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by train, demo or import.")]
