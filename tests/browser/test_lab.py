"""The lab and the live panel."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.test_photos import asked
from tests.browser.visit import SLOW_MS, Visit
from tests.e2e.server import Server

pytestmark = pytest.mark.slow

SIZES = ["64", "96", "128", "192", "256", "320", "448", "640", "832", "1024", "native"]


def test_the_lab_shows_each_model_at_each_size(visit: Visit, playground: Server) -> None:
    visit.drop("panda.webp")
    visit.settled()
    visit.card("panda.webp").get_by_role("button", name="Compare sizes").click()
    lab = visit.page.locator("#lab")
    expect(lab.locator(".progress")).to_be_hidden(timeout=SLOW_MS)
    assert lab.locator("tbody th").all_inner_texts() == SIZES
    assert lab.locator("thead th").all_inner_texts()[1:] == [
        "efficientnet_lite0", "efficientnet_lite0-gem",
    ]  # fmt: skip
    expect(lab.locator("path.line")).to_have_count(2)
    expect(lab.locator("path.point")).to_have_count(2 * len(SIZES))
    expect(lab).to_contain_text("gem(p=3")
    expect(lab).to_contain_text("do not know “giant panda”: seed_cnn")
    values = lab.locator("tbody tr").evaluate_all(
        "rows => rows.map(row => Number(row.querySelector('td data').value))"
    )
    for row, query in ((1, {"size": 96, "resize": "fit"}), (10, {"resize": "native"})):
        (result,) = asked(playground, "panda.webp", classes=388, **query)
        assert values[row] == pytest.approx(result["predictions"][0]["probability"], abs=1e-5)
    gem = lab.locator("tbody tr").nth(10).locator("td data").nth(1).get_attribute("value")
    assert float(gem or 0) > values[10] + 0.5  # what the lab is there to show
    heights = lab.locator("path.point.series-0").evaluate_all(
        "points => points.map(point => point.transform.baseVal[0].matrix.f)"
    )
    # the higher a value, the higher its point
    order = sorted(range(len(SIZES)), key=lambda at: values[at])
    assert [heights[at] for at in order] == sorted(heights, reverse=True)


def test_the_lab_can_be_cancelled(visit: Visit) -> None:
    visit.drop("cup.webp")
    visit.settled()
    visit.page.get_by_role("button", name="Compare", exact=True).click()
    lab = visit.page.locator("#lab")
    lab.get_by_role("button", name="Cancel").click()
    expect(lab.locator(".progress")).to_be_hidden()
    assert sum("/classify?" in url for url in visit.requests) < 2 * len(SIZES)
    visit.page.get_by_role("button", name="Compare", exact=True).click()  # and begun anew
    expect(lab.locator("path.line")).to_have_count(2, timeout=SLOW_MS)
    lab.get_by_role("button", name="Cancel").click()
    expect(lab.locator(".progress")).to_be_hidden()


def test_the_live_panel_asks_only_while_it_is_seen(visit: Visit, playground: Server) -> None:
    page = visit.page
    page.clock.install()
    page.reload()
    panel = page.locator("#live")

    def metrics_asked() -> int:
        return sum(url.endswith("/metrics") for url in visit.requests)

    page.clock.run_for(10_000)
    assert metrics_asked() == 0
    with page.expect_response("**/metrics"):
        panel.locator("summary").click()
    expect(panel.locator("dd").first).to_have_text("…")
    visit.drop("cup.webp")
    visit.settled()
    with page.expect_response("**/metrics"):
        page.clock.run_for(2_000)
    expect(panel.locator("dd").first).to_have_text(re.compile(r"^0\.[1-9]$|^[1-9]"))
    expect(panel.locator("dd").nth(2)).to_have_text("1.0")
    row = panel.locator("tbody tr").nth(1)
    expect(row).to_contain_text(re.compile(r"up to 512²\s*[\d.]+ / [\d.]+"))
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(panel).to_have_attribute("data-running", "false")
    seen = metrics_asked()
    page.clock.run_for(30_000)
    assert metrics_asked() == seen


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_quantiles_are_those_of_the_buckets(visit: Visit, part: float) -> None:
    text = "\n".join(
        f'h_bucket{{le="{le}",phase="{phase}"}} {count}'
        for phase, counts in (("infer", (10, 90, 100, 100)), ("queue", (7, 7, 7, 7)))
        for le, count in zip(("0.1", "0.2", "0.4", "+Inf"), counts, strict=True)
    )
    script = """async ([text, part]) => {
      const { Reading, quantile } = await import("./static/metrics.js");
      const [before, now] = [new Reading("", 0), new Reading(text, 1)];
      return quantile(before, now, "h", { phase: "infer" }, part);
    }"""
    right = {0.5: 0.1 + 0.1 * 40 / 80, 0.99: 0.2 + 0.2 * 9 / 10}[part]
    assert visit.page.evaluate(script, [text, part]) == pytest.approx(right)


def test_closed_metrics_are_told(visit: Visit) -> None:
    visit.expected = ("403",)
    body = {"title": "Not allowed here", "detail": "closed here", "status": 403}
    visit.page.route("**/metrics", lambda route: route.fulfill(status=403, json=body))
    visit.page.locator("#live summary").click()
    expect(visit.page.locator("#live .notice")).to_have_text("Not allowed here. closed here")


def test_the_metrics_that_the_panel_reads_exist(playground: Server) -> None:
    text = httpx.get(f"{playground.url}/metrics").text
    for name in ("anypool_runs_total", "anypool_run_images_sum", "anypool_images_total",
                 "anypool_admitted_pixels", "anypool_phase_seconds"):  # fmt: skip
        assert name in text
