"""Log lines, for people and for machines."""

import json
import logging
import logging.handlers
import re
import sys

import pytest

from service.logs import ConsoleFormatter, Format, JsonFormatter, configuration, configure

FORGED = "/x\n2026-01-01 00:00:00,000 INFO service.app[1] all is well\r\x1b[2J\u2028\x00end"
FIELDS = {"request_id": "abc", "method": "GET", "path": FORGED, "status": 404, "total_ms": 1.5}


def record(message: str, *args: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("service.api", logging.INFO, __file__, 1, message, args, None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def with_traceback(text: str) -> logging.LogRecord:
    try:
        raise ValueError(text)
    except ValueError:
        return record("it broke", exc_info=sys.exc_info())


def test_json_is_one_object_a_line_with_the_fields_of_the_record() -> None:
    line = JsonFormatter().format(record("%s %s %d", "GET", FORGED, 404, fields=FIELDS))
    assert "\n" not in line
    assert line.isprintable()
    found = json.loads(line)
    assert found["message"] == f"GET {FORGED} 404"
    assert {name: found[name] for name in FIELDS} == FIELDS
    assert found["level"] == "info"
    assert found["logger"] == "service.api"
    assert isinstance(found["pid"], int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found["time"])


def test_a_traceback_is_one_field_of_a_json_line() -> None:
    line = JsonFormatter().format(with_traceback(FORGED))
    assert line.isprintable()
    assert "ValueError: /x\n" in json.loads(line)["exception"]


def test_a_console_line_has_the_same_facts_once() -> None:
    line = ConsoleFormatter().format(
        record("%s %s %d", "GET", "/v1/models", 200, fields=FIELDS | {"path": "/v1/models"})
    )
    assert line.endswith("GET /v1/models 200 request_id=abc total_ms=1.5")


def test_what_a_client_sends_does_not_forge_console_lines() -> None:
    line = ConsoleFormatter().format(record("%s", FORGED, fields=FIELDS | {"model": FORGED}))
    assert line.isprintable()
    assert line.count(r"/x\n2026-01-01") == 2


def test_a_traceback_does_not_forge_console_lines_either() -> None:
    first, *rest = ConsoleFormatter().format(with_traceback(FORGED)).split("\n")
    assert first.endswith("it broke")
    assert any("all is well" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


@pytest.mark.parametrize("format", ["console", "json"])
def test_uvicorn_logs_as_we_do(format: Format) -> None:  # noqa: A002
    found = configuration("info", format)
    assert found["root"]["handlers"] == ["stderr"]
    assert "handlers" not in found["loggers"]["uvicorn.access"]


def test_what_somebody_else_has_set_up_goes_on_logging() -> None:
    root, theirs = logging.getLogger(), logging.getLogger("of_somebody_else")
    before = list(root.handlers), root.level
    target = logging.handlers.BufferingHandler(10)
    keeps = logging.handlers.MemoryHandler(10, target=target)  # as Ray's replicas have
    theirs.addHandler(keeps)
    try:
        root.handlers = []
        configure("info")
        theirs.warning("still here")
        keeps.flush()
    finally:
        root.handlers = before[0]
        root.setLevel(before[1])
        theirs.removeHandler(keeps)
    assert [each.getMessage() for each in target.buffer] == ["still here"]
