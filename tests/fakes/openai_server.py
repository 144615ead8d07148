"""A fake of OpenAI's Images API, and of the servers that are compatible with it.

Made from the official SDK (openai 3.57.0: parameters, response and error types), its issues for
the error bodies, and the sources of vLLM-Omni, SGLang, LocalAI and LiteLLM for what they do
differently. ``tests/providers/sdks/test_openai_sdk.py`` keeps it true with the SDK as the client.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.http_fake import (
    Bend,
    HttpFake,
    Reply,
    Request,
    as_json,
    decoded,
    picture,
    says,
    with_json,
)

#: Looks like a real key, so that a leak is found.
KEY = "sk-proj-Zt4kQ9vX2mB7cL1pR8wY5nD3fG6hJ0sA"

#: Live and dead models on 2026-11-29, by https://developers.openai.com/api/docs/deprecations.
MODELS: dict[str, str | None] = {
    "gpt-image-2": None,
    "gpt-image-2-2026-04-21": None,
    "gpt-image-2.5-flare-2026-09-08": None,
    "gpt-image-2.5-sunburst-2026-09-08": None,
    "gpt-image-2.6-flare": None,
    "gpt-image-1.5": "2026-12-01",
}
DEAD = {"gpt-image-1": "2026-10-23", "dall-e-3": "2026-05-12"}

#: All that the models before gpt-image-2 draw.
OLD_SIZES = ("1024x1024", "1536x1024", "1024x1536")
_COMMON = {
    "model", "prompt", "n", "size", "quality", "output_format", "output_compression",
    "background", "stream", "partial_images", "user", "safety_identifier", "complexity",
    "frame_count", "frame_duration_ms", "svg",
}  # fmt: skip
_GENERATE = _COMMON | {"moderation", "style"}
_EDIT = _COMMON | {"image", "image[]", "mask", "markup", "input_fidelity"}
#: Tokens of one 1024x1024 picture by quality, those of gpt-image-1; other sizes in proportion.
_TOKENS = {"low": 272, "medium": 1056, "high": 4160, "auto": 1056}


@dataclass(frozen=True)
class Flavour:
    """What a compatible server does differently."""

    #: OpenAI refuses parameters that it does not know; most others ignore them in silence.
    strict: bool = False
    #: Shape of error bodies: ``openai``, ``detail`` (FastAPI) or ``localai`` (numbers as codes).
    errors: str = "detail"
    #: What ``data[0]`` holds when ``response_format`` is not given.
    asset: str = "b64_json"
    #: Whether ``response_format: url`` is understood.
    urls: bool = False
    usage: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    needs_key: bool = False


FLAVOURS: dict[str, Flavour] = {
    "openai": Flavour(strict=True, errors="openai", usage=True, needs_key=True),
    "vllm-omni": Flavour(),
    "sglang": Flavour(asset="url", urls=True),
    "localai": Flavour(errors="localai", asset="url", urls=True),
    "litellm": Flavour(
        errors="openai",
        usage=True,
        needs_key=True,
        headers=(
            ("x-litellm-response-cost", "0.0336"),
            ("x-litellm-call-id", "b980db26-9512-45cc-b1da-c511a363b83f"),
            ("x-litellm-model-id", "cb41bc03f4c33d310019bae8c5afdb1af0a8f97b"),
        ),
    ),
    "nim": Flavour(),
}


def error(
    status: int, message: str, code: Any, kind: str = "invalid_request_error", **more: Any
) -> dict[str, Any]:
    """Return an error body of OpenAI."""
    param = more.pop("param", None)
    return {"error": {"message": message, "type": kind, "param": param, "code": code} | more}


def _says(status: int, message: str, code: Any, kind: str = "invalid_request_error") -> Bend:
    return says(status, error(status, message, code, kind))


def blocked(stage: str) -> Bend:
    """Refuse as the moderation does; ``stage`` is ``input`` or ``output``."""
    return says(
        400,
        error(
            400,
            "Your request was rejected by the safety system. If you believe this is an error, "
            "contact us at help.openai.com and include the request ID req_1. "
            "safety_violations=[sexual].",
            "moderation_blocked",
            "image_generation_user_error",
            moderation_details={"moderation_stage": stage, "categories": ["sexual"]},
        ),
        x_request_id="req_blocked",
    )


def with_data(change: Callable[[dict[str, Any]], Any]) -> Bend:
    """Change the first picture of the true answer."""

    def changed(value: Any) -> Any:
        return value | {"data": [change(value["data"][0])]}

    return with_json(changed)


def without_data(value: Any) -> Any:
    return value | {"data": []}


def _retry(status: int, message: str, code: Any, kind: str, **headers: str) -> Bend:
    return says(status, error(status, message, code, kind), **headers)


#: Every way in which OpenAI refuses or fails with a whole answer, by name.
FAILURES: dict[str, Bend] = {
    "moderation_input": blocked("input"),
    "moderation_output": blocked("output"),
    "content_policy": _says(
        400,
        "Your request was rejected as a result of our safety system.",
        "content_policy_violation",
    ),
    "invalid_size": _says(400, "Invalid value: '500x500'.", "invalid_value"),
    "hard_limit": _says(
        400,
        "Billing hard limit has been reached.",
        "billing_hard_limit_reached",
        "image_generation_user_error",
    ),
    "bad_key": _says(
        401,
        "Incorrect API key provided: sk-proj-********s0sA. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "invalid_api_key",
    ),
    "unverified": _says(
        403,
        "Your organization must be verified to use the model `gpt-image-2`. Please go to: "
        "https://platform.openai.com/settings/organization/general and click on Verify.",
        None,
    ),
    "retired": _says(
        404, "The model `gpt-image-2-2026-04-21` has been deprecated.", "model_not_found"
    ),
    "timeout_408": _says(408, "Request timed out.", None, "server_error"),
    "conflict": _says(409, "The resource is locked.", None),
    "too_large": _says(413, "Maximum content size limit exceeded.", None),
    "unprocessable": _says(422, "Unprocessable entity.", None),
    "rate_limit": _retry(
        429,
        "Rate limit reached for gpt-image-2 in organization org-1 on input-images per min: "
        "Limit 5, Used 5, Requested 1. Please try again in 1.5s.",
        "rate_limit_exceeded",
        "input-images",
        retry_after_ms="1500",
        retry_after="2",
    ),
    "quota": _says(
        429,
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
        "insufficient_quota",
    ),
    "no_retry": _retry(
        429,
        "Rate limit reached for gpt-image-2.",
        "rate_limit_exceeded",
        "requests",
        x_should_retry="false",
    ),
    "server": _retry(
        500,
        "The server had an error while processing your request. Sorry about that!",
        None,
        "server_error",
        x_request_id="req_500",
    ),
    "server_no_retry": _retry(
        500, "The server had an error.", None, "server_error", x_should_retry="false"
    ),
    "overloaded": _retry(
        503, "The engine is currently overloaded.", None, "server_error", retry_after="3"
    ),
    "loading": _retry(
        400,
        "The upstream model is loading.",
        "model_loading",
        "server_error",
        x_should_retry="true",
    ),
}


class OpenAIServer(HttpFake):
    """``/v1/images/generations``, ``/v1/images/edits``, ``/v1/models`` and pictures by address.

    Args:
        flavour: Which server this is, of ``FLAVOURS``.
        latency_s: Seconds before each answer.
        fixed: Bytes of every picture; by default one is drawn for prompt, size and seed.
    """

    def __init__(
        self, flavour: str = "openai", *, latency_s: float = 0.0, fixed: bytes | None = None
    ) -> None:
        super().__init__(latency_s=latency_s)
        self.flavour = FLAVOURS[flavour]
        self.fixed = fixed
        self._made: dict[tuple[str, bytes], Reply] = {}
        self.models = dict(MODELS)
        self.pictures: dict[str, bytes] = {}

    def answer(self, request: Request) -> Reply:
        """Return what the server answers when nothing is wrong with it."""
        if request.method == "GET" and request.path in self.pictures:
            return Reply(200, self.pictures[request.path], {"content-type": "image/png"})
        if self.flavour.needs_key and (reply := self._unauthorised(request)):
            return reply
        match request.method, request.path:
            case "GET", "/v1/models":
                entries = [self._model(name) for name in self.models]
                return as_json({"object": "list", "data": entries})
            case "GET", path if path.startswith("/v1/models/"):
                name = path.removeprefix("/v1/models/")
                return as_json(self._model(name)) if name in self.models else self._no_model(name)
            case "POST", "/v1/images/generations":
                if self.fixed is None:
                    return self._generate(request)
                # For benchmarks: encoding a megabyte takes longer than serving it.
                made = self._made.get((request.path, request.body)) or self._generate(request)
                self._made[request.path, request.body] = made
                return made
            case "POST", "/v1/images/edits":
                return self._edit(request)
        return self._error(404, f"Invalid URL ({request.method} {request.path})", None)

    def _unauthorised(self, request: Request) -> Reply | None:
        given = request.headers.get("authorization", "")
        if given == f"Bearer {KEY}":
            return None
        if not given.startswith("Bearer "):
            return self._error(401, "Missing bearer or basic authentication in header", None)
        return FAILURES["bad_key"](Reply())

    def _model(self, name: str) -> dict[str, Any]:
        entry = {"id": name, "object": "model", "created": 1_776_700_000, "owned_by": "system"}
        if self.flavour.strict:
            entry["shutdown_date"] = self.models[name]
        return entry

    def _no_model(self, name: str) -> Reply:
        if name in DEAD:
            return self._error(
                404, f"The model `{name}` has been deprecated.", "model_not_found", "model"
            )
        return self._error(404, f"The model '{name}' does not exist", "model_not_found", "model")

    def _generate(self, request: Request) -> Reply:
        try:
            fields = request.json
        except ValueError:
            return self._error(400, "We could not parse the JSON body of your request.", None)
        return self._checked(fields, _GENERATE, 0)

    def _edit(self, request: Request) -> Reply:
        form = request.form
        if form is None:
            return self._error(400, "Expected multipart/form-data.", "unsupported_content_type")
        images = [part for name, part in form.items() if name in ("image", "image[]")]
        if not images:
            return self._error(
                400, "Missing required parameter: 'image'.", "missing_required_parameter", "image"
            )
        if decoded(images[0].data) is None:
            return self._error(
                400,
                "Invalid image file or mode for image 1, please check your image file.",
                "invalid_image_file",
                "image",
            )
        texts = {
            name: part.data.decode() if part.filename is None else "" for name, part in form.items()
        }
        return self._checked(texts, _EDIT, 323 * len(images))

    def _checked(self, fields: dict[str, Any], known: set[str], image_tokens: int) -> Reply:
        """Return the picture when the fields are right, else the error that OpenAI gives."""
        if self.flavour.strict:
            for name in fields:
                if name not in known:
                    return self._error(
                        400, f"Unknown parameter: '{name}'.", "unknown_parameter", name
                    )
            if fields.get("model") not in self.models:
                return self._no_model(str(fields.get("model")))
            old = str(fields["model"]).startswith("gpt-image-1")
            if old and fields.get("size", "auto") not in (*OLD_SIZES, "auto"):
                return self._error(400, f"Invalid value: '{fields['size']}'.", "invalid_value")
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            return self._error(
                400, "Missing required parameter: 'prompt'.", "missing_required_parameter", "prompt"
            )
        if len(prompt) > 32_000:
            return self._error(
                400, "Invalid 'prompt': string too long.", "string_above_max_length", "prompt"
            )
        size = str(fields.get("size") or "1024x1024")
        match = re.fullmatch(r"(\d{2,4})x(\d{2,4})", "1024x1024" if size == "auto" else size)
        if match is None or (self.flavour.strict and not _size_fits(*map(int, match.groups()))):
            return self._error(400, f"Invalid value: '{size}'.", "invalid_value", "size")
        return self._picture(fields, prompt, int(match[1]), int(match[2]), image_tokens)

    def _picture(
        self, fields: dict[str, Any], prompt: str, width: int, height: int, image_tokens: int
    ) -> Reply:
        kind = str(fields.get("output_format") or "png")
        data = self.fixed or picture(width, height, f"{prompt}|{fields.get('seed')}", form=kind)
        wanted = str(fields.get("response_format") or self.flavour.asset)
        if wanted == "url" and not self.flavour.urls:
            return self._error(422, "Only 'b64_json' is supported.", None)
        entry: dict[str, Any]
        if wanted == "url":
            path = f"/generated-images/{len(self.pictures)}.png"
            self.pictures[path] = data
            entry = {"url": self.url + path}
        else:
            entry = {"b64_json": base64.b64encode(data).decode()}
        quality = str(fields.get("quality") or "auto")
        value: dict[str, Any] = {"created": 1_780_000_000, "data": [entry]}
        if self.flavour.usage:
            text = 10 + len(prompt) // 4
            tokens = round(_TOKENS.get(quality, 1056) * width * height / (1024 * 1024))
            value |= {
                "background": "opaque",
                "output_format": kind,
                "quality": "medium" if quality == "auto" else quality,
                "size": f"{width}x{height}",
                "usage": {
                    "input_tokens": text + image_tokens,
                    "input_tokens_details": {"text_tokens": text, "image_tokens": image_tokens},
                    "output_tokens": tokens,
                    "output_tokens_details": {"image_tokens": tokens, "text_tokens": 0},
                    "total_tokens": text + image_tokens + tokens,
                },
            }
        reply = as_json(value)
        named = {"x-request-id": f"req_{len(self.requests)}", "openai-processing-ms": "812"}
        return replace(reply, headers=reply.headers | named | dict(self.flavour.headers))

    def _error(self, status: int, message: str, code: Any, param: str | None = None) -> Reply:
        match self.flavour.errors:
            case "detail" if status == 422:
                entry = {"type": "value_error", "loc": ["body", param], "msg": message}
                return as_json({"detail": [entry]}, status)
            case "detail":
                return as_json({"detail": message}, status)
            case "localai":
                return as_json({"error": {"code": status, "message": message, "type": ""}}, status)
        return as_json(error(status, message, code, param=param), status)


def _size_fits(width: int, height: int) -> bool:
    """Whether gpt-image-2 and later draw this size."""
    ratio = width / height
    return (
        width % 16 == height % 16 == 0
        and 1 / 3 <= ratio <= 3
        and max(width, height) <= 3840
        and min(width, height) <= 2160
    )


def bad_base64(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"b64_json": entry["b64_json"][:-8] + "§§§§"}


def cut_base64(entry: dict[str, Any]) -> dict[str, Any]:
    """Half of the text: base64 that decodes to half a picture."""
    return entry | {"b64_json": entry["b64_json"][: len(entry["b64_json"]) // 8 * 4]}


def text_as_picture(entry: dict[str, Any]) -> dict[str, Any]:
    page = json.dumps({"message": "come back later"}).encode()
    return entry | {"b64_json": base64.b64encode(page).decode()}
