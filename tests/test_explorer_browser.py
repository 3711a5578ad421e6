"""The explorer in a real browser, chromium: journeys by mouse, by keyboard, on a phone and without a script."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from convscope import Atlas
from explorers import Running, bench_of_pieces, running

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

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
    assert "method=guided" in page.url
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
