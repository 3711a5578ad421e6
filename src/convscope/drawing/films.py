"""Film: pictures that follow each other, read from files or made one by one."""

from __future__ import annotations

import importlib
import re
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, Any, ClassVar, Self, Unpack, cast

import numpy as np
from PIL import Image

from .. import outputs
from ..data.display import to_image
from ..data.opening import open_picture
from ..errors import OptionError, OutputError, PictureError
from ..recipes import Recipe
from . import layout
from .base import Drawing
from .drawings import Heatmap, robust_limit
from .layout import Sheet, Tile
from .paper import PaperOptions

_SIDE = 370
_TEXTS = ("title", "subtitle", "note")
_SHOWN = 12
_NO_RECIPE = Recipe()


@dataclass(frozen=True, eq=False, repr=False)
class Film(Drawing):
    """Pictures of one size that follow each other: files, of which only the one at hand is read, or images.

    Saved as .gif, .webp or .mp4 it moves, at `fps` frames per second; otherwise it is a sheet of some of its frames.
    """

    frames: Sequence[Path | Image.Image]
    recipe: Recipe = _NO_RECIPE
    title: str = ""
    subtitle: str = ""
    note: str = ""
    fps: float = 12.0

    needs_numbers: ClassVar[bool] = False

    def words(self) -> dict[str, Any]:
        files = [str(frame.absolute()) for frame in self.frames if isinstance(frame, Path)]
        return {name: getattr(self, name) for name in (*_TEXTS, "fps")} | {"frames": files}

    @classmethod
    def from_words(
        cls, words: Mapping[str, Any], numbers: Mapping[str, np.ndarray], recipe: Recipe, image: Image.Image | None
    ) -> Self:
        texts = {name: words[name] for name in (*_TEXTS, "fps")}
        frames: list[Path | Image.Image] = [Path(name) for name in words["frames"]]
        missing = [frame for frame in frames if isinstance(frame, Path) and not frame.is_file()]
        if (missing or not frames) and "frames" in numbers:
            frames, missing = list[Path | Image.Image](map(to_image, numbers["frames"])), []
        if missing or not frames:
            raise PictureError(
                f"the film's frames are not where they were: {next(iter(missing), 'they were not files')}"
            )
        return cls(frames, replace(recipe, display={}), **texts)

    @classmethod
    def of(cls, drawings: Iterable[Drawing], *, fps: float = 12.0, title: str = "") -> Film:
        """Join drawings as a film, maps on one colour scale: `Film.of(explain_many(net, "film.gif", "grad_cam"))`.

        Smaller frames are centred on white. Raises OptionError where there is no drawing.
        """
        made = list(drawings)
        maps = [drawing for drawing in made if isinstance(drawing, Heatmap)]
        if not made:
            raise OptionError("a film needs at least one drawing")
        if len(maps) == len(made):
            limit = max(robust_limit(each.flat) for each in maps)
            made = [replace(each, limit=limit) for each in maps]
        images = [drawing.render() for drawing in made]
        size = max(image.width for image in images), max(image.height for image in images)
        pictures = tuple(picture for drawing in made for picture in drawing.recipe.pictures)
        recipe = replace(made[0].recipe, pictures=pictures)
        return cls([_on_white(image, size) for image in images], recipe, title, fps=fps)

    def images(self) -> Iterator[Image.Image]:
        """Read the frames in RGB, one after the other."""
        return (open_picture(path).convert("RGB") for path in self.frames)

    def numbers(self) -> dict[str, np.ndarray]:
        whole = np.stack([np.asarray(image) for image in self.images()])
        return {"frames": whole.transpose(0, 3, 1, 2).astype(np.float32) / 255}

    def save(self, path: str | Path, **paper: Unpack[PaperOptions]) -> Path:
        """Write the film: .gif, .webp, or .mp4 (extra `video`); any other picture is a sheet of some of its frames.

        The file appears whole or not at all. Raises OutputError when it cannot be written.
        """
        path = Path(path)
        writers = {".gif": self._write_gif, ".webp": self._write_webp, ".mp4": self._write_mp4}
        writer = writers.get(path.suffix.lower())
        if writer is None:
            return super().save(path, **paper)
        if paper:
            raise OptionError(f"{path} is a film: {', '.join(paper)} are for {', '.join(outputs.PICTURE_ENDINGS)}")
        return writer(path)

    def _write_gif(self, path: Path) -> Path:
        # Every frame has colours of its own: a dream's would be bands in a palette for all.
        first, *others = (image.quantize(256) for image in self.images())
        return self._write_moving(path, first, others, optimize=False)

    def _write_webp(self, path: Path) -> Path:
        first, *others = self.images()
        return self._write_moving(path, first, others, quality=88)

    def _write_moving(self, path: Path, first: Image.Image, others: Sequence[Image.Image], **options: Any) -> Path:
        duration = round(1000 / self.fps)
        return outputs.write_image(
            path, first, save_all=True, append_images=others, duration=duration, loop=0, **options
        )

    def _write_mp4(self, path: Path) -> Path:
        return outputs.write(path, self._encode)  # ffmpeg is a program, and writes files only

    def _encode(self, file: Path) -> None:
        # Not by imageio's own writer: it does not tell whether ffmpeg wrote all of the film, or ran out of disk.
        size = self._size()
        with subprocess.Popen(self._command(file, size), stdin=PIPE, stdout=DEVNULL, stderr=PIPE) as ffmpeg:
            with suppress(BrokenPipeError):  # it has ended, and says why
                for image in self.images():
                    cast(IO[bytes], ffmpeg.stdin).write(image.crop((0, 0, *size)).tobytes())
            _, said = ffmpeg.communicate()
        if code := ffmpeg.returncode:
            words = re.sub(r"^\[.*?\] |\n.*", "", said.decode(errors="replace").strip(), flags=re.DOTALL)
            reason = words or (signal.strsignal(-code) if code < 0 else f"exit code {code}")
            raise OSError(f"ffmpeg ended before the film was whole ({reason})")

    def _size(self) -> tuple[int, int]:
        """Return width and height of a video: players read colours at half the resolution, so that sides are even."""
        width, height = next(self.images()).size
        return width - width % 2, height - height % 2

    def _command(self, file: Path, size: tuple[int, int]) -> list[str]:
        outputs.check_ffmpeg()
        try:
            program: str = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
        except RuntimeError as error:
            raise OutputError(f"there is no ffmpeg to write the film: {' '.join(str(error).split())}") from None
        frames = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", str(self.fps), "-i", "-"]
        film = ["-pix_fmt", "yuv420p", "-crf", "18", str(file)]
        return [program, "-v", "error", "-xerror", "-y", *frames, *film]

    def sheet(self) -> Sheet:
        count = len(self.frames)
        shown = sorted({round(i * (count - 1) / (_SHOWN - 1)) for i in range(_SHOWN)})
        per_row = min(4, len(shown))
        tiles = [
            Tile(layout.enlarged(open_picture(self.frames[i]).convert("RGB"), _SIDE * 2 // 3), f"frame {i + 1}")
            for i in shown
        ]
        rows = tuple(tuple(tiles[i : i + per_row]) for i in range(0, len(tiles), per_row))
        return Sheet(self.title, rows, self.subtitle, self.note)


def _on_white(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    ground = Image.new("RGB", size, "white")
    ground.paste(image, ((size[0] - image.width) // 2, 0))
    return ground
