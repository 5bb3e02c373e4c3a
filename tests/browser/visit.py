"""One visitor: a page of their own, and what must not happen to it."""

import base64
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, expect

from tests.conftest import PHOTOS

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
SLOW_MS = 120_000  # machines are shared

_DROP = """files => {
  const data = new DataTransfer();
  for (const { name, body } of files) {
    const bytes = Uint8Array.from(atob(body), letter => letter.charCodeAt(0));
    data.items.add(new File([bytes], name));
  }
  const given = { bubbles: true, cancelable: true };
  const on = document.querySelector("#drop");
  on.dispatchEvent(new DragEvent("dragenter", { dataTransfer: data, ...given }));
  on.dispatchEvent(new DragEvent("drop", { dataTransfer: data, ...given }));
}"""
_PASTE = """({ name, body }) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(body), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], name));
  document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
}"""


class Visit:
    """`with Visit(browser, url) as visit:`; at the end there was no error and no other host."""

    def __init__(
        self, browser: Browser, url: str, *, scheme: Any = "light", width: int = 1280
    ) -> None:
        viewport: Any = {"width": width, "height": 900}
        self._context = browser.new_context(color_scheme=scheme, viewport=viewport)
        self.url = url
        self.page = self._context.new_page()
        self.page.set_default_timeout(SLOW_MS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.expected: tuple[str, ...] = ()  # parts of console errors that a test provokes
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def __enter__(self) -> Self:
        self.page.goto(f"{self.url}/")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._context.close()
        if error is None:
            assert self.errors == []
            own = urlsplit(self.url).netloc
            assert {urlsplit(url).netloc for url in self.requests} == {own}

    def drop(self, *names: str, broken: bool = False) -> None:
        """Drop those test photos on the page, and with `broken` half of one."""
        files = {name: (PHOTOS / name).read_bytes() for name in names}
        if broken:
            files["broken.jpg"] = half()
        encoded = [{"name": n, "body": base64.b64encode(b).decode()} for n, b in files.items()]
        self.page.evaluate(_DROP, encoded)

    def paste(self, name: str) -> None:
        """Paste a test photo."""
        body = base64.b64encode((PHOTOS / name).read_bytes()).decode()
        self.page.evaluate(_PASTE, {"name": name, "body": body})

    def choose(self, *files: Any) -> None:
        """Choose files in the browser's dialog, which the page's button opens."""
        with self.page.expect_file_chooser() as opened:
            self.page.get_by_role("button", name="Choose photos").click()
        opened.value.set_files(list(files))

    def card(self, name: str) -> Locator:
        """What the page shows of a photo."""
        return self.page.get_by_role("article", name=name)

    def settled(self) -> None:
        """Return when there is a photo, and every one has its answer."""
        expect(self.page.get_by_role("article")).not_to_have_count(0, timeout=SLOW_MS)
        states = self.page.locator("article[data-state=waiting]")
        expect(states).to_have_count(0, timeout=SLOW_MS)
        expect(self.page.locator("#progress")).to_be_hidden(timeout=SLOW_MS)

    def predictions(self, name: str) -> list[tuple[str, float]]:
        """Label and probability of each class on a photo's card."""
        rows = self.card(name).locator(".row")
        return [
            (row.locator(".label").inner_text(), float(row.locator("data").get_attribute("value")))  # type: ignore[arg-type]
            for row in rows.all()
        ]

    def heat(self, name: str) -> Locator:
        """The canvas of a photo's map, when it is seen."""
        canvas = self.card(name).locator("canvas.heat")
        expect(canvas).to_be_visible(timeout=SLOW_MS)
        return canvas

    def serious(self) -> list[str]:
        """What axe finds that keeps somebody from using the page."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{violation['id']}: {[node['html'] for node in violation['nodes']]}"
            for violation in found
            if violation["impact"] in ("serious", "critical")
        ]

    def screenshot(self, name: str) -> None:
        """Keep how the page looks, for people."""
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    def _heard(self, message: ConsoleMessage) -> None:
        expected = any(part in message.text for part in self.expected)
        if message.type in ("error", "warning") and not expected:
            self.errors.append(message.text)


def half() -> bytes:
    """A photo that was cut off."""
    data = (PHOTOS / "bee.jpg").read_bytes()
    return data[: len(data) // 2]
