"""One Locust process of a load test: START HERE. Local, master or worker.

Locust's users are only clocks: each sends one request after another (closed loop), or has arrivals
of its own at `--pace` a second whether or not answers come (open loop), so that the number of users
is the rate, and Locust's own controls change it. Requests run in greenlets of their own
(traffic.py). Workers send what they saw to the master; whoever is no worker checks the answers and
reports.
"""

import json
import logging
import random
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from locust.env import Environment
from locust.runners import STATE_RUNNING, STATE_SPAWNING, MasterRunner, WorkerRunner

from tests.load.arrivals import poisson
from tests.load.check import check
from tests.load.forms import FORMS, raw, results
from tests.load.mixes import Picture, folder, mix
from tests.load.page import page
from tests.load.record import Record
from tests.load.report import Report, Settings
from tests.load.steps import Climb
from tests.load.traffic import Bounds, Connections, Traffic

_LOG = logging.getLogger(__name__)
_FINISH, _FINISHED = "anypool-finish", "anypool-finished"
_METRIC = "anypool_admitted_pixels "
_TRIES = 5


class Harness:
    """What the parts of one process share; `environment` is Locust's."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.record = Record()
        self.climb: Climb | None = None
        self.begun = time.time()
        self._made: tuple[object, ...] = ()
        self._pictures: list[Picture] = []
        self._queue: list[tuple[float, int]] = []
        self._waiting: set[str] = set()
        self._in_flight: dict[str, int] = {}
        self._traffic: Traffic | None = None
        self._rng = random.Random()
        runner, events = environment.runner, environment.events
        self._is_master = isinstance(runner, MasterRunner)
        self._is_worker = isinstance(runner, WorkerRunner)
        if self._is_worker:
            assert runner is not None
            runner.register_message(_FINISH, self._on_finish, concurrent=True)
            events.report_to_master.add_listener(self._on_report)
        elif self._is_master:
            assert runner is not None
            runner.register_message(_FINISHED, self._on_finished)
            events.worker_report.add_listener(self._on_worker_report)
        events.test_start.add_listener(self._on_start)
        if not self._is_worker:
            events.test_stopping.add_listener(self._on_stopping)
            events.test_stop.add_listener(self._on_stop)
            events.quitting.add_listener(self._on_quitting)
        if not self._is_master and not self._is_worker:
            self._make_pictures()  # a worker is told at the start which ones

    @property
    def settings(self) -> Settings:
        """The options as they are now: the web page and the master change them."""
        told = vars(self.environment.parsed_options)
        return Settings(
            host=_url(self.environment.host or ""),
            **{name: told[name] for name in Settings.OPTIONS},
        )

    @property
    def in_flight(self) -> int:
        """Requests that are due and not answered, as far as is known here."""
        here = self._traffic.in_flight if self._traffic is not None else 0
        return here + sum(self._in_flight.values())

    @property
    def overdue(self) -> int:
        """Those of them that have missed the objective already."""
        return self._traffic.overdue(self.settings.objective_s) if self._traffic else 0

    def arrivals(self) -> Iterator[float]:
        """When a user's requests are due."""
        if self.settings.loop == "open":
            return poisson(self._rng, self.settings.pace, time.perf_counter())
        return iter(time.perf_counter, None)

    def visit(self, due: float) -> None:
        """One request of a user; in the closed loop, until it is answered."""
        assert self._traffic is not None
        gevent.sleep(max(0.0, due - time.perf_counter()))
        sent = self._traffic.send(due)
        if self._traffic.ended:
            gevent.sleep(1)
        elif sent is not None and self.settings.loop == "closed":
            sent.join()

    def _make_pictures(self) -> None:
        wanted = self.settings
        key = (wanted.mix, wanted.files, wanted.count, wanted.seed, wanted.formats)
        if key == self._made:
            return
        formats = wanted.formats.split(",") if wanted.formats else []
        if wanted.files:
            made = folder(Path(wanted.files), wanted.count)
        else:
            made = mix(wanted.mix, wanted.count, wanted.seed, formats)
        self._pictures = []
        for picture in made:
            self._pictures.append(picture)
            gevent.sleep(0)  # a worker's heart must beat meanwhile
        if not self._pictures:
            raise SystemExit(f"no images in {wanted.files}")
        self._made = key

    def _path(self) -> str:
        wanted = self.settings
        if wanted.form != "oip":
            return wanted.classify(top_k=1)
        name = wanted.model
        if not name:  # the default comes first
            listed = json.loads(self._connections(1).get("/v1/models").body)
            name = listed["models"][0]["name"]
        return f"/v2/models/{name}/infer"

    def _connections(self, most: int) -> Connections:
        key = self.settings.key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return Connections(self.settings.host, headers, most)

    def _on_start(self, environment: Environment, **_: Any) -> None:
        self.record, self._queue, self._in_flight = Record(), [], {}
        if not self._is_master:
            self._make_pictures()
            wanted = self.settings
            bounds = Bounds(connections=wanted.connections, timeout_s=wanted.timeout_s)
            self._traffic = Traffic(
                self._connections(bounds.connections),
                self._pictures,
                FORMS[wanted.form],
                self._path(),
                wanted.images,
                self.record,
                self._told,
                bounds,
                self._rng,
            )
        self.begun, self._cpu = time.time(), time.process_time()
        if not self._is_worker:
            gevent.spawn(self._watch, self.begun)

    def _told(self, name: str, seconds: float, length: int, why: str | None) -> None:
        self.environment.events.request.fire(
            request_type="POST",
            name=name,
            response_time=1e3 * seconds,
            response_length=length,
            exception=None if why is None else RuntimeError(why),
            context={},
        )

    def _watch(self, begun: float) -> None:
        """The service's queue, each second of a run."""
        connections = self._connections(1)
        while self.begun == begun:
            try:
                with gevent.Timeout(5):
                    text = connections.get("/metrics").body.decode()
            except (Exception, gevent.Timeout):  # the chart goes without
                return
            for line in text.splitlines():
                if line.startswith(_METRIC):
                    self._queue.append((time.time(), round(float(line.split()[1]))))
            gevent.sleep(1)

    def _on_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        data["anypool"] = {**self.record.take(), "in_flight": self.in_flight}

    def _on_worker_report(self, client_id: str, data: dict[str, Any], **_: Any) -> None:
        if told := data.get("anypool"):
            self.record.add(told)
            self._in_flight[client_id] = told["in_flight"]

    def _on_finish(self, environment: Environment, msg: Any, **_: Any) -> None:
        if self._traffic is not None:
            self._traffic.finish()
        assert environment.runner is not None
        environment.runner.send_message(_FINISHED, self.record.take())

    def _on_finished(self, environment: Environment, msg: Any, **_: Any) -> None:
        self.record.add(msg.data)
        self._waiting.discard(msg.node_id)

    def _on_stopping(self, environment: Environment, **_: Any) -> None:
        self._ended, self._cpu = time.time(), time.process_time() - self._cpu
        runner = environment.runner
        if isinstance(runner, MasterRunner):
            self._waiting = {worker.id for worker in runner.clients.all}
            runner.send_message(_FINISH)
            with gevent.Timeout(self.settings.timeout_s + 30, False):
                while self._waiting & {worker.id for worker in runner.clients.all}:
                    gevent.sleep(0.05)
        elif self._traffic is not None:
            self._traffic.finish()

    def _on_stop(self, environment: Environment, **_: Any) -> None:
        first = min((sample.at for sample in self.record.samples), default=0.0)
        begun, self.begun = max(first, self.begun), 0.0  # workers make their pictures first
        if self._is_master:
            self._make_pictures()
        _LOG.info("asking about each picture alone, to check the answers")
        verdict = check(self.record.answers, partial(self._alone, self._connections(1)))
        for example in verdict.examples:
            environment.events.request.fire(
                request_type="CHECK", name="wrong answers", response_time=0, response_length=0,
                exception=RuntimeError(example), context={},
            )  # fmt: skip
        steps, capacity = (self.climb.steps, self.climb.capacity) if self.climb else ([], None)
        cpu = None if self._is_master else self._cpu
        report = Report.of(
            self.settings,
            begun,
            self._ended,
            self.record,
            verdict,
            self._queue,
            steps,
            capacity,
            cpu,
        )
        out = Path(self.settings.out)
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")
        (out / "report.html").write_text(page(report), encoding="utf-8")
        print(f"\n{report.text()}\n\n{out}/report.html and report.json\n", flush=True)
        environment.process_exit_code = 0 if report.passed else 1

    def _on_quitting(self, environment: Environment, **_: Any) -> None:
        """Interrupted: check what there is, before the exit code is read."""
        runner = environment.runner
        if runner is not None and runner.state in (STATE_SPAWNING, STATE_RUNNING):
            runner.stop()

    def _alone(self, connections: Connections, number: int) -> Mapping[int, float]:
        """What the service says of a picture when nothing else is asked; nothing if it fails."""
        asked = raw([self._pictures[number]], self.settings.classify(top_k=5))
        for _ in range(_TRIES):
            try:
                with gevent.Timeout(60):
                    reply = connections.post(lambda: asked)
                if reply.status == 200:
                    (answer,) = results(reply.body)
                    return answer.probabilities
            except (Exception, gevent.Timeout):
                _LOG.exception("picture %d alone", number)
            gevent.sleep(1)
        return {}


def _url(host: str) -> str:
    return host if "://" in host else f"http://{host}"
