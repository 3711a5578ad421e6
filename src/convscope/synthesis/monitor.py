"""What is shown while pictures are synthesized: progress with a label, and previews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from torch import Tensor

from .. import outputs
from ..context import preview, previews, say
from ..data.display import to_image
from ..drawing.layout import side_by_side
from ..errors import OptionError, OutputError
from ..options import Range, Unrecorded

Preview = Annotated[Path | None, "write the current picture to this file every --preview-every steps", Unrecorded]
PreviewEvery = Annotated[int, "steps between two previews", Range(1), Unrecorded]


@dataclass(frozen=True)
class Monitor:
    """The label of the progress bar, and previews every so many steps, in a file and to whoever listens.

    Raises OptionError for a file that is no picture, OutputError for a folder that cannot be written.
    """

    label: str = "synthesizing"
    preview: Path | None = None
    every: int = 50

    def __post_init__(self) -> None:
        if self.every < 1:
            raise OptionError(f"preview_every must be at least 1 step, not {self.every}")
        if self.preview is not None:
            if self.preview.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
                raise OptionError(f"a preview is a .png, .jpg or .webp file, not {self.preview}")
            outputs.check_file(self.preview)

    def due(self, step: int) -> bool:
        """Whether somebody wants to see the pictures after this step."""
        return step % self.every == 0 and (self.preview is not None or previews())

    def show(self, pixels: Tensor, bands: Sequence[int] = ()) -> None:
        """Show pictures (n, c, h, w) side by side, in the given bands."""

        def image() -> Image.Image:
            return side_by_side([to_image(picture, bands) for picture in pixels.detach().float().cpu().numpy()])

        preview(image)
        if self.preview is not None:
            try:
                outputs.write_image(self.preview, image())
            except OutputError as error:
                # The run is worth more than its preview.
                say(f"no preview: {error}")
