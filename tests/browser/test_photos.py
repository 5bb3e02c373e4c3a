"""Photos are given, classified and looked into."""

import io
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Route, expect

from tests.browser.visit import SLOW_MS, Visit, half
from tests.conftest import PHOTOS
from tests.e2e.server import Server

pytestmark = pytest.mark.slow

NAMES = ("panda.webp", "bee.jpg", "cup.webp")
_PIXELS = "canvas => canvas.toDataURL()"
_ALPHAS = """(canvas, [rows, columns]) => {
  const context = canvas.getContext("2d");
  const alpha = (x, y) => context.getImageData(Math.floor(x), Math.floor(y), 1, 1).data[3];
  const [width, height] = [canvas.width / columns, canvas.height / rows];
  return Array.from({ length: rows }, (_, y) =>
    Array.from({ length: columns }, (_, x) => alpha((x + 0.5) * width, (y + 0.5) * height)));
}"""


def asked(server: Server, *names: str, **query: Any) -> list[dict[str, Any]]:
    """What the service says of test photos."""
    files = [("files", (name, (PHOTOS / name).read_bytes())) for name in names]
    url = f"{server.url}/v1/models/efficientnet_lite0/classify"
    answer = httpx.post(url, params=query, files=files, timeout=60)
    found: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
    return found


def test_each_photo_shows_what_the_service_says_of_it(visit: Visit, playground: Server) -> None:
    visit.drop(*NAMES, broken=True)
    visit.settled()
    for result in asked(playground, *NAMES):
        name, seen, used = result["name"], result["input"], result["used"]
        shown = visit.predictions(name)
        assert [label for label, _ in shown] == [p["label"] for p in result["predictions"]]
        right = [p["probability"] for p in result["predictions"]]
        assert [value for _, value in shown] == pytest.approx(right, abs=1e-5)
        expect(visit.card(name)).to_contain_text(f"{seen['width']} × {seen['height']} pixels")
        expect(visit.card(name)).to_contain_text(f"saw {used['width']} × {used['height']}")
        percent = visit.card(name).locator("data").first.inner_text()
        assert percent == f"{100 * right[0]:.1f}%"
    files = [("files", ("broken.jpg", half())), ("files", ("x", half()))]
    broken = httpx.post(f"{playground.url}/v1/classify", files=files).json()["results"][0]["error"]
    expect(visit.card("broken.jpg")).to_contain_text(broken["title"])
    expect(visit.card("broken.jpg")).to_contain_text(broken["detail"])
    expect(visit.page.get_by_role("status")).to_have_text("3 photos classified, 1 failed")


def test_the_map_of_a_class_lies_where_the_service_says(visit: Visit, playground: Server) -> None:
    visit.drop("panda.webp", "bee.jpg")
    visit.settled()
    for result in asked(playground, "panda.webp", "bee.jpg", cam="array", top_k=2):
        name, cams = result["name"], result["cam"]
        first, second = visit.card(name).locator(".row").all()[:2]
        expect(first).to_have_attribute("aria-pressed", "true")
        before = visit.heat(name).evaluate(_PIXELS)
        second.click()
        canvas = visit.heat(name)
        expect(canvas).to_have_attribute("data-index", str(cams[1]["index"]))
        assert canvas.evaluate(_PIXELS) != before
        for button, cam in ((second, cams[1]), (first, cams[0])):
            if button.get_attribute("aria-pressed") == "false":
                button.click()
            expect(canvas).to_have_attribute("data-index", str(cam["index"]))
            values = np.array(cam["array"])  # (h, w)
            right = np.minimum(1, 2 * np.clip(values / values.max(), 0, 1))
            shown = np.array(canvas.evaluate(_ALPHAS, list(values.shape)))  # at the cells' middles
            assert np.corrcoef(right.ravel(), shown.ravel())[0, 1] > 0.97
        first.click()
        expect(visit.card(name).locator("canvas.heat")).to_be_hidden()
        expect(first).to_have_attribute("aria-pressed", "false")


def test_the_slider_makes_maps_fainter(visit: Visit) -> None:
    visit.drop("cup.webp")
    visit.settled()
    frame = visit.card("cup.webp").locator(".frame")
    visit.heat("cup.webp")
    seen = [frame.screenshot()]
    for value in ("100", "0"):
        visit.page.get_by_label("Heat map").fill(value)
        seen.append(frame.screenshot())
    visit.card("cup.webp").locator(".row").first.click()  # no map at all
    expect(visit.card("cup.webp").locator("canvas.heat")).to_be_hidden()
    assert len(set(seen)) == 3
    assert same(seen[2], frame.screenshot())


