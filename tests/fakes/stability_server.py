"""Stability's v2beta image API on loopback.

Written from Stability's own OpenAPI document, as openapi-typescript rendered it into
``src/stabilityAi/types.ts`` of tadasant/mcp-server-stability-ai (commit d2f0a57): paths, fields,
ranges, headers, the error body ``{"id", "name", "errors"}`` and its statuses (400, 403, 404, 413,
422, 429 "more than 150 requests in 10 seconds", 500). The second reading is the community client
``stability-ai`` 0.7.0 from npm, driven against this fake by hand with its address changed: balance,
sd3, conservative, creative with its results, a flagged and a blurred prompt. Stability has no
Python SDK for v2beta. From other sources, not from that document: 401 and 402 (their names), and
the credits of the upscalers, which rose in 2025 (the document says 1, 25 and 25).

Stricter than the real server in one thing: a field that the document does not name is refused, so
that a stray field of a client shows.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2

from tests.fakes.http_fake import HttpFake, Part, Reply, Request, as_json, decoded, encoded, squares

KEY = "sk-stability-0123456789abcdef"
#: A prompt with this is refused with 403 before any work.
FLAGGED = "flagged-by-moderation"
#: A prompt with this brings a blurred picture under 200.
BLURRED = "blurred-on-output"

#: Credits of a successful generation; 1 credit is $0.01.
CREDITS = {
    "sd3.5-large": 6.5,
    "sd3.5-large-turbo": 4.0,
    "sd3.5-medium": 3.5,
    "fast": 2.0,
    "conservative": 40.0,
    "creative": 60.0,
}
#: About one megapixel each, sides in multiples of 64.
SIZES = {
    "21:9": (1536, 640),
    "16:9": (1344, 768),
    "3:2": (1216, 832),
    "5:4": (1152, 896),
    "1:1": (1024, 1024),
    "4:5": (896, 1152),
    "2:3": (832, 1216),
    "9:16": (768, 1344),
    "9:21": (640, 1536),
}
_FIELDS = {
    "sd3": {
        "prompt",
        "mode",
        "image",
        "strength",
        "aspect_ratio",
        "model",
        "seed",
        "output_format",
        "negative_prompt",
        "cfg_scale",
        "style_preset",
    },
    "fast": {"image", "output_format"},
    "conservative": {
        "image",
        "prompt",
        "negative_prompt",
        "seed",
        "output_format",
        "creativity",
    },
    "creative": {
        "image",
        "prompt",
        "negative_prompt",
        "seed",
        "output_format",
        "creativity",
        "style_preset",
    },
}


@dataclass
class _Job:
    key: str
    reply: Reply
    polls: int = 0
    polled_at: float = float("-inf")


class _Refused(Exception):  # noqa: N818 - an answer, not an error of the fake
    def __init__(self, status: int, name: str, *errors: str) -> None:
        self.status, self.name, self.errors = status, name, errors


class StabilityServer(HttpFake):
    """The API of one account."""

    def __init__(
        self,
        key: str = KEY,
        credit: float = 1_000.0,
        clock: Callable[[], float] = time.monotonic,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.key, self.credit, self.clock = key, credit, clock
        #: How many polls of a job answer 202.
        self.polls = 2
        #: Let polls of a job that come sooner than this many seconds after the last get 429.
        self.strict_poll_s: float | None = None
        self.jobs: dict[str, _Job] = {}
        self._calls: deque[float] = deque()
        self._ids = itertools.count(1)
        self._random = itertools.count(1_000_000)

    def expire(self) -> None:
        """Forget all results, as Stability does after 24 hours."""
        self.jobs.clear()

    def answer(self, request: Request) -> Reply:
        number = f"{next(self._ids):032x}"
        try:
            reply = self._route(request)
        except _Refused as no:
            body = {"id": number, "name": no.name, "errors": list(no.errors)}
            return as_json(body, no.status, x_request_id=number)
        reply.headers["x-request-id"] = number
        return reply

    def _route(self, request: Request) -> Reply:
        now = self.clock()
        self._calls.append(now)
        while self._calls[0] <= now - 10:
            self._calls.popleft()
        if len(self._calls) > 150:
            raise _Refused(
                429, "rate_limit_exceeded", "You have made more than 150 requests in 10 seconds."
            )
        given = request.headers.get("authorization", "")
        if not given:
            raise _Refused(401, "unauthorized", "missing authorization header")
        if given != f"Bearer {self.key}":
            raise _Refused(401, "unauthorized", f"invalid api key: {given.removeprefix('Bearer ')}")
        if request.method == "GET" and request.path == "/v1/user/balance":
            return as_json({"credits": self.credit})
        if request.method == "GET" and request.path.startswith("/v2beta/results/"):
            return self._result(request, request.path.rsplit("/", 1)[1])
        name = request.path.rsplit("/", 1)[1]
        known = {"/v2beta/stable-image/generate/sd3"} | {
            f"/v2beta/stable-image/upscale/{kind}" for kind in ("fast", "conservative", "creative")
        }
        if request.method != "POST" or request.path not in known:
            raise _Refused(404, "not_found", "the requested resource does not exist")
        return self._generation(request, name)

    def _generation(self, request: Request, name: str) -> Reply:
        if len(request.body) > 10 * 1024 * 1024:
            raise _Refused(413, "payload_too_large", "body: must be at most 10MiB")
        form = request.form
        if form is None:
            raise _Refused(400, "bad_request", "content-type: must be multipart/form-data")
        accept = request.headers.get("accept", "image/*")
        if name != "creative" and accept not in ("image/*", "application/json", "*/*"):
            raise _Refused(400, "bad_request", "accept: must be image/* or application/json")
        strays = sorted(set(form) - _FIELDS[name])
        if strays:
            raise _Refused(400, "bad_request", *(f"{field}: is not allowed" for field in strays))
        asked = _checked(form, name)
        if FLAGGED in asked["prompt"]:
            raise _Refused(
                403, "content_moderation", "Your request was flagged by our content moderation."
            )
        cost = CREDITS[asked["model"] if name == "sd3" else name]
        if self.credit < cost:
            raise _Refused(
                402, "payment_required", "You lack sufficient credits to make this request."
            )
        self.credit -= cost
        seed = asked["seed"] or next(self._random)
        # A job's picture comes as the look at it asks, whatever the start accepted.
        reply = _delivered(asked, name, seed, "image/*" if name == "creative" else accept)
        if name != "creative":
            return reply
        job = hashlib.sha256(f"{next(self._ids)}".encode()).hexdigest()
        self.jobs[job] = _Job(self.key, reply)
        return as_json({"id": job})

    def _result(self, request: Request, number: str) -> Reply:
        job = self.jobs.get(number)
        if job is None or request.headers["authorization"] != f"Bearer {job.key}":
            raise _Refused(
                404, "not_found", "id: the generation either does not exist or has expired"
            )
        now = self.clock()
        if self.strict_poll_s is not None and now - job.polled_at < self.strict_poll_s:
            raise _Refused(429, "rate_limit_exceeded", "poll at most once every 10 seconds")
        job.polls, job.polled_at = job.polls + 1, now
        if job.polls <= self.polls:
            return as_json({"id": number, "status": "in-progress"}, 202)
        if request.headers.get("accept", "*/*").startswith("application/json"):
            return _in_json(job.reply)
        return Reply(200, job.reply.body, dict(job.reply.headers))


def _checked(form: dict[str, Part], name: str) -> dict[str, Any]:
    """Return the fields of a form in their types."""
    faults: list[str] = []

    def text(field: str, default: str = "") -> str:
        part = form.get(field)
        if part is not None and part.filename is not None:
            faults.append(f"{field}: must be a string")
        return default if part is None else part.text

    def choice(field: str, default: str, allowed: tuple[str, ...]) -> str:
        value = text(field, default)
        if value not in allowed:
            faults.append(f"{field}: must be one of {', '.join(allowed)}")
        return value

    def number(field: str, default: float, least: float, most: float) -> float:
        try:
            value = float(text(field, str(default)))
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            faults.append(f"{field}: must be between {least:g} and {most:g}")
        return value

    formats = ("png", "jpeg") if name == "sd3" else ("jpeg", "png", "webp")
    asked: dict[str, Any] = {
        "prompt": text("prompt"),
        "negative_prompt": text("negative_prompt"),
        "output_format": choice("output_format", "png", formats),
        "seed": int(number("seed", 0, 0, 4_294_967_294)),
    }
    if name != "fast" and not 1 <= len(asked["prompt"]) <= 10_000:
        faults.append("prompt: must be between 1 and 10000 characters")
    if name == "sd3":
        models = ("sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium")
        asked["model"] = choice("model", "sd3.5-large", models)
        asked["cfg"] = number("cfg_scale", 4, 1, 10)
        mode = choice("mode", "text-to-image", ("text-to-image", "image-to-image"))
        if mode == "image-to-image":
            faults += [f"{f}: is required" for f in ("image", "strength") if f not in form]
            if "aspect_ratio" in form:
                faults.append("aspect_ratio: is only valid for text-to-image requests")
            asked["strength"] = number("strength", 0.5, 0, 1)
        else:
            for field in ("image", "strength"):
                if field in form:
                    faults.append(f"{field}: is only valid for image-to-image requests")
            asked["size"] = SIZES.get(choice("aspect_ratio", "1:1", tuple(SIZES)))
    elif "image" not in form:
        faults.append("image: is required")
    if name in ("conservative", "creative"):
        least = 0.2 if name == "conservative" else 0.1
        asked["creativity"] = number("creativity", 0.35, least, 0.5)
    if "image" in form:
        asked["pixels"] = decoded(form["image"].data)
        faults += _image_faults(form["image"], asked["pixels"], name)
    if faults:
        raise _Refused(400, "bad_request", *faults)
    return asked


def _image_faults(part: Part, pixels: Any | None, name: str) -> list[str]:
    if part.filename is None or pixels is None:
        return ["image: must be a jpeg, png or webp file"]
    height, width = pixels.shape[:2]
    least, most = (32, 1_536) if name == "fast" else (64, 100_000)
    area = {"fast": 1_048_576, "creative": 1_048_576, "conservative": 9_437_184}.get(name)
    faults = []
    if not (least <= width <= most and least <= height <= most):
        faults.append(f"image: every side must be between {least} and {most} pixels")
    if area is not None and width * height > area:
        faults.append(f"image: total pixel count must be at most {area:,}")
    return faults


def _delivered(asked: dict[str, Any], name: str, seed: int, accept: str) -> Reply:
    """Return the answer of a generation that was made."""
    form = asked["output_format"]
    filtered = BLURRED in asked["prompt"]
    if name == "sd3" and "pixels" not in asked:
        width, height = asked["size"]
        key = f"{asked['model']} {asked['prompt']} {asked['negative_prompt']} {seed}"
        pixels = squares(width, height, key)
    else:
        height, width = asked["pixels"].shape[:2]
        if name == "sd3":
            # The starting picture, changed towards white by the strength.
            pixels = cv2.addWeighted(
                asked["pixels"], 1 - asked["strength"], asked["pixels"], 0, 255 * asked["strength"]
            )
        else:
            # Fast: 4×, so at most 16 megapixels. The others bring 4 megapixels.
            most = (16 if name == "fast" else 4) * 1024 * 1024
            scale = (most / (width * height)) ** 0.5
            scale = min(4.0, scale) if name == "fast" else scale
            size = (round(width * scale), round(height * scale))
            pixels = cv2.resize(asked["pixels"], size, interpolation=cv2.INTER_CUBIC)
    data = encoded(cv2.blur(pixels, (299, 299)) if filtered else pixels, form)
    reason = "CONTENT_FILTERED" if filtered else "SUCCESS"
    headers = {"content-type": f"image/{form}", "finish-reason": reason, "seed": str(seed)}
    reply = Reply(200, data, headers)
    return _in_json(reply) if accept == "application/json" else reply


def _in_json(reply: Reply) -> Reply:
    return as_json(
        {
            "image": base64.b64encode(reply.body).decode(),
            "finish_reason": reply.headers["finish-reason"],
            "seed": int(reply.headers["seed"]),
        },
        content_type=f"application/json; type={reply.headers['content-type']}",
    )
