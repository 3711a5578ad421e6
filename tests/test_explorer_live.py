"""Live frames: a real WebSocket client against the real server, maps and projections held against `tap`."""

from __future__ import annotations

import io
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.ops import Permute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from convscope import Net, load, tap
from convscope.atlas.crops import Spot, project_spots
from convscope.explorer.activations import activate
from convscope.explorer.bench import Bench
from convscope.explorer.frames import MOST_BYTES
from convscope.explorer.shelf import Shelf
from convscope.explorer.specimen import Specimen
from explorers import Running, running, until

WISH = {"layer": "relu2", "of": "relu2", "unit": 3}


@pytest.fixture(scope="module")
def explorer() -> Iterator[Running]:
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    specimens = [Specimen("zfnet64", load("zfnet64")), Specimen("smooth", Net(smooth, size=32, name="smooth"))]
    with running(Bench(specimens, Shelf(["sample:chelsea"]))) as found:
        yield found


def live(explorer: Running, network: str = "zfnet64", origin: str | None = None) -> ClientConnection:
    origin = f"http://{explorer.host}" if origin is None else origin
    return connect(f"ws://{explorer.host}/net/{network}/live/frames", origin=origin, max_size=None)  # pyright: ignore[reportArgumentType]


def frame(picture: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def answer(client: ClientConnection) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    facts = json.loads(client.recv(20))
    images: dict[str, Image.Image] = {}
    for name in facts["images"]:
        content = client.recv(20)
        assert isinstance(content, bytes)
        images[name] = Image.open(io.BytesIO(content))
    return facts, images


def asked(client: ClientConnection, content: bytes, **wish: Any) -> tuple[dict[str, Any], dict[str, Image.Image]]:
    client.send(json.dumps(WISH | wish))
    client.send(content)
    return answer(client)


def maps_of(facts: dict[str, Any], sheet: Image.Image) -> np.ndarray:
    """Return the values that the colours of a sheet stand for, (units, rows, columns)."""
    maps = facts["maps"]
    assert sheet.mode == "P"
    cells = np.asarray(sheet).reshape(-1, maps["rows"], maps["across"], maps["columns"]).swapaxes(1, 2)
    share = cells.reshape(-1, maps["rows"], maps["columns"])[: maps["units"]] / 255
    return maps["low"] + share * (maps["high"] - maps["low"])


@pytest.mark.parametrize(
    ("layer", "of", "unit", "at", "method"),
    [
        ("relu2", "relu2", 3, None, "deconvnet"),
        ("conv3", "relu5", 17, None, "guided"),
        ("relu2", "conv3", 70, (5, 9), "gradient"),
        ("output", "output", 4, None, "deconvnet"),
    ],
)
def test_a_frame_is_answered_with_its_maps_what_is_said_and_the_projection_of_the_unit(
    explorer: Running, chelsea: np.ndarray, layer: str, of: str, unit: int, at: tuple[int, int] | None, method: Any
) -> None:
    net = explorer.bench.specimens["zfnet64"].net
    with live(explorer) as client:
        facts, images = asked(client, frame(chelsea), layer=layer, of=of, unit=unit, at=at, method=method)
    pixels = net.read(chelsea)
    shown, aimed = net.layers["" if layer == "output" else layer], net.layers["" if of == "output" else of]
    with torch.no_grad():
        found = tap(net, pixels, [shown.name, aimed.name, ""])
    expected = found[shown.name][0].reshape(facts["maps"]["units"], facts["maps"]["rows"], -1).numpy()
    step = (facts["maps"]["high"] - facts["maps"]["low"]) / 255
    clipped = expected.clip(facts["maps"]["low"], facts["maps"]["high"])
    assert np.abs(maps_of(facts, images["maps"]) - clipped).max() <= 0.51 * step
    probabilities = found[""].softmax(1)[0]
    assert [one["number"] for one in facts["said"]] == probabilities.topk(5).indices.tolist()
    assert facts["said"][0]["value"] == pytest.approx(float(probabilities.max()), abs=1e-5)
    activation, activity = facts["activation"], found[aimed.name][0, unit]
    place: tuple[int, int] | tuple[None, None] = (None, None)
    if aimed.positions:
        y, x = activation["at"]
        place = y, x
        assert place == at if at else float(activity[y, x]) == float(activity.max())
    assert activation["value"] == pytest.approx(float(activity[place] if aimed.positions else activity), abs=1e-5)
    projected = project_spots(net, aimed.name, [Spot(0, unit, *place)], lambda _: pixels, method)[0]
    assert tuple(activation["box"]) == projected.box
    image = np.asarray(images["projection"]).transpose(2, 0, 1)
    assert image.shape == projected.projection.shape
    assert np.corrcoef(image.ravel(), projected.projection.numpy().ravel())[0, 1] > 0.95


def test_a_picture_of_the_shelf_is_a_frame_too(explorer: Running) -> None:
    shown = explorer.bench.shelf.listed[0]
    with live(explorer) as client:
        client.send(json.dumps(WISH | {"picture": shown.id}))
        facts, _ = answer(client)
    page = explorer.json(f"/net/zfnet64/picture/{shown.id}/layer/relu2/unit/3/at/strongest.json")
    assert facts["activation"]["value"] == pytest.approx(page["value"])
    assert facts["activation"]["at"] == [page["y"], page["x"]]


def _holding(explorer: Running) -> Callable[[], None]:
    """Keep the network busy until the function that is returned is called."""
    done, begun = threading.Event(), threading.Event()
    worker = explorer.bench.specimens["zfnet64"]._worker  # pyright: ignore[reportPrivateUsage]
    worker.submit(lambda: (begun.set(), done.wait(30)))
    assert begun.wait(10)
    return done.set


def plain(shade: int) -> bytes:
    return frame(np.full((64, 64, 3), shade, np.uint8))


def values(explorer: Running, shades: Sequence[int]) -> list[float]:
    with live(explorer) as client:
        return [asked(client, plain(shade), at=[8, 8])[0]["activation"]["value"] for shade in shades]


def test_the_newest_frame_wins_while_the_network_is_busy(explorer: Running) -> None:
    """Of twelve frames that came at once, the first was begun, and of the rest only the last is looked at."""
    first, last, after = values(explorer, (10, 120, 250))
    specimen = explorer.bench.specimens["zfnet64"]
    with live(explorer) as client:
        release = _holding(explorer)
        client.send(json.dumps(WISH | {"at": [8, 8]}))
        client.send(plain(10))
        until(lambda: specimen.waiting == 1)
        for shade in range(20, 130, 10):
            client.send(plain(shade))
        assert client.ping().wait(10)
        explorer.get("/")
        assert specimen.waiting == 1, "frames do not pile up"
        release()
        assert [answer(client)[0]["activation"]["value"] for _ in range(2)] == pytest.approx([first, last])
        client.send(plain(250))
        assert answer(client)[0]["activation"]["value"] == pytest.approx(after)


def test_a_browser_that_leaves_gives_up_its_turn(explorer: Running) -> None:
    specimen = explorer.bench.specimens["zfnet64"]
    release = _holding(explorer)
    with live(explorer) as client:
        client.send(json.dumps(WISH))
        client.send(plain(10))
        until(lambda: specimen.waiting == 1)
    until(lambda: specimen.waiting == 0)
    release()
    assert len(values(explorer, (10,))) == 1


def test_two_browsers_and_pages_take_turns(explorer: Running) -> None:
    shades = (10, 250)
    expected = values(explorer, shades)
    found: dict[int, list[float]] = {}

    def look(shade: int) -> None:
        found[shade] = values(explorer, [shade] * 6)

    threads = [threading.Thread(target=look, args=(shade,)) for shade in shades]
    for thread in threads:
        thread.start()
    picture = explorer.bench.shelf.listed[0].id
    assert explorer.get(f"/net/zfnet64/picture/{picture}/layer/conv3/unit/3/at/1,2.json").status == 200
    for thread in threads:
        thread.join(30)
    assert found == {shade: pytest.approx([value] * 6) for shade, value in zip(shades, expected, strict=True)}


def test_what_is_no_frame_is_answered_with_a_sentence_and_the_next_goes_on(
    explorer: Running, chelsea: np.ndarray
) -> None:
    jpeg, wide = frame(chelsea, "JPEG"), frame(np.zeros((1500, 1500, 3), np.uint8))
    header = b"IHDR" + (60000).to_bytes(4, "big") * 2 + wide[24:29]
    bomb = wide[:12] + header + zlib.crc32(header).to_bytes(4, "big") + wide[33:]
    bad = {
        b"": "neither", b"GIF89a" + bytes(40): "neither", b"<svg/>": "neither", jpeg[:400]: "damaged",
        jpeg + bytes(MOST_BYTES): "smaller picture", wide: "2,097,152 pixels", bomb: "pixels", jpeg[:3]: "frame",
        frame(np.zeros((8, 8, 3), np.uint8), "WEBP"): "neither", b"\xff\xd8\xff" + b"\0" * 100: "frame",
    }  # fmt: skip
    with live(explorer) as client:
        client.send(jpeg)
        assert "a wish comes before" in answer(client)[0]["problem"]
        for content, words in bad.items():
            facts, images = asked(client, content)
            assert words in facts["problem"], content[:20]
            assert not images
        for wish, words in (
            ({"layer": "none"}, "no such layer"), ({"unit": 128}, "units 0 to 127"),
            ({"unit": 10**30}, "units 0 to 127"),
            ({"picture": "feed"}, "no such picture"), ({"picture": "../../etc/passwd"}, "no such picture"),
        ):  # fmt: skip
            client.send(json.dumps(WISH | wish))
            if "picture" not in wish:
                client.send(jpeg)
            assert words in answer(client)[0]["problem"]
        for text in ("", "[]", "{", json.dumps({**WISH, "unit": -1}), json.dumps({**WISH, "x": 1}), "[" * 99999):
            client.send(text)
            assert "not understood" in answer(client)[0]["problem"]
        client.send(json.dumps({**WISH, "method": "__import__"}))
        assert "method" in answer(client)[0]["problem"]
        facts, _ = asked(client, jpeg, at=[99, 0])
        assert "rows 0 to" in facts["refused"]
        facts, images = asked(client, jpeg)
        assert set(images) == {"maps", "projection"}


def test_a_network_without_projection_shows_its_maps_and_says_why(explorer: Running, chelsea: np.ndarray) -> None:
    with live(explorer, "smooth") as client:
        facts, images = asked(client, frame(chelsea), layer="1", of="1", unit=2)
        assert set(images) == {"maps"}
        assert "GELU" in facts["refused"]
        assert len(facts["said"]) == 3
        assert maps_of(facts, images["maps"]).shape == (4, 30, 30)
        facts, images = asked(client, frame(chelsea), layer="1", of="1", unit=2, method="gradient")
        assert set(images) == {"maps", "projection"}


def test_only_own_pages_open_the_socket(explorer: Running) -> None:
    for origin in ("http://evil.example", "null", f"http://localhost.evil:{explorer.port}"):
        with pytest.raises(InvalidStatus, match="403"):
            live(explorer, origin=origin)
    with pytest.raises(InvalidStatus, match="403"):
        live(explorer, "nothing")


def test_the_page_says_what_is_looked_at(explorer: Running) -> None:
    page = explorer.json("/net/zfnet64/live.json?layer=relu5&unit=999&method=guided")
    assert (page["layer"]["id"], page["unit"], page["method"], page["side"]) == ("relu5", 255, "guided", 64)
    assert explorer.json("/net/zfnet64/live.json")["layer"]["id"] == "conv1"
    assert explorer.get("/net/zfnet64/live?layer=none").status == 404
    assert explorer.get("/net/zfnet64/live?picture=none").status == 404
    assert "needs JavaScript" in explorer.get("/net/zfnet64/live").text


def test_units_that_lie_last_in_memory_are_read_as_units() -> None:
    """The layer has more channels than rows, and another number of rows than of columns."""
    mixed = nn.Sequential(
        nn.Conv2d(3, 4, 3), Permute([0, 2, 3, 1]), nn.Linear(4, 40), nn.ReLU(), Permute([0, 3, 1, 2]),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 3),
    )  # fmt: skip
    net = Net(mixed, size=(16, 24), name="mixed")
    pixels = torch.rand(1, 3, 16, 24)
    found = activate(net, pixels, net.layers["3"], 39)
    with torch.no_grad():
        activity = tap(net, pixels, ["3"])["3"][0]
    assert activity.shape == (14, 22, 40)
    assert found.value == float(activity[..., 39].max()) == float(activity[found.y, found.x, 39])
    expected = project_spots(net, "3", [Spot(0, 39, found.y, found.x)], lambda _: pixels)[0]
    assert found.projected.box == expected.box
    assert torch.allclose(found.projected.projection, expected.projection, atol=1e-6)
