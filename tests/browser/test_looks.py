"""Who can use the page: with a phone, at night, with a keyboard, by ear; and with a key."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visit import SLOW_MS, Visit
from tests.e2e.server import Server

pytestmark = pytest.mark.slow

KEY = "visitor-key-0123456789"
_BACKGROUND = "getComputedStyle(document.body).backgroundColor"
_TOO_WIDE = """[...document.querySelectorAll("body *")].filter(element =>
  !element.closest(".table, .aside") && element.getBoundingClientRect().right > innerWidth + 1
).map(element => element.outerHTML.slice(0, 80))"""
_FOCUS = """() => {
  const style = getComputedStyle(document.activeElement);
  return [document.activeElement.textContent.trim(), style.outlineStyle, style.outlineWidth];
}"""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_the_page(
    browser: Browser, playground: Server, scheme: str, width: int
) -> None:
    with Visit(browser, playground.url, scheme=scheme, width=width) as visit:
        visit.screenshot(f"start-{scheme}-{width}")
        assert visit.serious() == []
        visit.drop("panda.webp", "bee.jpg", "koala.webp", broken=True)
        visit.settled()
        for name in ("panda.webp", "bee.jpg", "koala.webp"):
            visit.heat(name)
        visit.page.locator("#live summary").click()
        visit.card("panda.webp").get_by_role("button", name="Compare sizes").click()
        expect(visit.page.locator("#lab .progress")).to_be_hidden(timeout=SLOW_MS)
        expect(visit.page.locator("#live tbody tr")).to_have_count(4)
        visit.screenshot(f"results-{scheme}-{width}")
        assert visit.serious() == []
        assert visit.page.evaluate(_TOO_WIDE) == []
        dark = visit.page.evaluate(_BACKGROUND) == "rgb(21, 24, 26)"
        assert dark == (scheme == "dark")


def test_a_keyboard_is_enough(visit: Visit) -> None:
    page = visit.page
    with page.expect_file_chooser():  # in time: the browser must be told to hand its dialog over
        go_to(page, "Choose photos")
        page.keyboard.press("Enter")
    go_to(page, "Panda")
    page.keyboard.press("Enter")
    visit.settled()
    go_to(page, "giant panda")
    page.keyboard.press("Space")
    expect(visit.card("panda.webp").locator("canvas.heat")).to_be_hidden()
    page.keyboard.press("Space")
    visit.heat("panda.webp")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    second = visit.card("panda.webp").locator(".row").nth(1)
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(second).to_be_focused()
    go_to(page, "Compare sizes")
    page.keyboard.press("Enter")
    go_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(page.locator("#lab .progress")).to_be_hidden()


def go_to(page: Page, name: str) -> None:
    """Press Tab until what is called `name` has the focus, and shows it."""
    for _ in range(60):
        page.keyboard.press("Tab")
        text, style, width = page.evaluate(_FOCUS)
        if text.startswith(name):
            assert (style, width) == ("solid", "3px")
            return
    raise AssertionError(f"no way to {name}")


@pytest.fixture(scope="module")
def keyed(poolings: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for keys."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    path.write_text(json.dumps({"keys": [{"name": "visitor", "key": KEY}]}))
    path.chmod(0o600)
    with Server(poolings, "--api-keys-file", str(path)) as running:
        yield running


def test_a_key_is_asked_for_and_kept_nowhere(browser: Browser, keyed: Server) -> None:
    with Visit(browser, keyed.url) as visit:
        visit.expected = ("401",)
        page = visit.page
        dialog = page.get_by_role("dialog", name="This service asks for a key")
        expect(dialog).to_be_visible()
        visit.screenshot("key")
        assert visit.serious() == []
        dialog.get_by_label("Key").fill("not-a-key-0123456789")
        dialog.get_by_label("Key").press("Enter")
        expect(dialog).to_contain_text("nobody has this key")
        dialog.get_by_label("Key").fill(KEY)
        dialog.get_by_role("button", name="Use this key").click()
        expect(dialog).to_be_hidden()
        visit.drop("cup.webp")
        visit.settled()
        assert len(visit.predictions("cup.webp")) == 5
        kept = page.evaluate(
            "async () => JSON.stringify([localStorage, sessionStorage, document.cookie, "
            "location.href, await indexedDB.databases(), document.documentElement.outerHTML])"
        )
        assert KEY not in kept
        assert KEY not in page.evaluate("document.querySelector('#key input').value")
        page.reload()
        expect(dialog).to_be_visible()


def test_whoever_has_no_key_is_told_so_beside_the_photo(browser: Browser, keyed: Server) -> None:
    with Visit(browser, keyed.url) as visit:
        visit.expected = ("401",)
        dialog = visit.page.get_by_role("dialog")
        dialog.get_by_role("button", name="Not now").click()
        visit.drop("cup.webp")
        dialog.get_by_role("button", name="Not now").click()
        expect(visit.card("cup.webp")).to_contain_text("A key is needed")
        visit.card("cup.webp").get_by_role("button", name="Try again").click()
        dialog.get_by_label("Key").fill(KEY)
        dialog.get_by_label("Key").press("Enter")
        visit.settled()
        assert len(visit.predictions("cup.webp")) == 5
