"""A folder with one of everything that a user may name on the command line."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from . import originals as make


@cache
def _made() -> dict[str, bytes]:
    picture, grey = make.saved("RGB", "JPEG"), make.saved("L", "PNG")
    files = {
        "cat.jpg": picture, "digit.png": grey, "film.gif": make.gif()[1], "deep.tif": make.tiff16("TIFF")[1],
        "[red]x.png": grey, "ü é.png": grey, "-x.png": grey, "broken.png": grey[:60], "empty.png": b"",
        "text.png": b"hello",
        "shard.tar": make.tar()[0], "table.parquet": make.tables(".parquet")[0], "array.npy": make.npy()[0],
        "net.onnx": make.onnx()[0], "net.prototxt": make.DEFINITION.encode(), "net.caffemodel": make.caffemodel()[0],
        "weights.safetensors": make.safetensors()[0], "weights.pth": make.pth()[0],
        "style.safetensors": make.style()[0],
        "names.txt": make.class_text()[0], "names.json": make.class_json()[0], "boxes.csv": make.boxes_table()[0],
        "drawing.npz": make.drawings(".npz")[0], "drawing.png": make.drawings(".png")[0], "a.png": picture,
        "b.png": picture,
        "run/history.json": make.history()[0],
    }  # fmt: skip
    files["photo.jpg"] = make.written(lambda file: make.pixels(size=(60, 50)).save(file, "JPEG"))
    files |= {f"pets/{pet}/{number}.png": make.saved("RGB", "PNG") for pet in ("cats", "dogs") for number in range(4)}
    large = make.written(lambda file: make.pixels("L", (60, 50)).save(file, "PNG"))
    return files | {f"two/{number}.png": large for number in range(2)}


def fill(folder: Path) -> None:
    """Lay everything into a folder."""
    for name, content in _made().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def files(folder: Path) -> dict[str, str]:
    """Return the files of a folder, by their place in it, with their content in short."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): _short(path) for path in found}


def _short(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()[:16]
