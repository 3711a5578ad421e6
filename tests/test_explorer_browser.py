"""The explorer in a real browser, chromium: journeys by mouse, by keyboard, on a phone and without a script."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from convscope import Atlas
from explorers import Running, bench_of_pieces, running

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")
pytest.importorskip("axe_playwright_python", reason="axe is not installed: pip install axe-playwright-python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")

Opens = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of this machine; skipped, with the reason, where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser on this machine ({', '.join(NAMES)}): apt-get install chromium")
    with sync_playwright() as play:
        started = play.chromium.launch(
            executable_path=found,
            args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
        )
        yield started
        started.close()


@pytest.fixture(scope="module")
def explorer(pieces_atlas: Atlas) -> Iterator[Running]:
    with running(bench_of_pieces(pieces_atlas)) as found:
        yield found


@pytest.fixture
def opens(browser: Browser, explorer: Running) -> Iterator[Opens]:
    """Open a page of the explorer in a browser of the given settings. Whatever fails or complains there is an error."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def opened(path: str = "/", width: int = 1200, **settings: Any) -> Page:
        context = browser.new_context(viewport={"width": width, "height": 800}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("response", lambda got: complaints.append(f"{got.status} {got.url}") if got.status >= 400 else None)
        page.on("request", lambda sent: _foreign(sent.url, explorer) and complaints.append(sent.url))
        page.goto(f"http://{explorer.host}{path}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not complaints


def _foreign(url: str, explorer: Running) -> bool:
    return not url.startswith((f"http://{explorer.host}/", "data:", "blob:"))


def picture(colour: str = "green") -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 60), colour).save(buffer, "PNG")
    return {"name": f"{colour}.png", "mimeType": "image/png", "buffer": buffer.getvalue()}


