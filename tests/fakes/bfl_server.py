"""Black Forest Labs as its documentation and its OpenAPI description give it; it has no SDK."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.fakes.aggregator_http import FakeServer, Reply, Seen, as_json, picture

KEY = "bfl-fake-key-0123456789abcdef"
MODELS = ("flux-2-pro", "flux-2-max", "flux-2-flex", "flux-pro-1.1", "flux-kontext-pro")
#: An asset after its ten minutes, in the words of the store that keeps it.
EXPIRED = Reply(
    403,
    b'<?xml version="1.0" encoding="utf-8"?><Error><Code>AuthenticationFailed</Code><Message>'
    b"Server failed to authenticate the request. Signature not valid in the specified time frame"
    b"</Message></Error>",
    {"content-type": "application/xml"},
)


@dataclass
class Script:
    """How tasks go."""

    pending: int = 2
    end: str = "Ready"
    details: dict[str, Any] | None = None
    #: Where polls are sent, ``None`` for the fake itself; ``{id}`` is filled in.
    polling_url: str | None = None
    #: Where the picture is, ``None`` for the fake itself.
    sample: str | None = None
    seed: int | None = None
    #: Credits (cents) that the answer to ``submit`` names; ``None`` for an answer without.
    cost: Any = "computed"
    duration: float = 3.5


class BflServer(FakeServer):
    """Serves tasks and the pictures that come of them."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.script = script or Script()
        self.picture = picture(kind="JPEG")
        self.picture_mime = "image/jpeg"
        self.tasks: dict[str, dict[str, Any]] = {}
        self.polls: dict[str, int] = {}

    def answer(self, seen: Seen) -> Reply:
        if seen.path.startswith("/delivery/"):
            return self.faults.get("asset") or Reply(
                200, self.picture, {"content-type": self.picture_mime}
            )
        if seen.headers.get("x-key") != KEY:
            return as_json({"detail": "Not authenticated - Invalid Authentication"}, 403)
        if seen.method == "POST" and seen.path.startswith("/v1/"):
            return self.faults.get("submit") or self._submit(seen)
        if seen.method == "GET" and seen.path == "/v1/get_result":
            return self.faults.get("poll") or self._poll(seen.argument("id") or "")
        if seen.method == "GET" and seen.path == "/openapi.json":
            return as_json({"paths": {f"/v1/{name}": {"post": {}} for name in MODELS}})
        return as_json({"detail": "Not Found"}, 404)

    def _submit(self, seen: Seen) -> Reply:
        if seen.path.removeprefix("/v1/") not in MODELS:
            return as_json({"detail": "Not Found"}, 404)
        given = seen.json()
        for side in ("width", "height"):
            if given.get(side, 64) < 64 or given.get(side, 64) % 16:
                return invalid(side, f"{side} must be a multiple of 16 and at least 64")
        task = f"5a1f0000-0000-4000-8000-{len(self.tasks):012d}"
        self.tasks[task] = given
        self.polls[task] = 0
        made: dict[str, Any] = {
            "id": task,
            "polling_url": (self.script.polling_url or self.url + "/v1/get_result?id={id}").format(
                id=task
            ),
        }
        if self.script.cost is not None:
            size = given.get("width", 1024) * given.get("height", 1024) / 1e6
            cost = 3.0 + 1.5 * max(0, -(-size // 1) - 1)
            made |= {
                "cost": cost if self.script.cost == "computed" else self.script.cost,
                "input_mp": 0.0,
                "output_mp": round(size, 2),
            }
        return as_json(made)

    def _poll(self, task: str) -> Reply:
        if task not in self.tasks:
            return as_json({"id": task, "status": "Task not found", "result": None}, 404)
        self.polls[task] += 1
        shown: dict[str, Any] = {"id": task, "result": None, "details": None, "preview": None}
        if self.polls[task] <= self.script.pending:
            return as_json(shown | {"status": "Pending", "progress": 0.3})
        shown |= {"status": self.script.end, "progress": None, "details": self.script.details}
        if self.script.end == "Ready":
            given = self.tasks[task]
            seed = given.get("seed", 1) if self.script.seed is None else self.script.seed
            shown["result"] = {
                "sample": self.script.sample or f"{self.url}/delivery/{task}/sample.jpeg?sig=x",
                "prompt": given.get("prompt"),
                "seed": seed,
                "start_time": 1764424800.0,
                "end_time": 1764424800.0 + self.script.duration,
                "duration": self.script.duration,
            }
        return as_json(shown)


def invalid(field: str, msg: str) -> Reply:
    """A mistake in the request, as FastAPI words it."""
    return as_json({"detail": [{"loc": ["body", field], "msg": msg, "type": "value_error"}]}, 422)


NO_CREDIT = as_json(
    {"detail": "Insufficient credits. Please visit https://api.bfl.ai to add more."}, 402
)
BUSY = as_json({"detail": "Rate limit exceeded: 24 active tasks"}, 429)
