"""Films in and out: frames of animated pictures and videos by their addresses, and maps joined as a film."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convscope
from convscope import Film
from convscope.cli import run
from convscope.data import films, open_picture, read_pictures
from convscope.data.hashing import content_hash
from convscope.errors import OptionError, OutputError, PictureError

COUNT = 5


def frames() -> list[Image.Image]:
    """Squares of one colour each, brighter from frame to frame, with one that moves."""
    made = list[Image.Image]()
    for number in range(COUNT):
        values = np.full((48, 64, 3), 40 * number + 20, np.uint8)
        values[8:24, 10 * number : 10 * number + 16] = 255
        made.append(Image.fromarray(values))
    return made


def animation(path: Path, **options: int) -> Path:
    first, *others = frames()
    first.save(path, save_all=True, append_images=others, duration=options.get("duration", 50))
    return path


def video(path: Path, fps: int = 8) -> Path:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    writer = ffmpeg.write_frames(str(path), (64, 48), fps=fps, macro_block_size=2, output_params=["-crf", "5"])
    writer.send(None)
    for frame in frames():
        writer.send(frame.tobytes())
    writer.close()
    return path


def film(name: str, folder: Path) -> Path:
    return video(folder / name) if name.endswith("mp4") else animation(folder / name)


@pytest.mark.parametrize("name", ["film.gif", "film.png", "film.mp4"])
def test_the_frames_of_a_film_are_pictures(name: str, tmp_path: Path) -> None:
    path = film(name, tmp_path)
    pictures = read_pictures(str(path))
    assert [picture.where for picture in pictures] == [f"{path}[{number}]" for number in range(COUNT)]
    for number, (picture, frame) in enumerate(zip(pictures, frames(), strict=True)):
        shown = np.asarray(picture.open().convert("RGB"), np.float32)
        assert np.abs(shown - np.asarray(frame, np.float32)).mean() < 3, number
    assert len({content_hash(picture.where) for picture in pictures}) == COUNT


@pytest.mark.parametrize("name", ["film.webp", "film.mp4"])
@pytest.mark.parametrize(
    ("part", "numbers"), [("1:3", [1, 2]), (":2", [0, 1]), ("3:", [3, 4]), ("-2:", [3, 4]), ("::2", [0, 2, 4])]
)
def test_a_part_of_a_film(name: str, part: str, numbers: list[int], tmp_path: Path) -> None:
    path = film(name, tmp_path)
    assert [each.where for each in read_pictures(f"{path}[{part}]")] == [f"{path}[{number}]" for number in numbers]


def test_still_pictures_and_films_in_folders_are_what_they_were(tmp_path: Path) -> None:
    frames()[0].save(tmp_path / "still.gif")
    assert [each.where for each in read_pictures(str(tmp_path / "still.gif"))] == [str(tmp_path / "still.gif")]
    path = animation(tmp_path / "film.gif")
    assert len(read_pictures(str(tmp_path))) == 2
    with pytest.raises(PictureError, match=r"has 5 frames: name one, as in"):
        open_picture(path)


def test_long_videos_are_read_from_any_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are decoded a few at a time, beginning where they are asked for."""
    path = video(tmp_path / "film.mp4")
    monkeypatch.setattr(films, "_CHUNK", 2)
    for number in (4, 1, 3, 0, 2):
        films._frames.cache_clear()
        shown = np.asarray(films.video_frame(path, number), np.float32)
        assert np.abs(shown - np.asarray(frames()[number], np.float32)).mean() < 3


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("film.mp4", "is a video of 5 frames: name one, as in .*film.mp4.0.'"),
        ("film.mp4[7]", "has 5 frames, numbered from 0: there is no frame 7"),
        ("broken.mp4[0]", "is no video that ffmpeg can read"),
    ],
)
def test_what_is_no_frame_is_refused_in_words(address: str, words: str, tmp_path: Path) -> None:
    video(tmp_path / "film.mp4")
    (tmp_path / "broken.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42" + bytes(100))
    with pytest.raises(PictureError, match=words):
        open_picture(tmp_path / address)