def same(first: bytes, second: bytes) -> bool:
    a, b = (Image.open(io.BytesIO(data)).convert("RGB") for data in (first, second))
    return a.size == b.size and a.tobytes() == b.tobytes()


def test_any_of_a_thousand_classes_is_found_by_its_name(visit: Visit, playground: Server) -> None:
    visit.drop("panda.webp")
    visit.settled()
    card = visit.card("panda.webp")
    search = card.get_by_role("combobox")
    search.press_sequentially("o")  # which is in most of them
    expect(visit.page.locator("#class-names option")).to_have_count(12)
    assert visit.page.evaluate("document.querySelectorAll('*').length") < 300
    search.fill("goldf")
    expect(visit.page.locator("#class-names option")).to_have_count(2)
    search.press("Enter")
    expect(card.locator(".row")).to_have_count(6)
    (right,) = asked(playground, "panda.webp", classes=1)
    expect(card.locator(".row").last).to_have_attribute("aria-pressed", "true")
    label, value = visit.predictions("panda.webp")[-1]
    assert label == "goldfish"
    assert value == pytest.approx(right["predictions"][0]["probability"], rel=1e-4)
    expect(visit.heat("panda.webp")).to_have_attribute("data-index", "1")
    card.get_by_role("combobox").fill("no such animal")
    card.get_by_role("combobox").press("Enter")
    expect(card.get_by_role("alert")).to_have_text("No class is called no such animal")


def test_photos_can_be_chosen_pasted_or_taken_from_the_examples(visit: Visit) -> None:
    visit.choose(PHOTOS / "cup.webp")
    visit.paste("goldfish.webp")
    visit.page.get_by_role("button", name="Castle").click()
    expect(visit.page.get_by_role("article")).to_have_count(3)
    visit.settled()
    assert visit.predictions("castle.webp")[0][0] == "castle"
    assert visit.predictions("goldfish.webp")[0][0] == "goldfish"
    visit.page.get_by_role("button", name="Clear").click()
    expect(visit.page.get_by_role("article")).to_have_count(0)


def test_another_model_and_size_are_asked_when_they_are_chosen(
    visit: Visit, playground: Server
) -> None:
    visit.drop("cup.webp")
    visit.settled()
    visit.page.get_by_label("Resize").select_option("limit")
    visit.page.get_by_label("Pixels").fill("100")
    visit.page.get_by_label("Pixels").press("Enter")
    expect(visit.card("cup.webp")).to_contain_text("saw 100 × 65", timeout=SLOW_MS)
    visit.settled()
    (right,) = asked(playground, "cup.webp", resize="limit", size=100)
    best = right["predictions"][0]
    assert visit.predictions("cup.webp")[0][1] == pytest.approx(best["probability"], abs=1e-5)
    visit.page.locator("#model").select_option("seed_cnn")
    expect(visit.card("cup.webp").locator(".row")).to_have_count(5)
    expect(visit.card("cup.webp").locator(".label").first).to_have_text(
        re.compile(r"^\D*\d$"), timeout=SLOW_MS
    )
    visit.settled()


def test_many_photos_go_in_small_requests(visit: Visit, playground: Server) -> None:
    begun = len(playground.lines)
    cup = (PHOTOS / "cup.webp").read_bytes()
    files = [{"name": f"{i}.webp", "mimeType": "image/webp", "buffer": cup} for i in range(20)]
    visit.choose(*files)
    visit.settled()
    expect(visit.page.locator("article[data-state=answered]")).to_have_count(20)
    playground.wait_for_log("images=4")
    sent = [int(n) for n in re.findall(r" images=(\d+)", "\n".join(playground.lines[begun:]))]
    assert sent == [8, 8, 4]


def test_what_waits_can_be_cancelled_and_taken_up_again(visit: Visit) -> None:
    held: list[Route] = []
    visit.page.route("**/classify?*", lambda route: held.append(route))
    cup = (PHOTOS / "cup.webp").read_bytes()
    files = [{"name": f"{i}.webp", "mimeType": "image/webp", "buffer": cup} for i in range(12)]
    visit.choose(*files)
    cancel = visit.page.locator("#progress").get_by_role("button", name="Cancel")
    expect(visit.page.locator("#progress")).to_contain_text("of 12")
    with visit.page.expect_event("requestfailed"):  # the request under way is given up
        cancel.click()
    expect(visit.page.locator("article[data-state=cancelled]")).to_have_count(12)
    expect(cancel).to_be_hidden()
    visit.page.unroute("**/classify?*")
    assert len(held) == 1
    visit.card("11.webp").get_by_role("button", name="Classify").click()
    expect(visit.card("11.webp").locator(".row")).to_have_count(5, timeout=SLOW_MS)
    expect(visit.page.locator("article[data-state=cancelled]")).to_have_count(11)


