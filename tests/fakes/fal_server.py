"""fal's queue as its Python client 1.0.3 and its documentation describe it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.aggregator_http import FakeServer, Reply, Seen, as_json, picture

KEY = "0a1b2c3d-fake-4e5f-8a9b-0c1d2e3f4a5b:fakefalsecret0123456789abcdef"
APP = "fal-ai/flux/dev"
UPSCALER = "fal-ai/esrgan"
EDITOR = "fal-ai/flux-2-pro/edit"
#: Where requests go when the first choice is ill and nobody said no.
OTHER = "fal-ai/flux-lora"
#: The documentation knows three spellings of the header that says no.
NO_FALLBACK = (
    "x-app-fal-disable-fallback",
    "x-app-fal-disable-fallbacks",
    "x-fal-disable-fallbacks",
)
_YES = ("1", "true", "yes")


@dataclass
class Job:
    """One request in the queue."""

    id: str
    app: str
    given: dict[str, Any]
    retried: bool
    polls: int = 0
    canceled: bool = False


@dataclass
class Script:
    """How requests go."""

    #: States that polls see before ``COMPLETED``.
    states: tuple[str, ...] = ("IN_QUEUE", "IN_PROGRESS")
    #: Error and type that the status carries at its end, as for a crashed runner.
    error: tuple[str, str] | None = None
    #: The answer of ``response_url`` in place of pictures.
    result: Reply | None = None
    #: URLs of the pictures as they are given out, ``None`` for the fake's own.
    urls: tuple[str, ...] | None = None
    nsfw: bool = False
    seed: int | None = None
    #: Whether the first choice is ill, so that a fallback serves.
    ill: bool = False
    #: Another host for the URLs that come back from ``submit``.
    elsewhere: str | None = None
    inference_time: float | None = 0.75
    units: str | None = "1"


@dataclass
class Counts:
    """What the queue did on its own."""

    retries: int = 0
    fallbacks: int = 0


class FalServer(FakeServer):
    """Serves the queue of a few applications and the pictures that come of it."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.script = script or Script()
        self.picture = picture()
        self.picture_mime = "image/png"
        self.jobs: dict[str, Job] = {}
        self.counts = Counts()
        self.canceled = threading.Event()

    def answer(self, seen: Seen) -> Reply:
        if seen.path.startswith("/files/"):
            return self.faults.get("asset") or Reply(
                200, self.picture, {"content-type": self.picture_mime}
            )
        app = seen.path.strip("/").split("/requests/")[0]
        if seen.headers.get("authorization") != f"Key {KEY}":
            return as_json(
                {
                    "detail": f"Cannot access application {app!r}. Authentication is required to "
                    "access this application."
                },
                401,
            )
        if "/requests/" not in seen.path:
            return self.faults.get("submit") or self._submit(app, seen)
        request, _, action = seen.path.split("/requests/")[1].partition("/")
        job = self.jobs.get(request)
        # The address of a request leaves out the part of the path below the application.
        if job is None or app != "/".join(job.app.split("/")[:2]):
            return as_json({"detail": "Request not found"}, 404)
        if action == "status" and seen.method == "GET":
            return self.faults.get("poll") or self._status(job, seen)
        if action == "cancel" and seen.method == "PUT":
            return self._cancel(job)
        return self.faults.get("result") or self._result(job)

    def _submit(self, app: str, seen: Seen) -> Reply:
        if app not in (APP, UPSCALER, EDITOR):
            return as_json({"detail": f"Application {app.split('/')[1]!r} not found"}, 404)
        again = seen.headers.get("x-fal-no-retry") not in _YES
        served = app
        if self.script.ill:
            self.counts.retries += 5 if again else 0
            if not any(seen.headers.get(name) in _YES for name in NO_FALLBACK):
                self.counts.fallbacks += 1
                served = OTHER
        job = Job(f"fal-{len(self.jobs):08d}", served, seen.json(), again)
        self.jobs[job.id] = job
        urls = self._urls(job)
        return as_json(
            {"status": "IN_QUEUE", "request_id": job.id, "queue_position": 0} | urls,
            200,
            x_fal_request_id=job.id,
        )

    def _urls(self, job: Job) -> dict[str, str]:
        host = self.script.elsewhere or self.url
        here = f"{host}/{'/'.join(job.app.split('/')[:2])}/requests/{job.id}"
        return {
            "response_url": here,
            "status_url": f"{here}/status",
            "cancel_url": f"{here}/cancel",
        }

    def _ended(self, job: Job) -> bool:
        return job.polls > len(self.script.states) or job.canceled

    def _status(self, job: Job, seen: Seen) -> Reply:
        job.polls += 1
        shown: dict[str, Any] = {"request_id": job.id, "logs": None} | self._urls(job)
        if (seen.argument("logs") or "").lower() in _YES:
            shown["logs"] = [{"message": "loading", "level": "INFO"}]
        if not self._ended(job):
            state = self.script.states[job.polls - 1]
            shown["status"] = state
            if state == "IN_QUEUE":
                shown["queue_position"] = 3
            return as_json(shown, 202)
        shown["status"] = "COMPLETED"
        shown["metrics"] = (
            {}
            if self.script.inference_time is None
            else {"inference_time": self.script.inference_time}
        )
        if job.canceled:
            shown |= {"error": "Request was cancelled", "error_type": "client_cancelled"}
        elif self.script.error is not None:
            shown |= dict(zip(("error", "error_type"), self.script.error, strict=True))
        elif self.script.ill and job.app != OTHER:
            shown |= {"error": "Runner disconnected", "error_type": "runner_disconnected"}
        return as_json(shown)

    def _result(self, job: Job) -> Reply:
        if not self._ended(job):
            return as_json({"detail": "Request is still in progress"}, 400)
        failed = self.script.error
        if self.script.ill and job.app != OTHER:
            failed = ("Runner disconnected", "runner_disconnected")
        if job.canceled:
            failed = ("Request was cancelled", "client_cancelled")
        if failed is not None:
            return request_error(*failed)
        if self.script.result is not None:
            return self.script.result
        return self._pictures(job)

    def _pictures(self, job: Job) -> Reply:
        urls = (f"{self.url}/files/b/out.png",) if self.script.urls is None else self.script.urls
        shown = [
            {"url": url, "content_type": "image/png", "width": 32, "height": 32} for url in urls
        ]
        headers = {} if self.script.units is None else {"x_fal_billable_units": self.script.units}
        if job.app == UPSCALER:
            return as_json({"image": shown[0]}, x_fal_request_id=job.id, **headers)
        seed = job.given.get("seed", 1) if self.script.seed is None else self.script.seed
        return as_json(
            {
                "images": shown,
                "seed": seed,
                "timings": {"inference": 0.7},
                "has_nsfw_concepts": [self.script.nsfw] * len(shown),
                "prompt": job.given.get("prompt", ""),
            },
            x_fal_request_id=job.id,
            **headers,
        )

    def _cancel(self, job: Job) -> Reply:
        self.canceled.set()
        if self._ended(job):
            return as_json({"status": "ALREADY_COMPLETED"}, 400)
        job.canceled = True
        return as_json({"status": "CANCELLATION_REQUESTED"}, 202)