@pytest.mark.parametrize("script", [True, False])
def test_from_the_first_page_to_a_unit_and_down_to_an_activation(opens: Opens, script: bool) -> None:
    page = opens(java_script_enabled=script)
    page.get_by_role("link", name=re.compile("zfnet64")).first.click()
    page.get_by_role("link", name="conv3", exact=True).first.click()
    page.get_by_role("link", name="strongest value").click()
    expect(page.get_by_role("navigation", name="Order").get_by_text("strongest value")).to_have_attribute(
        "aria-current", "true"
    )
    page.locator("[data-grid] a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"Unit \d+ of conv3"))
    page.locator(".examples a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("in .*png"))
    page.get_by_role("link", name="guided").click()
    expect(page).to_have_url(re.compile("method=guided"))
    page.get_by_role("link", name="What else excites this unit").click()
    expect(page.get_by_role("heading", name="Its strongest pictures")).to_be_visible()


@pytest.mark.parametrize("script", [True, False])
def test_a_picture_is_sent_by_a_form_and_asked_about(opens: Opens, script: bool) -> None:
    page = opens("/net/zfnet64", java_script_enabled=script)
    page.locator("input[type=file]").set_input_files(picture())
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("green.png")
    page.get_by_role("button", name="Explain").click()
    expect(page.get_by_role("img", name=re.compile("over the picture"))).to_be_visible()
    page.locator("select[name=layer]").select_option("conv3")
    page.get_by_role("button", name="Show").click()
    maps = page.locator("a.pick img").first
    maps.click(position={"x": 10, "y": 10})
    if script:  # it stands beside the maps
        page.get_by_role("link", name="This activation").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Unit 0 of conv3, in green.png")


def test_a_picture_is_dropped_or_pasted(opens: Opens) -> None:
    """The file travels as the browser hands it over: in the event's DataTransfer."""
    for event, target in (("drop", "[data-drop]"), ("paste", "body")):
        page = opens("/net/zfnet64")
        name = f"{event}.png"
        hands = """([name, bytes]) => { const held = new DataTransfer();
            held.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"})); return held; }"""
        held = page.evaluate_handle(hands, [name, list(picture("red" if event == "drop" else "blue")["buffer"])])
        with page.expect_navigation():
            key = "dataTransfer" if event == "drop" else "clipboardData"
            kind = "DragEvent" if event == "drop" else "ClipboardEvent"
            page.evaluate(
                f"([held, target]) => document.querySelector(target).dispatchEvent("
                f"new {kind}('{event}', {{bubbles: true, cancelable: true, {key}: held}}))",
                [held, target],
            )
        expect(page.get_by_role("heading", level=1)).to_have_text(name)


def pages(explorer: Running) -> list[str]:
    """One page of each kind, and what stands there where nothing was scanned."""
    shown = explorer.bench.shelf.listed[0].id
    at = f"/net/zfnet64/picture/{shown}"
    return [
        "/", "/net/zfnet64", "/net/lenet5", "/net/zfnet64/layer/conv1?sort=auc", "/net/zfnet64/layer/relu2",
        "/net/zfnet64/layer/conv1/unit/5", "/net/lenet5/layer/conv1/unit/0", f"{at}?method=grad_cam&layer=conv1",
        f"{at}?layer=fc", f"{at}/layer/conv3/unit/5/at/strongest", f"/net/lenet5/picture/{shown}",
        f"/net/zfnet64/live?layer=conv1&picture={shown}",
    ]  # fmt: skip


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_nobody_is_shut_out_of_a_page(opens: Opens, explorer: Running, scheme: str, width: int) -> None:
    """Axe finds nothing serious, no page scrolls sideways, and all pictures are there in their own proportions."""
    page = opens("/", width=width, color_scheme=scheme)
    axe = Axe()
    for path in pages(explorer):
        page.goto(f"http://{explorer.host}{path}")
        found = axe.run(page).response["violations"]
        assert not [(each["id"], each["nodes"][0]["target"]) for each in found], path
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        assert page.locator("h1").count() == 1, path
        stretched = """[...document.images].filter(one => one.complete && (!one.naturalWidth ||
            getComputedStyle(one).objectFit === "fill" &&
            Math.abs(one.width * one.naturalHeight / one.height / one.naturalWidth - 1) > 0.02)).map(one => one.src)"""
        assert page.evaluate(stretched) == [], path
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", paper)[:3])) > 600 if scheme == "light" else True
    assert sum(map(int, re.findall(r"\d+", paper)[:3])) < 150 if scheme == "dark" else True


def test_units_are_sorted_and_filtered_and_keep_their_pictures(opens: Opens, explorer: Running) -> None:
    """A unit shows the same cell of the same sheet in whatever order the page is."""
    page = opens("/net/zfnet64/layer/conv1")
    shows = """() => [...document.querySelectorAll("[data-grid] a")].map(one => [one.querySelector("b").textContent,
        one.querySelector("svg").getAttribute("viewBox") + one.querySelector("image").getAttribute("href")])"""
    by_number = dict(page.evaluate(shows))
    assert list(by_number) == [str(unit) for unit in range(48)]
    page.get_by_role("link", name="how often active").click()
    expect(page.locator("[aria-current=true]", has_text="how often active")).to_be_visible()
    page.wait_for_load_state()
    by_activity = dict(page.evaluate(shows))
    expected = [str(row["unit"]) for row in explorer.json("/net/zfnet64/layer/conv1.json?sort=active")["units"]]
    assert list(by_activity) == expected != list(by_number)
    assert by_activity == by_number
    page.get_by_role("link", name="dead (0)").click()
    expect(page.get_by_text("There are none.")).to_be_visible()


def test_the_keyboard_alone_leads_to_a_unit(opens: Opens) -> None:
    page = opens("/net/zfnet64/layer/conv1")
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.textContent") == "To the content"
    assert page.evaluate(f"{focused}.getBoundingClientRect().left >= 0"), "it is seen while it has the focus"
    page.keyboard.press("Enter")
    grid, stops = page.locator("[data-grid] a"), 0
    while page.evaluate(f"!{focused}.closest('[data-grid]')"):
        page.keyboard.press("Tab")
        stops += 1
        assert stops < 20
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"
    across = page.evaluate(
        "getComputedStyle(document.querySelector('[data-grid]')).gridTemplateColumns.split(' ').length"
    )
    for key, unit in (("ArrowRight", 1), ("ArrowDown", 1 + across), ("ArrowLeft", across), ("ArrowUp", 0),
                      ("End", 47), ("ArrowRight", 47), ("Home", 0), ("ArrowUp", 0), ("ArrowRight", 1)):  # fmt: skip
        page.keyboard.press(key)
        assert page.evaluate(f"{focused}.querySelector('b').textContent") == str(unit), key
    assert grid.evaluate_all("all => all.filter(one => one.tabIndex === 0).length") == 1, "the grid is one stop"
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate(f"{focused}.querySelector('b').textContent") == "1", "the grid is entered where it was left"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Unit 1 of conv1")


def looked_at(page: Page) -> list[Any]:
    """Return what the frames that came last were asked for and answered with, as the page tells it."""
    return page.evaluate("""() => [document.querySelector("[data-title]").textContent,
        document.querySelector("[data-projected]").textContent, document.querySelector("[data-layer]").value,
        document.querySelector("[data-method]").value]""")


def test_a_camera_is_watched_and_moved_over_by_keys(opens: Opens) -> None:
    page = opens("/net/zfnet64/live?layer=conv1")
    page.get_by_role("button", name="Use the camera").click()
    seen = page.locator("[data-seen]")
    expect(page.locator("[data-title]")).to_have_text("Unit 0 of conv1")
    expect(page.locator("[data-said] li")).to_have_count(5)
    expect(page.locator("[data-rate]")).to_have_text(re.compile(r"\d frames/s"))
    first = seen.evaluate("one => one.toDataURL()")
    page.wait_for_function("first => document.querySelector('[data-seen]').toDataURL() !== first", arg=first)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("L")
    page.keyboard.press("d")
    page.keyboard.press("j")
    page.keyboard.press("o")
    page.keyboard.press("b")
    expect(page.locator("[data-projected]")).to_contain_text("Held: unit 6 of conv1")
    title, _, layer, method = looked_at(page)
    assert (title, method) == (f"Unit 5 of {layer}", "guided")
    assert layer != "conv1"
    assert f"layer={layer}&unit=5&method=guided" in page.url
    page.keyboard.press("f")
    expect(page.get_by_label("Hold the picture")).to_be_checked()
    page.keyboard.press("Escape")
    expect(page.locator("[data-projected]")).to_contain_text(f"Unit 5 of {layer}")
    expect(page.get_by_label("Hold the picture")).not_to_be_checked()
    page.keyboard.press("h")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("h")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("link", name="Unit 5").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("Unit 5 of"))


def test_keys_do_nothing_in_fields_and_can_be_switched_off_for_good(opens: Opens) -> None:
    page = opens("/net/zfnet64/live?layer=conv1&unit=7")
    page.get_by_label("Unit", exact=True).focus()
    page.keyboard.press("o")
    assert looked_at(page)[2] == "conv1"
    page.get_by_role("checkbox", name="Keys").uncheck()
    page.keyboard.press("o")
    page.reload()
    expect(page.get_by_role("checkbox", name="Keys")).not_to_be_checked()
    page.keyboard.press("o")
    assert looked_at(page)[2] == "conv1"


def test_a_picture_of_the_shelf_stands_still_and_a_place_of_its_map_is_held(opens: Opens) -> None:
    page = opens("/net/zfnet64/live?layer=conv1", reduced_motion="reduce")
    page.locator("[data-picture]").select_option(index=1)
    expect(page.locator("[data-projected]")).to_contain_text("Unit 0 of conv1")
    page.locator("[data-map]").click(position={"x": 5, "y": 120})
    expect(page.locator("[data-projected]")).to_contain_text(re.compile("at row 1[56], column 0"))
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("status")).to_contain_text("less motion")
    expect(page.get_by_label("Hold the picture")).to_be_checked()


