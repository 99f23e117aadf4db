"""Closed-loop users for locust: each sends its next request when the last one is answered.

Run it by ``make loadtest``. ``locust -f loadtest/locustfile.py`` opens the same users in locust's own
page. A closed loop sends less when the service is slow, so it says nothing about a fixed arrival rate.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from gevent import get_hub
from locust import FastHttpUser, constant, events, task

from loadtest import answers, bodies, objective, page, pictures, report
from loadtest.measurement import Recording, Sample, parse_server_timing
from loadtest.samples import write as save


class Recorder:
    """The samples of this process, in memory until the run ends."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.started_s = time.time()
        self.bodies: tuple[bodies.Body, ...] = ()

    def add(self, start_time: float, response_time: float, context: dict[str, Any], **_: object) -> None:
        """Listener of locust's ``request`` event: ``start_time`` in s, ``response_time`` in ms."""
        at_s, latency_s = start_time - self.started_s, response_time / 1000
        self.samples.append(
            Sample.of(context["body"], context["outcome"], at_s, latency_s, context["stages_ms"])
        )


recorder = Recorder()
events.request.add_listener(recorder.add)


class PredictUser(FastHttpUser):
    """Someone who wants pictures named, one request after the other."""

    wait_time = constant(0)

    @task
    def predict(self) -> None:
        """Sends one body and judges the answer."""
        body = random.choice(recorder.bodies)
        context: dict[str, Any] = {"body": body}
        with self.client.post(
            body.path,
            name=body.form,
            data=body.content,  # type: ignore[arg-type]  # bytes are right, as locust's docstring says
            headers={"Content-Type": body.content_type},
            context=context,
            catch_response=True,
        ) as response:
            outcome = answers.judge(response.status_code, response.content or b"", body.labels)
            headers = response.headers or {}
            context |= {
                "outcome": outcome,
                "stages_ms": parse_server_timing(headers.get("server-timing", "")),
            }
            response.request_meta["context"] = context
            if outcome.kind != answers.OK:
                response.failure(f"{outcome.kind}: {outcome.detail}")


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """The options of our own beside locust's."""
    parser.add_argument("--pictures", type=Path, help="folder of pictures; default: scikit-learn's digits")
    parser.add_argument(
        "--model", default="", help="models to ask for, a,b; default: the service's own choice"
    )
    parser.add_argument("--objective", default="", help='e.g. "p99<100ms, errors<0.1%%"')
    parser.add_argument("--folder", type=Path, help="where report.html, result.json and samples.csv go")


@events.init.add_listener
def prepare(environment: Any, **_: object) -> None:
    """Makes the bodies before the clock starts."""
    options = environment.parsed_options
    recorder.bodies = bodies.mixed(
        pictures.load(options.pictures), bodies.DISTINCT, seed=0, models=options.model.split(",")
    )
    # gevent's clock stood still meanwhile, and the run would end as much too early.
    get_hub().loop.update_now()


@events.test_start.add_listener
def start_clock(**_: object) -> None:
    """The moment from which samples count their seconds."""
    recorder.started_s = time.time()


@events.quitting.add_listener
def conclude(environment: Any, **_: object) -> None:
    """Prints the table and lets the objective decide the exit status."""
    options = environment.parsed_options
    samples = tuple(recorder.samples)
    result = report.conclude(
        f"closed loop, {options.num_users} users, {options.run_time} s, {environment.host}",
        Recording(samples, max((sample.at_s + sample.latency_s for sample in samples), default=1.0)),
        objective.parse(options.objective),
    )
    print(report.as_text(result))
    if options.folder:
        report.write(result, options.folder)
        save(samples, options.folder)
        page.write(result, samples, options.folder)
    environment.process_exit_code = result.exit_code
