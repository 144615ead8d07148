"""Replicate as its Python SDK 1.0.7 and its HTTP reference describe it."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.aggregator_http import FakeServer, Reply, Seen, as_json, picture

KEY = "r8_FakeReplicateToken0123456789abcdef"
VERSION = "5f24084160c9089501c1b3545d9be3c27883ae2239b6f412990e82d4a6210f8f"
#: A model that Replicate maintains is named, not pinned.
OFFICIAL = "black-forest-labs/flux-schnell"
MODEL = "bytedance/sdxl-lightning-4step"
DONE = ("succeeded", "failed", "canceled", "aborted")


@dataclass
class Prediction:
    """One prediction of the fake."""

    id: str
    version: str
    model: str
    given: dict[str, Any]
    status: str = "starting"
    output: Any = None
    error: str | None = None
    logs: str = ""
    polls: int = 0
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass
class Script:
    """How predictions go."""

    #: States that polls see before the end.
    states: tuple[str, ...] = ("starting", "processing")
    end: str = "succeeded"
    error: str | None = None
    #: Whether ``Prefer: wait`` brings the output with the first answer.
    blocking: bool = True
    #: One URL rather than a list of them.
    single: bool = False
    #: Asset URLs as they are given out, ``None`` for the fake's own.
    output: Any = None
    #: The version that answers, when it is not the one asked for.
    serves: str | None = None
    #: The seed that the logs name, when it is not the one asked for.
    seed: int | None = None
    #: Where polls are sent, ``None`` for the fake itself.
    get_url: str | None = None
    predict_time: float | None = 1.25


class ReplicateServer(FakeServer):
    """Serves predictions, versions and the pictures that come of them."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.script = script or Script()
        self.picture = picture()
        self.picture_mime = "image/png"
        self.predictions: dict[str, Prediction] = {}
        self.canceled = threading.Event()

    def answer(self, seen: Seen) -> Reply:
        if seen.path.startswith("/asset/"):
            return self.faults.get("asset") or Reply(
                200, self.picture, {"content-type": self.picture_mime}
            )
        if seen.headers.get("authorization") != f"Bearer {KEY}":
            return problem(401, "Unauthenticated", "You did not pass a valid authentication token")
        parts = seen.path.strip("/").split("/")
        if seen.method == "POST" and parts == ["v1", "predictions"]:
            return self.faults.get("submit") or self._create(seen)
        if parts[:2] == ["v1", "predictions"] and parts[2] in self.predictions:
            found = self.predictions[parts[2]]
            if seen.method == "POST" and parts[3:] == ["cancel"]:
                return self._cancel(found)
            return self.faults.get("poll") or self._poll(found)
        if parts[:2] == ["v1", "models"] and len(parts) >= 4:
            return self.faults.get("model") or self._model(parts[2:])
        return problem(404, "Not found", "The requested resource could not be found.")

    def _create(self, seen: Seen) -> Reply:
        body = seen.json()
        version, given = body.get("version"), body.get("input")
        if version not in (VERSION, OFFICIAL):
            return problem(
                422,
                "Invalid version or not permitted",
                "The specified version does not exist (or perhaps you don't have permission to "
                "use it?)",
            )
        if not isinstance(given, dict) or ("prompt" not in given and "image" not in given):
            return problem(
                422,
                "Input validation failed",
                "- input: prompt is required\n",
                invalid_fields=[
                    {"type": "required", "field": "input", "description": "prompt is required"}
                ],
            )
        made = Prediction(
            id=f"pred{len(self.predictions):022d}",
            version=self.script.serves or ("hidden" if version == OFFICIAL else version),
            model=OFFICIAL if version == OFFICIAL else MODEL,
            given=given,
        )
        self.predictions[made.id] = made
        prefer = seen.headers.get("prefer", "")
        if self.script.blocking and re.fullmatch(r"wait(=\d+)?", prefer):
            # The blocking answer comes before the end is booked: output, yet "processing".
            made.status = "processing"
            if self.script.end == "succeeded":
                made.output = self._output()
        return as_json(self._show(made), 201)

    def _output(self) -> Any:
        if self.script.output is not None:
            return self.script.output
        url = f"{self.url}/asset/out-0.png"
        return url if self.script.single else [url]

    def _poll(self, found: Prediction) -> Reply:
        if found.status not in DONE:
            states = self.script.states
            ended = found.polls >= len(states)
            found.status = self.script.end if ended else states[found.polls]
            found.polls += 1
            if ended:
                self._finish(found)
        return as_json(self._show(found))

    def _finish(self, found: Prediction) -> None:
        if found.status == "succeeded":
            found.output = self._output()
        found.error = self.script.error
        seed = found.given.get("seed", 0) if self.script.seed is None else self.script.seed
        found.logs = f"Using seed: {seed}\n 25%|##5   | 1/4 [00:00<00:00]\n100%|###| 4/4\n"
        if self.script.predict_time is not None and found.status != "aborted":
            found.metrics = {"predict_time": self.script.predict_time, "total_time": 2.5}

    def _cancel(self, found: Prediction) -> Reply:
        if found.status not in DONE:
            found.status = "canceled"
        self.canceled.set()
        return as_json(self._show(found))

    def _model(self, parts: list[str]) -> Reply:
        name = "/".join(parts[:2])
        if name not in (MODEL, OFFICIAL):
            return problem(404, "Not found", "The requested resource could not be found.")
        version = {
            "id": VERSION,
            "created_at": "2024-02-21T18:31:47.245312Z",
            "cog_version": "0.9.4",
            "openapi_schema": {
                "components": {
                    "schemas": {
                        "Output": {
                            "type": "array",
                            "items": {"type": "string", "format": "uri"},
                            "title": "Output",
                        }
                    }
                }
            },
        }
        if parts[2:] == []:
            owner, model = name.split("/")
            return as_json(
                {
                    "url": f"https://replicate.com/{name}",
                    "owner": owner,
                    "name": model,
                    "description": None,
                    "visibility": "public",
                    "github_url": None,
                    "paper_url": None,
                    "license_url": None,
                    "run_count": 12,
                    "cover_image_url": None,
                    "default_example": None,
                    "latest_version": version,
                }
            )
        if parts[2:] == ["versions", VERSION]:
            return as_json(version)
        return problem(404, "Not found", "The requested resource could not be found.")

    def _show(self, found: Prediction) -> dict[str, Any]:
        here = f"{self.url}/v1/predictions/{found.id}"
        return {
            "id": found.id,
            "model": found.model,
            "version": found.version,
            "input": found.given,
            "logs": found.logs,
            "output": found.output,
            "data_removed": False,
            "error": found.error,
            "source": "api",
            "status": found.status,
            "created_at": "2026-11-29T14:00:00.123Z",
            "started_at": None if found.status == "starting" else "2026-11-29T14:00:01.123Z",
            "completed_at": "2026-11-29T14:00:02.373Z" if found.status in DONE else None,
            "metrics": found.metrics,
            "urls": {
                "get": self.script.get_url or here,
                "cancel": f"{here}/cancel",
                "web": f"https://replicate.com/p/{found.id}",
            },
        }


def problem(status: int, title: str, detail: str, **more: Any) -> Reply:
    """An error in the form of RFC 7807, as Replicate sends it."""
    return Reply(
        status,
        as_json({"title": title, "detail": detail, "status": status} | more).body,
        {"content-type": "application/problem+json"},
    )


#: Errors of the documentation and of the SDK's tests, by what they mean.
NO_CREDIT = problem(
    402,
    "Insufficient credit",
    "You have insufficient credit to run this model. Go to "
    "https://replicate.com/account/billing#billing to purchase credit.",
)
THROTTLED = problem(429, "", "Request was throttled. Your rate limit resets in ~7s.", retry_after=7)