def test_a_busy_service_is_asked_again_when_it_says(visit: Visit) -> None:
    visit.expected = ("503",)
    refused: list[Route] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
            return
        refused.append(route)
        body = json.dumps({"title": "The queue is full", "detail": "try again", "status": 503})
        route.fulfill(status=503, headers={"Retry-After": "1"}, body=body)

    visit.page.route("**/classify?*", refuse_once)
    visit.drop("cup.webp")
    expect(visit.page.locator("#progress")).to_contain_text("The service is busy; next try in")
    expect(visit.card("cup.webp").locator(".row")).to_have_count(5, timeout=SLOW_MS)


def test_photos_that_are_refused_together_are_sent_apart(browser: Browser, poolings: Path) -> None:
    with (
        Server(poolings, "--queue-megapixels", "0.1") as server,
        Visit(browser, server.url) as visit,
    ):
        visit.expected = ("413",)
        visit.drop("panda.webp", "castle.webp", "cup.webp")
        visit.settled()
        for name in ("panda.webp", "castle.webp", "cup.webp"):
            expect(visit.card(name).locator(".row")).to_have_count(5)


def test_a_file_beyond_the_limit_is_not_even_sent(visit: Visit) -> None:

    def small_limits(route: Route) -> None:
        body = httpx.get(route.request.url).json()
        body["limits"]["max_body_bytes"] = 150_000
        route.fulfill(json=body)

    visit.page.route("**/v1/models/*", small_limits)
    visit.page.reload()
    visit.choose(PHOTOS / "cup.webp", PHOTOS / "bee.jpg", PHOTOS / "pan.webp")
    visit.settled()
    expect(visit.card("bee.jpg")).to_contain_text("It has 0.2 MB; the service takes 0.2 MB.")
    for name in ("cup.webp", "pan.webp"):
        expect(visit.card(name).locator(".row")).to_have_count(5)


def test_a_service_that_is_gone_is_told_beside_the_photo(visit: Visit) -> None:
    visit.expected = ("ERR_FAILED",)
    visit.page.route("**/classify?*", lambda route: route.abort())
    visit.drop("cup.webp")
    expect(visit.card("cup.webp")).to_contain_text("The service cannot be reached", timeout=SLOW_MS)
    visit.page.unroute("**/classify?*")
    visit.card("cup.webp").get_by_role("button", name="Try again").click()
    expect(visit.card("cup.webp").locator(".row")).to_have_count(5, timeout=SLOW_MS)


def test_a_photo_of_12_megapixels_is_made_small_beside_the_page(visit: Visit) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4000, 3000), "seagreen").save(file, "JPEG")
    visit.choose({"name": "large.jpg", "mimeType": "image/jpeg", "buffer": file.getvalue()})
    visit.settled()
    expect(visit.card("large.jpg").locator(".frame")).to_have_attribute("data-preview", "shown")
    shape = "canvas => [canvas.width, canvas.height]"
    assert visit.card("large.jpg").locator(".picture").evaluate(shape) == [800, 600]
    assert [Path(worker.url).name for worker in visit.page.workers] == ["shrink.js"]


def test_what_the_browser_cannot_show_is_classified_all_the_same(visit: Visit) -> None:
    file = io.BytesIO()
    Image.open(PHOTOS / "goldfish.webp").save(file, "TIFF")
    visit.choose({"name": "fish.tiff", "mimeType": "image/tiff", "buffer": file.getvalue()})
    visit.settled()
    expect(visit.card("fish.tiff")).to_contain_text("No preview")
    assert visit.predictions("fish.tiff")[0][0] == "goldfish"
    visit.heat("fish.tiff")


def test_below_a_path_of_a_proxy_everything_works(browser: Browser, playground: Server) -> None:
    with Visit(browser, playground.url) as visit:

        def take_away(route: Route) -> None:
            url = route.request.url.replace("/vision/", "/")
            route.fulfill(response=route.fetch(url=url))

        visit.page.route("**/vision/**", take_away)
        visit.page.goto("about:blank")  # the page above is over
        visit.requests.clear()
        visit.page.goto(f"{playground.url}/vision/")
        visit.page.get_by_role("button", name="Panda").click()
        visit.settled()
        assert visit.predictions("panda.webp")[0][0] == "giant panda"
        assert all("/vision/" in url for url in visit.requests)