#: Statuses of the errors of runners, from the documentation's table of request errors.
_STATUS = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_disconnected": 503,
    "runner_incomplete_response": 502,
    "runner_server_error": 500,
    "client_cancelled": 499,
    "internal_error": 500,
}


def request_error(detail: str, kind: str) -> Reply:
    """An error of fal's own machinery."""
    return as_json({"detail": detail, "error_type": kind}, _STATUS[kind], x_fal_error_type=kind)


def model_error(
    status: int, kind: str, msg: str, *, loc: tuple[str, ...] = ("body", "prompt"), again: bool
) -> Reply:
    """An error that the application raises about its input or its own work."""
    return as_json(
        {
            "detail": [
                {
                    "loc": list(loc),
                    "msg": msg,
                    "type": kind,
                    "url": f"https://docs.fal.ai/errors#{kind}",
                    "input": "x",
                }
            ]
        },
        status,
        x_fal_retryable="true" if again else "false",
    )


@dataclass(frozen=True)
class Errors:
    """Errors of the documentation by what they mean."""

    refused: Reply = field(
        default_factory=lambda: model_error(
            422,
            "content_policy_violation",
            "The content could not be processed because it was flagged by a content checker.",
            again=False,
        )
    )
    invalid: Reply = field(
        default_factory=lambda: model_error(
            422, "greater_than", "Input should be greater than 0", again=False
        )
    )
    downstream: Reply = field(
        default_factory=lambda: model_error(
            400, "downstream_service_error", "Downstream service error", loc=("body",), again=True
        )
    )


ERRORS = Errors()
LOCKED = as_json(
    {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai."}, 403
)
