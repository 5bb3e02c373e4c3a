"""The report as one HTML file that needs nothing else."""

from html import escape

from tests.load.charts import lines
from tests.load.record import CLASSES
from tests.load.report import Latencies, Report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 56rem; padding: 0 1rem;
  color: #1c1c1c; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 } th, td { padding: .15rem .9rem .15rem 0;
  text-align: right; border-bottom: 1px solid #ddd } th:first-child, td:first-child {
  text-align: left } svg { width: 100%; margin: 1rem 0; font: 11px sans-serif }
svg .title { font-weight: bold; font-size: 13px } svg .grid { stroke: #ddd }
svg polyline { fill: none; stroke-width: 1.6 } pre { white-space: pre-wrap }
"""


def page(report: Report) -> str:
    """HTML with tables and charts."""
    said = "passed" if report.passed else "FAILED"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>anypool load: {said}</title>
<style>{_STYLE}</style></head><body>
<h1>Load test: {said}</h1>
<p>{escape(_sentence(report))}</p>
{_table(report)}
{_charts(report)}
<h2>In words</h2>
<pre>{escape(report.text())}</pre>
</body></html>
"""


def _sentence(report: Report) -> str:
    settings = report.settings
    sent = settings.files or f"mix {settings.mix}"
    return (
        f"{sent} as {settings.form}, {settings.images} a request, {settings.loop} loop, "
        f"to {settings.host}: {report.images_per_s:g} images/s for {report.seconds:g} s."
    )


def _table(report: Report) -> str:
    head = "<tr><th>pixels sent</th><th>requests</th><th>p50 ms</th><th>p90</th><th>p99</th>"
    rows = [f"{head}<th>max</th><th>refused</th><th>failed</th></tr>"]
    for row in report.classes:
        rows.append(_row(row.pixels, row.all, str(row.refused), str(row.failed)))
        rows.append(_row("– first seen", row.first, "", ""))
        rows.append(_row("– warm", row.warm, "", ""))
    return "<table>" + "\n".join(rows) + "</table>"


def _row(name: str, found: Latencies | None, *more: str) -> str:
    times = ["0", "", "", "", ""]
    if found is not None:
        ms = (found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms)
        times = [str(found.requests), *(f"{each:.1f}" for each in ms)]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (name, *times, *more)) + "</tr>"


def _charts(report: Report) -> str:
    moments = report.timeline
    p50 = {
        name: [(m.at_s, m.p50_ms[name]) for m in moments if name in m.p50_ms] for name in CLASSES
    }
    p99 = {
        name: [(m.at_s, m.p99_ms[name]) for m in moments if name in m.p99_ms] for name in CLASSES
    }
    rates = {
        "answered": [(m.at_s, m.answered_per_s) for m in moments],
        "failed": [(m.at_s, m.failed_per_s) for m in moments],
    }
    return "\n".join([
        lines("Latency, p50 by pixels sent", "ms", p50, log=True),
        lines("Latency, p99 by pixels sent", "ms", p99, log=True),
        lines("Requests", "a second", rates),
        lines("Refused", "a second", {"refused": [(m.at_s, m.refused_per_s) for m in moments]}),
        lines("Queue of the service", "megapixels",
              {"admitted": [(at, pixels / 1e6) for at, pixels in report.queue]}),
    ])  # fmt: skip