def test_without_a_camera_the_page_says_what_to_do(opens: Opens) -> None:
    page = opens("/net/zfnet64/live?layer=conv1")
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', {value: undefined})")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("status")).to_contain_text("ssh -L")


def test_a_click_on_a_map_shows_that_activation_beside_it_and_arrow_keys_go_on(opens: Opens, explorer: Running) -> None:
    at = f"/net/zfnet64/picture/{explorer.bench.shelf.listed[0].id}"
    page = opens(f"{at}?layer=conv3")
    panel = page.get_by_role("complementary", name="The activation")
    page.locator("a.pick img").click(position={"x": 104 + 6 * 9 + 2, "y": 122 + 6 * 5 + 2})

    def shows(unit: int, y: int, x: int) -> None:
        expect(panel).to_contain_text(f"Unit {unit} of conv3")
        expect(panel).to_contain_text(f"row {y}, column {x}")
        address = f"{at}/layer/conv3/unit/{unit}/at/{y},{x}"
        value = explorer.json(f"{address}.json")["value"]
        expect(panel).to_contain_text(f"{float(f'{value:.3g}'):g} at")
        expect(panel.get_by_role("img", name="its projection")).to_have_attribute(
            "src", f"{address}/projection-deconvnet.webp"
        )

    shows(9, 5, 9)
    page.locator("a.pick").focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    shows(9, 6, 11)
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Shift+ArrowLeft")
    shows(16, 6, 11)
    assert page.url.endswith("?layer=conv3"), "the page stays"
    panel.get_by_role("link", name="Unit 16").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Unit 16 of conv3")


def test_a_video_file_is_watched_and_goes_on_after_a_pause(opens: Opens, tmp_path: Path) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed").get_ffmpeg_exe()
    film = tmp_path / "film.webm"
    made = [ffmpeg, "-loglevel", "error", "-f", "lavfi", "-i", "testsrc=duration=1:size=64x48:rate=10"]
    subprocess.run([*made, "-c:v", "libvpx", str(film)], check=True)
    page = opens("/net/zfnet64/live?layer=conv1")
    page.locator("[data-film]").set_input_files(film)
    changes = "first => document.querySelector('[data-seen]').toDataURL() !== first"
    expect(page.locator("[data-title]")).to_have_text("Unit 0 of conv1")
    page.wait_for_function(changes, arg=page.locator("[data-seen]").evaluate("one => one.toDataURL()"))
    page.locator("video").evaluate("one => one.pause()")
    page.locator("video").evaluate("one => one.play()")
    page.wait_for_function(changes, arg=page.locator("[data-seen]").evaluate("one => one.toDataURL()"))
    page.locator("[data-film]").set_input_files({"name": "no.mp4", "mimeType": "video/mp4", "buffer": b"nothing"})
    expect(page.get_by_role("status")).to_contain_text("no.mp4 is no video")
