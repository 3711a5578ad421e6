"""`convscope show`: how a drawing was made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .printing import AsJson


def show(
    picture: Annotated[
        Path, typer.Argument(metavar="FILE", help="a .png, .pdf, .svg, .npz or .safetensors file that convscope wrote")
    ],
    as_json: AsJson = False,
) -> None:
    """Print how a drawing was made: the recipe inside its file, always as JSON."""
    from ..drawing.files import read_recipe

    print(read_recipe(picture).to_json())
