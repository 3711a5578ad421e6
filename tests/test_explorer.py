"""The explorer, asked as a browser asks it: the right numbers and pixels on every page."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from convscope import Atlas, Net, explain, tap
from convscope.atlas.crops import Spot, project_spots
from convscope.explorer.bench import ids
from convscope.explorer.images import CELL, PITCH, Cell, position_in_cell
from convscope.explorer.links import slugs
from convscope.explorer.shelf import Shelf
from explorers import Running, bench_of_pieces, running


@pytest.fixture(scope="module")
def atlas(pieces_atlas: Atlas) -> Atlas:
    return pieces_atlas


@pytest.fixture(scope="module")
def explorer(atlas: Atlas) -> Iterator[Running]:
    with running(bench_of_pieces(atlas)) as found:
        yield found


def links_of(page: str) -> set[str]:
    return {match.replace("&amp;", "&") for match in re.findall(r'(?:href|src|action)="(/[^"#]*)', page)}


def test_every_page_and_image_is_there_and_has_a_twin_in_json(explorer: Running) -> None:
    """Whatever a page leads to exists; each kind of page is followed a few times."""
    seen: set[str] = set()
    kinds: dict[str, int] = {}
    waiting = ["/"]
    while waiting:
        path = waiting.pop()
        kind = re.sub(r"\d+|[0-9a-f]{16}", "0", path)
        if (
            path in seen
            or kinds.get(kind, 0) == (1 if ".webp" in path else 2)
            or path.startswith(("/pictures", "/enter"))
        ):
            continue
        seen.add(path)
        kinds[kind] = kinds.get(kind, 0) + 1
        answer = explorer.get(f"{path}?3,3" if "/pick/" in path else path)
        assert answer.status in (200, 303), (path, answer.body[:200])
        if "text/html" in answer.headers.get("content-type", ""):
            waiting += sorted(links_of(answer.text))
            assert "style=" not in answer.text
            assert "<script>" not in answer.text
    assert {each.split("/")[-1].split("?")[0] for each in seen} >= {"input.webp", "thumb.webp", "explorer.css"}
    assert sum(".json" in each for each in seen) > 5


def test_a_layer_tells_its_units_and_what_the_atlas_says_of_them(explorer: Running, atlas: Atlas) -> None:
    page = explorer.json("/net/zfnet64/layer/conv3.json?sort=strongest")
    assert page["layer"]["units"] == 192 == len(page["units"])
    strongest = [row["strongest"] for row in page["units"]]
    assert strongest == sorted(strongest, reverse=True)
    first = page["units"][0]
    assert first["strongest"] == pytest.approx(atlas.top("conv3", first["unit"], 1)[0].value)
    dead = explorer.json("/net/zfnet64/layer/relu6.json?which=dead")
    table = atlas.statistics("relu6").to_pylist()
    assert {row["unit"] for row in dead["units"]} == {row["unit"] for row in table if row["maximum"] <= 0}
    assert dead["dead"] == len(dead["units"])


def test_a_units_image_is_found_by_its_number_whatever_the_order(explorer: Running, atlas: Atlas) -> None:
    """The cell of a unit on a sheet holds its strongest patch, also where the page is sorted otherwise."""
    page = explorer.json("/net/zfnet64/layer/conv3.json?sort=auc")
    unit = page["units"][0]["unit"]
    html = explorer.get("/net/zfnet64/layer/conv3?sort=auc").text
    first = html[html.index("data-grid") :]
    assert first.index(f"/unit/{unit}") < min(first.index(f'/unit/{other["unit"]}"') for other in page["units"][1:])
    cell = Cell.of(unit, 192, page["side"])
    box = re.search(r'viewBox="(\d+) (\d+) (\d+) (\d+)"', first)
    assert box is not None
    assert tuple(map(int, box.groups())) == (cell.x, cell.y, cell.side, cell.side)
    sheet = Image.open(io.BytesIO(explorer.get(f"/net/zfnet64/layer/conv3/sheet/patches/{cell.sheet}.webp").body))
    assert sheet.size == (cell.width, cell.height)
    seen = atlas.project("conv3", unit, 1)[0]
    shown = np.asarray(sheet.convert("RGB"))[cell.y : cell.y + cell.side, cell.x : cell.x + cell.side] / 255
    assert np.corrcoef(_fit(shown, seen.pixels), seen.pixels.numpy().ravel())[0, 1] > 0.8


def _fit(shown: np.ndarray, pixels: torch.Tensor) -> np.ndarray:
    """Cut out of a cell what is no margin, at the size of some pixels."""
    grey = np.abs(shown - 225 / 255).max(2) > 0.03
    rows, columns = np.flatnonzero(grey.any(1)), np.flatnonzero(grey.any(0))
    part = Image.fromarray((shown[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] * 255).astype(np.uint8))
    return (np.asarray(part.resize((pixels.shape[2], pixels.shape[1]))) / 255).transpose(2, 0, 1).ravel()


def test_a_unit_shows_its_pictures_in_bands_and_its_classes(explorer: Running, atlas: Atlas) -> None:
    page = explorer.json("/net/zfnet64/layer/conv3/unit/7.json")
    bands = {band["name"]: band["seen"] for band in page["bands"]}
    assert set(bands) >= {"strongest", "effect", "weakest", "middle", "random"}
    top = atlas.top("conv3", 7)
    assert [(one["value"], one["y"], one["x"]) for one in bands["strongest"]] == [(t.value, t.y, t.x) for t in top]
    assert {one["label"] for one in bands["strongest"]} <= {"chelsea", "coffee"}
    assert page["statistics"]["mean"] == pytest.approx(atlas.statistics("conv3", 7)["mean"][0].as_py())
    assert {each["name"] for each in page["classes"]} == {"chelsea", "coffee"}
    assert max(page["histogram"]["bars"]) == 1
    assert [each["unit"] for each in page["similar"]] == [kin.unit for kin in atlas.similar("conv3", 7, 8)]


def test_a_picture_that_is_sent_is_read_and_said_what_of(explorer: Running, chelsea: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(chelsea).save(buffer, "PNG")
    sent = explorer.send(buffer.getvalue(), "../../my <img src=x>.png")
    assert sent.status == 303
    page = explorer.json(sent.headers["location"] + ".json")
    assert page["picture"]["name"] == "my <img src=x>.png"
    assert (page["width"], page["height"]) == (451, 300)
    net = explorer.bench.specimens["zfnet64"].net
    probabilities = net(net.read(chelsea)).softmax(1)[0]
    assert page["said"][0]["number"] == int(probabilities.argmax())
    assert page["said"][0]["value"] == pytest.approx(float(probabilities.max()), abs=1e-5)
    html = explorer.get(sent.headers["location"]).text
    assert "<img src=x>" not in html
    assert "my &lt;img src=x&gt;.png" in html


def picture_of(explorer: Running) -> str:
    return explorer.bench.shelf.listed[0].id


@pytest.mark.parametrize(
    ("layer", "at"), [("conv3", "5,9"), ("relu2", "0,0"), ("conv5", "strongest"), ("relu6", "strongest")]
)
def test_an_activation_is_projected_as_the_methods_do(explorer: Running, layer: str, at: str) -> None:
    net = explorer.bench.specimens["zfnet64"].net
    picture = picture_of(explorer)
    page = explorer.json(f"/net/zfnet64/picture/{picture}/layer/{layer}/unit/3/at/{at}.json")
    pixels = net.read(explorer.bench.shelf.clean(picture).content)
    with torch.no_grad():
        activity = tap(net, pixels, [layer])[layer][0, 3]
    if page["y"] is None:
        assert page["value"] == pytest.approx(float(activity), abs=1e-5)
    else:
        assert page["value"] == pytest.approx(float(activity[page["y"], page["x"]]), abs=1e-5)
        assert at in ("strongest", f"{page['y']},{page['x']}")
    found = project_spots(net, layer, [Spot(0, 3, page["y"], page["x"])], lambda _: pixels)[0]
    assert tuple(page["box"]) == found.box
    shown = explorer.get(f"/net/zfnet64/picture/{picture}/layer/{layer}/unit/3/at/{at}/projection-deconvnet.webp")
    image = np.asarray(Image.open(io.BytesIO(shown.body)).resize(found.projection.shape[:0:-1])).transpose(2, 0, 1)
    if found.projection.abs().max() > 0:
        assert np.corrcoef(image.ravel(), found.projection.detach().numpy().ravel())[0, 1] > 0.9


def test_a_click_on_a_feature_map_goes_to_that_very_activation(explorer: Running) -> None:
    """The browser sends where the sheet was clicked; the answer is the unit, row and column that lie there."""
    base = f"/net/zfnet64/picture/{picture_of(explorer)}"
    rows, columns = 16, 16
    for unit, y, x in ((0, 0, 0), (70, 15, 3), (191, 7, 12)):
        sheet, on_it = divmod(unit, 64)
        factor = CELL // 16
        px, py = on_it % 8 * PITCH[0] + x * factor + 1, on_it // 8 * PITCH[1] + y * factor + 1
        answer = explorer.get(f"{base}/layer/conv3/pick/number-{sheet}?{px},{py}")
        assert answer.status == 303
        assert answer.headers["location"] == f"{base}/layer/conv3/unit/{unit}/at/{y},{x}"
    assert position_in_cell(95, 0, rows, columns) == (0, 15)
    beside = explorer.get(f"{base}/layer/conv3/pick/number-0?{CELL + 5},{PITCH[1] - 3}")
    assert beside.headers["location"].endswith("/unit/0/at/15,15"), "a gap is the place nearest to it"
    for wrong in ("number-3?0,0", f"number-2?0,{8 * PITCH[1]}", "number--1?0,0", "number-0?-1,0"):
        assert explorer.get(f"{base}/layer/conv3/pick/{wrong}").status in (400, 404)
    later = explorer.json(f"{base}.json?layer=conv3&part=2")
    assert [one["unit"] for one in later["units"]] == list(range(128, 192))
    assert explorer.get(f"{base}.json?layer=conv3&part=3").status == 404
    page = explorer.json(f"{base}.json?layer=conv3&order=strongest")
    best = page["units"][0]
    answer = explorer.get(f"{base}/layer/conv3/pick/strongest-0?5,5")
    assert f"/unit/{best['unit']}/at/" in answer.headers["location"]


def test_a_command_that_is_shown_can_be_pasted_whatever_a_picture_is_called(explorer: Running) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(buffer, "PNG")
    name = "a'b $(reboot) ; x.png"
    sent = explorer.send(buffer.getvalue(), name)
    page = explorer.json(sent.headers["location"] + ".json?method=gradient&of=3")
    command = shlex.split(page["explained"][0]["command"], comments=True)
    assert command == ["convscope", "gradient", name, "--net", "zfnet64", "--of", "3"]


def test_maps_are_those_of_the_methods_with_their_options(explorer: Running) -> None:
    base = f"/net/zfnet64/picture/{picture_of(explorer)}"
    page = explorer.json(f"{base}.json?method=occlusion&of=3&o.patch=16&o.stride=16")
    assert "--patch 16" in page["explained"][0]["command"]
    assert "patch=16" in page["explained"][0]["python"]
    numbers = explorer.get(f"{base}/map.npz?method=occlusion&of=3&o.patch=16&o.stride=16")
    found = np.load(io.BytesIO(numbers.body))["map"]
    net = explorer.bench.specimens["zfnet64"].net
    content = explorer.bench.shelf.clean(picture_of(explorer)).content
    expected = explain(net, content, "occlusion", 3, patch=16, stride=16).numbers()["map"]
    assert np.allclose(found, expected, atol=1e-6)
    assert explorer.get(f"{base}/map.png?method=gradient").headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/net/nothing", 404, "there are zfnet64, lenet5"),
        ("/net/zfnet64/layer/none", 404, "lists its layers"),
        ("/net/zfnet64/layer/conv3/unit/192", 404, "units 0 to 191"),
        ("/net/zfnet64/layer/conv3/unit/x", 400, "integer"),
        ("/net/zfnet64/layer/conv3?sort=size", 400, "sort"),
        ("/net/zfnet64/picture/feedfeedfeedfeed", 404, "send it again"),
        ("/net/lenet5/picture/lenet5-scanned-0", 404, "no atlas"),
        ("/net/zfnet64/picture/{}/layer/conv3/unit/0/at/99,0", 404, "rows 0 to 15"),
        ("/net/zfnet64/picture/{}/map.webp?method=none", 400, "no method"),
        ("/net/zfnet64/picture/{}/map.webp?method=gradient&of=conv9:1", 400, "conv9"),
        ("/net/zfnet64/picture/{}/map.webp?method=gradient&of=direction(conv3,/etc/passwd)", 400, "command line"),
        ("/nowhere", 404, "first page"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_in_a_sentence_on_a_page_and_as_json(
    explorer: Running, path: str, status: int, words: str
) -> None:
    path = path.format(picture_of(explorer))
    page = explorer.get(path, {"Accept": "text/html"})
    assert page.status == status
    assert words in page.text
    assert "Traceback" not in page.text
    problem = explorer.get(path, {"Accept": "application/json"})
    assert problem.status == status
    assert problem.headers["content-type"] == "application/problem+json"
    assert words in problem.json["detail"]
    assert set(problem.json) == {"type", "title", "status", "detail"}


def test_names_of_layers_become_parts_of_addresses() -> None:
    names = ["", "a", "A", "a/b", "..", "x" * 99, "con", "a.json", "l#2", "<b>", "features.10", "output"]
    found = slugs(names)
    assert found["a"] == "a"
    assert found["features.10"] == "features.10"
    assert found[""] == "output"
    assert len({slug.lower() for slug in found.values()}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}", slug) for slug in found.values())
    assert not any(slug.lower() in ("con", "..") or slug.endswith(".json") for slug in found.values())
    assert ids(["net", "net", "a b"]) == ["net", "net-2", "a-b-2"]


def test_the_map_of_a_network_leads_to_its_layers_and_opens_groups(explorer: Running) -> None:
    page = explorer.get("/net/zfnet64").text
    assert 'class="network-map"' in page and 'href="/net/zfnet64/layer/conv3"' in page
    twin = explorer.json("/net/zfnet64.json?open=nothing&open=%3Cscript%3E")
    assert twin["open"] == []
    boxes = {box["key"]: box for box in twin["boxes"]}
    assert (boxes["conv3"]["reads"], boxes["conv3"]["row"]) == (["conv2"], 4)


@pytest.mark.parametrize("shape", [(24, 40, 6), (6, 24, 40), (24, 40, 4), (24, 40)])
def test_an_array_of_any_number_of_bands_is_read_as_it_was_sent(shape: tuple[int, ...]) -> None:
    """A network of so many bands reads of what was sent what it reads of the array itself."""
    array = np.random.default_rng(0).integers(0, 60000, shape).astype(np.uint16)
    bands = min(shape[0], shape[2]) if len(shape) == 3 else 1
    body = torch.nn.Sequential(torch.nn.Conv2d(bands, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    net = Net(body.eval(), mean=[0.5] * bands, std=[0.2] * bands, size=16)
    content = io.BytesIO()
    np.save(content, array)
    shelf = Shelf()
    try:
        shown = shelf.add(content.getvalue(), "bands.npy")
        assert torch.equal(net.read(shelf.clean(shown.id).content), net.read(array))
    finally:
        shelf.decoder.close()