def test_without_ffmpeg_a_video_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.mp4").write_bytes(bytes(100))
    monkeypatch.setattr(films, "find_spec", lambda name: None)
    with pytest.raises(PictureError, match=r"pip install 'convscope\[video\]'"):
        open_picture(tmp_path / "other.mp4")


def test_an_empty_part_is_refused(tmp_path: Path) -> None:
    path = animation(tmp_path / "film.gif")
    with pytest.raises(PictureError, match=r"holds no frame: .* has 5, numbered from 0"):
        read_pictures(f"{path}[7:9]")


def test_maps_become_a_film_on_one_scale(tmp_path: Path) -> None:
    net = convscope.load("zfnet64")
    maps = list(convscope.explain_many(net, str(animation(tmp_path / "film.gif")), "saliency", of=3))
    joined = Film.of(maps, fps=20)
    assert len(joined.frames) == COUNT and [picture.where[-3:] for picture in joined.recipe.pictures][-1] == "[4]"
    shared = maps[1].compared_with(maps).render().convert("RGB")
    assert np.array_equal(np.asarray(list(joined.images())[1]), np.asarray(shared))
    with Image.open(joined.save(tmp_path / "maps.gif")) as written:
        assert written.n_frames == COUNT and written.info["duration"] == 50
    with pytest.raises(OptionError, match="at least one drawing"):
        Film.of([])


@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_a_film_of_maps_by_one_command(ending: str, tmp_path: Path) -> None:
    path, out = film(f"film.{ending}", tmp_path), tmp_path / f"maps.{ending}"
    assert run(["saliency", str(path), "--of", "3", "--overlay", "-o", str(out)]) == 0
    if ending == "mp4":
        assert films.frame_count(out) == COUNT and films.frame_rate(out) == pytest.approx(8, rel=0.01)
        return
    with Image.open(out) as written:
        assert (written.n_frames, written.size) == (COUNT, (64, 48))
    assert films.frame_rate(out) == films.frame_rate(path) == 20


def test_a_figure_for_every_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = animation(tmp_path / "film.gif")
    assert run(["saliency", f"{path}[1:3]", "--of", "3", "-o", str(tmp_path / "maps")]) == 0
    assert sorted(each.name for each in (tmp_path / "maps").iterdir()) == ["film.gif[1].png", "film.gif[2].png"]
    assert run(["saliency", str(path), "--of", "3", "-o", str(tmp_path / "x.png")]) == 2
    assert "to a folder, or as a film to .gif, .webp, .mp4" in capsys.readouterr().err
    words = ["saliency", str(path), "-o", str(tmp_path / "x.gif"), "--save-values", str(tmp_path / "x.npz")]
    assert run(words) == 2 and "give -o FOLDER" in capsys.readouterr().err


def test_views_of_frames_become_a_film(tmp_path: Path) -> None:
    path, out = animation(tmp_path / "film.gif"), tmp_path / "out.gif"
    assert run(["project", f"{path}[:2]", "--layer", "relu2", "--top", "1", "-o", str(out)]) == 0
    with Image.open(out) as written:
        assert written.n_frames == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on the size of files")
@pytest.mark.parametrize("ending", ["gif", "webp", "mp4"])
def test_a_film_is_whole_or_not_there(ending: str, tmp_path: Path) -> None:
    """Also where ffmpeg writes it, which is a process of its own, and is ended by the limit."""
    pytest.importorskip("imageio_ffmpeg")
    import resource

    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for number, path in enumerate(paths):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    (tmp_path / "new").mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OutputError, match=rf"^cannot write .*film\.{ending}: .+$"):
            Film(paths).save(tmp_path / "new" / f"film.{ending}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "new").iterdir())
