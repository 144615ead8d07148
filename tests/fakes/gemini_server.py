"""A fake of Google's image models: Gemini ``:generateContent`` and Imagen ``:predict``.

Serves the Gemini API (``x-goog-api-key``) and Vertex (bearer token, ``/projects/``) on one port.
Made from the official SDK (google-genai 3.6.1: requests, responses, enums and errors) and from
error bodies that users of the services reported in public issues.
``tests/providers/sdks/test_google_sdk.py`` keeps it true with the SDK as the client.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
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

#: They look like real ones, so that a leak is found.
KEY = "AIzaSyD3mK9qW7xR2tV8bN4cF6gH1jL5pZ0sQ-E"
TOKEN = "ya29.a0AeXRPp5kQ8mZ3vN7wT2yB6cJ4dL9fH1gS0xR-uE_oI"

GEMINI = {
    "gemini-nano-banana-2.1": ("1K", "2K", "4K"),
    "gemini-3-pro-image": ("1K", "2K", "4K"),
    "gemini-3.1-flash-lite-image": ("1K",),
}
IMAGEN = (
    "imagen-4.0-generate-001",
    "imagen-4.0-ultra-generate-001",
    "imagen-4.0-fast-generate-001",
)

#: Tokens of a picture by its size; 1120 is what Google lists for 1K, 1120 also for 2K on Pro.
_TOKENS = {"1K": 1120, "2K": 1680, "4K": 3780}
_SIDES = {"1K": 1024, "2K": 2048, "4K": 4096}
_RATIOS = {
    "1:1": (1, 1), "2:3": (848 / 1024, 1264 / 1024), "3:2": (1264 / 1024, 848 / 1024),
    "3:4": (896 / 1024, 1200 / 1024), "4:3": (1200 / 1024, 896 / 1024),
    "4:5": (928 / 1024, 1152 / 1024), "5:4": (1152 / 1024, 928 / 1024),
    "9:16": (768 / 1024, 1376 / 1024), "16:9": (1376 / 1024, 768 / 1024),
    "21:9": (1584 / 1024, 672 / 1024),
}  # fmt: skip
#: Imagen knows fewer shapes, and other pixels for them.
_IMAGEN_SIDES = {
    "1:1": (1024, 1024),
    "3:4": (896, 1280),
    "4:3": (1280, 896),
    "9:16": (768, 1408),
    "16:9": (1408, 768),
}

_TOP = {
    "contents", "generationConfig", "safetySettings", "systemInstruction", "tools", "toolConfig",
    "cachedContent", "labels", "serviceTier", "store",
}  # fmt: skip
_CONFIG = {
    "responseModalities", "imageConfig", "seed", "candidateCount", "temperature", "topP", "topK",
    "maxOutputTokens", "stopSequences", "thinkingConfig", "mediaResolution", "responseMimeType",
}  # fmt: skip
_PREDICT = {
    "sampleCount", "aspectRatio", "sampleImageSize", "personGeneration", "safetySetting",
    "includeRaiReason", "includeSafetyAttributes", "outputOptions", "language", "guidanceScale",
}  # fmt: skip
_PREDICT_VERTEX = _PREDICT | {
    "seed", "addWatermark", "negativePrompt", "enhancePrompt", "storageUri",
}  # fmt: skip

INFO = "type.googleapis.com/google.rpc.ErrorInfo"
RETRY = "type.googleapis.com/google.rpc.RetryInfo"
QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"


def error(status: int, code: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    """Return an error body of Google's."""
    value: dict[str, Any] = {"code": status, "message": message, "status": code}
    if details:
        value["details"] = list(details)
    return {"error": value}


def _says(status: int, code: str, message: str, *details: dict[str, Any]) -> Bend:
    return says(status, error(status, code, message, *details))


def info(reason: str, **metadata: str) -> dict[str, Any]:
    return {"@type": INFO, "reason": reason, "domain": "googleapis.com", "metadata": metadata}


def quota(quota_id: str, value: str | None = None) -> dict[str, Any]:
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/generate_content_paid_tier_requests",
        "quotaId": quota_id,
        "quotaDimensions": {"location": "global", "model": "gemini-nano-banana-2.1"},
    }
    return {
        "@type": QUOTA,
        "violations": [violation | ({"quotaValue": value} if value is not None else {})],
    }


_EXCEEDED = (
    "You exceeded your current quota, please check your plan and billing details. For more "
    "information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. "
)
_METRIC = "generativelanguage.googleapis.com/generate_content_free_tier_requests"

#: Every way in which Google refuses or fails with an error status, by name.
FAILURES: dict[str, Bend] = {
    "bad_key": _says(
        400,
        "INVALID_ARGUMENT",
        "API key not valid. Please pass a valid API key.",
        info("API_KEY_INVALID", service="generativelanguage.googleapis.com"),
    ),
    "location": _says(
        400, "FAILED_PRECONDITION", "User location is not supported for the API use."
    ),
    "bad_argument": _says(400, "INVALID_ARGUMENT", "Request contains an invalid argument."),
    "token_expired": _says(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token.",
        info("ACCESS_TOKEN_EXPIRED", service="aiplatform.googleapis.com"),
    ),
    "forbidden": _says(
        403, "PERMISSION_DENIED", "The caller does not have permission", info("BILLING_DISABLED")
    ),
    "retired": _says(
        404,
        "NOT_FOUND",
        "models/gemini-nano-banana-2.1 is not found for API version v1beta, or is not supported "
        "for generateContent. Call ListModels to see the list of available models.",
    ),
    "minute": _says(
        429,
        "RESOURCE_EXHAUSTED",
        _EXCEEDED + f"\n* Quota exceeded for metric: {_METRIC}, limit: 10\n"
        "Please retry in 17.837906927s.",
        quota("GenerateRequestsPerMinutePerProjectPerModel", "10"),
        {"@type": RETRY, "retryDelay": "17.837906927s"},
    ),
    # A quota of the day carries a RetryInfo of seconds as well, which is not true.
    "daily": _says(
        429,
        "RESOURCE_EXHAUSTED",
        _EXCEEDED + f"\n* Quota exceeded for metric: {_METRIC}, limit: 250\nPlease retry in 22.1s.",
        quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250"),
        {"@type": RETRY, "retryDelay": "22s"},
    ),
    "limit_zero": _says(
        429,
        "RESOURCE_EXHAUSTED",
        _EXCEEDED + f"\n* Quota exceeded for metric: {_METRIC}, limit: 0, model: "
        "gemini-nano-banana-2.1\nPlease retry in 856.559356ms.",
        quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"),
        {"@type": RETRY, "retryDelay": "0.856559356s"},
    ),
    "capacity": _says(
        429,
        "RESOURCE_EXHAUSTED",
        "No capacity available for model gemini-nano-banana-2.1 on the server",
        info("MODEL_CAPACITY_EXHAUSTED", model="gemini-nano-banana-2.1"),
    ),
    "plain_429": _says(
        429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."
    ),
    "in_a_list": says(
        429,
        [
            error(
                429,
                "RESOURCE_EXHAUSTED",
                "Resource exhausted. Please try again later.",
                {"@type": RETRY, "retryDelay": "5s"},
            )
        ],
    ),
    "cancelled": _says(499, "CANCELLED", "The operation was cancelled."),
    "internal": _says(500, "INTERNAL", "An internal error has occurred. Please retry."),
    "overloaded": _says(
        503,
        "UNAVAILABLE",
        "The model is overloaded. Please try again later.",
        {"@type": RETRY, "retryDelay": "40s"},
    ),
    "deadline": _says(
        504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."
    ),
}

#: Refusals of Imagen with an error status.
IMAGEN_FAILURES: dict[str, Bend] = {
    "refused": _says(
        400,
        "INVALID_ARGUMENT",
        "Image generation failed with the following error: The prompt could not be submitted. "
        "Your current safety filter threshold prohibited one or more words in this prompt. If you "
        "think this was an error, send feedback. Support codes: 61493863",
    ),
    "refused_output": _says(
        400,
        "INVALID_ARGUMENT",
        "Image generation failed with the following error: The response is blocked, as it may "
        "violate our policies. If you believe this is an error, please send feedback to your "
        "account team. Error Code: 58061214",
    ),
    "retired": _says(
        404,
        "NOT_FOUND",
        "models/imagen-4.0-generate-001 is not found for API version v1beta, or is not supported "
        "for predict. Call ListModels to see the list of available models.",
    ),
}


def with_candidate(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Bend:
    """Change the one candidate of the true answer."""

    def changed(value: Any) -> Any:
        return value | {"candidates": [change(value["candidates"][0])]}

    return with_json(changed)


def finished(reason: str, message: str | None = None) -> Bend:
    """End without a picture, for this reason; with ``content`` left out, as Google does."""

    def changed(candidate: dict[str, Any]) -> dict[str, Any]:
        more = {} if message is None else {"finishMessage": message}
        return {"finishReason": reason, "index": candidate["index"]} | more

    return with_candidate(changed)


def blocked(reason: str) -> Bend:
    """Block the prompt: no candidates, and tokens of the prompt alone."""

    def changed(value: Any) -> Any:
        usage = {"promptTokenCount": 9, "totalTokenCount": 9}
        kept = {k: v for k, v in value.items() if k != "candidates"}
        return kept | {"promptFeedback": {"blockReason": reason}, "usageMetadata": usage}

    return with_json(changed)


def filtered(_reply: Reply) -> Reply:
    """Answer of Imagen under 200: an entry that holds only why it is filtered."""
    return as_json(
        {
            "predictions": [
                {
                    "raiFilteredReason": "Unable to show generated images. All images were "
                    "filtered out because they violated usage guidelines. Support codes: 56562880"
                }
            ]
        }
    )


def nothing(_reply: Reply) -> Reply:
    """Answer of Imagen under 200 when every picture was filtered and no reason was asked for."""
    return as_json({})


def inline(data: bytes, mime: str = "image/png", **more: Any) -> dict[str, Any]:
    """Return a part that holds a picture."""
    return {"inlineData": {"mimeType": mime, "data": base64.b64encode(data).decode()}} | more


def parts(*values: dict[str, Any]) -> Bend:
    """Put these parts in place of the true ones."""
    return with_candidate(lambda c: c | {"content": {"parts": list(values), "role": "model"}})


class GeminiServer(HttpFake):
    """The image models of the Gemini API and of Vertex.

    Args:
        latency_s: Seconds before each answer.
        fixed: Bytes of every picture; by default one is drawn for prompt, size and seed.
        imagen: Whether Imagen is still served; it was shut down on 2026-08-17.
    """

    def __init__(
        self, *, latency_s: float = 0.0, fixed: bytes | None = None, imagen: bool = True
    ) -> None:
        super().__init__(latency_s=latency_s)
        self.fixed = fixed
        self.models = list(GEMINI) + (list(IMAGEN) if imagen else [])
        self._made: dict[tuple[str, bytes], Reply] = {}
        #: What answers in silence under another name: Google re-routes so (2026-10-08).
        self.rerouted: dict[str, str] = {}

    def answer(self, request: Request) -> Reply:
        """Return what the service answers when nothing is wrong with it."""
        match = re.fullmatch(
            r"/(v1|v1beta|v1beta1)/(?P<where>projects/[^/]+/locations/[^/]+/)?"
            r"(?P<hub>publishers/google/)?models(/(?P<model>[^:/]+)(:(?P<method>\w+))?)?",
            request.path,
        )
        if match is None:
            return as_json(error(404, "NOT_FOUND", "Requested entity was not found."), 404)
        vertex = match["hub"] is not None
        if reply := self._unauthorised(request, vertex):
            return reply
        name, method = match["model"], match["method"]
        if request.method == "GET":
            return self._list(name, vertex)
        if name not in self.models:
            return self._no_model(name, method)
        if self.fixed is None:
            return self._post(request, name, method, vertex)
        # For benchmarks: encoding a megabyte takes longer than serving it.
        made = self._made.get((request.path, request.body))
        made = made or self._post(request, name, method, vertex)
        self._made[request.path, request.body] = made
        return made

    def _post(self, request: Request, name: str, method: str | None, vertex: bool) -> Reply:
        try:
            body = request.json
        except ValueError:
            return _invalid("Invalid JSON payload received.")
        if method == "generateContent" and name in GEMINI:
            return self._generate(name, _camel(body))
        if method == "predict" and name in IMAGEN:
            return self._predict(_camel(body), _PREDICT_VERTEX if vertex else _PREDICT)
        return self._no_model(name, method)

    def _unauthorised(self, request: Request, vertex: bool) -> Reply | None:
        headers = request.headers
        if vertex:
            if headers.get("authorization") == f"Bearer {TOKEN}":
                return None
            return FAILURES["token_expired"](Reply())
        key = headers.get("x-goog-api-key", request.query.get("key"))
        if key is None:
            return as_json(
                error(
                    403,
                    "PERMISSION_DENIED",
                    "Method doesn't allow unregistered callers (callers without established "
                    "identity).",
                ),
                403,
            )
        return None if key == KEY else FAILURES["bad_key"](Reply())

    def _list(self, name: str | None, vertex: bool) -> Reply:
        if name is not None and name not in self.models:
            return self._no_model(name, "get")
        entries = [_entry(each, vertex) for each in self.models if name in (None, each)]
        if name is not None:
            return as_json(entries[0])
        return as_json({"publisherModels" if vertex else "models": entries})

    def _no_model(self, name: str | None, method: str | None) -> Reply:
        return as_json(
            error(
                404,
                "NOT_FOUND",
                f"models/{name} is not found for API version v1beta, or is not supported for "
                f"{method}. Call ListModels to see the list of available models.",
            ),
            404,
        )

    def _generate(self, name: str, body: dict[str, Any]) -> Reply:
        config = body.get("generationConfig", {})
        for known, fields, place in ((_TOP, body, "root"), (_CONFIG, config, "generation_config")):
            for field in fields:
                if field not in known:
                    return _unknown(field, place)
        texts, images = [], 0
        for part in body["contents"][-1]["parts"]:
            if "text" in part:
                texts.append(part["text"])
            elif decoded(_unpacked(part["inlineData"]["data"])) is None:
                return _invalid(
                    "Unable to process input image. Please retry or report in "
                    "https://developers.generativeai.google/guide/troubleshooting"
                )
            else:
                images += 1
        image = config.get("imageConfig", {})
        size, ratio = image.get("imageSize", "1K"), image.get("aspectRatio", "1:1")
        if size not in GEMINI[name]:
            return _invalid(f"Image size {size} is not supported for this model.")
        if ratio not in _RATIOS:
            return _invalid("aspect_ratio must be one of " + ", ".join(_RATIOS))
        if "IMAGE" not in config.get("responseModalities", ["TEXT", "IMAGE"]):
            return as_json(self._answer(name, [{"text": "Here you are."}], " ".join(texts), 0, 0))
        width, height = (round(_SIDES[size] * side) for side in _RATIOS[ratio])
        data = self.fixed or picture(width, height, f"{' '.join(texts)}|{config.get('seed')}")
        pieces: list[dict[str, Any]] = [inline(data)]
        if "TEXT" in config.get("responseModalities", ["TEXT", "IMAGE"]):
            pieces.insert(0, {"text": "Here is your picture: "})
        return as_json(self._answer(name, pieces, " ".join(texts), images, _TOKENS[size]))

    def _answer(
        self, name: str, pieces: list[dict[str, Any]], prompt: str, images: int, tokens: int
    ) -> dict[str, Any]:
        text = 1 + len(prompt) // 4
        prompt_details = [{"modality": "TEXT", "tokenCount": text}]
        if images:
            prompt_details.append({"modality": "IMAGE", "tokenCount": 258 * images})
        return {
            "candidates": [
                {
                    "content": {"parts": pieces, "role": "model"},
                    "finishReason": "STOP",
                    "index": 0,
                }
            ],
            "usageMetadata": {
                "promptTokenCount": text + 258 * images,
                # Text beside the picture is in the sum and has no entry of its own.
                "candidatesTokenCount": tokens + 40,
                "thoughtsTokenCount": 100,
                "totalTokenCount": text + 258 * images + tokens + 140,
                "promptTokensDetails": prompt_details,
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": tokens}],
            },
            "modelVersion": self.rerouted.get(name, name),
            "responseId": f"resp-{len(self.requests)}",
        }

    def _predict(self, body: dict[str, Any], known: set[str]) -> Reply:
        parameters = body.get("parameters", {})
        for field in parameters:
            if field not in known:
                return _invalid(f"Unknown parameter {field}.")
        if "seed" in parameters and parameters.get("addWatermark") is not False:
            return _invalid("Seed is not supported when watermark is enabled.")
        (instance,) = body["instances"]
        sides = _IMAGEN_SIDES.get(parameters.get("aspectRatio", "1:1"))
        if sides is None:
            return _invalid("aspectRatio must be one of " + ", ".join(_IMAGEN_SIDES))
        factor = {"1K": 1, "2K": 2}.get(parameters.get("sampleImageSize", "1K"))
        if factor is None:
            return _invalid("sampleImageSize must be one of 1K, 2K")
        width, height = (side * factor for side in sides)
        prompt = instance["prompt"]
        predictions = [
            {
                "mimeType": "image/png",
                "bytesBase64Encoded": base64.b64encode(
                    self.fixed
                    or picture(width, height, f"{prompt}|{parameters.get('seed')}|{number}")
                ).decode(),
            }
            for number in range(parameters.get("sampleCount", 1))
        ]
        return as_json({"predictions": predictions})


def _unpacked(text: str) -> bytes:
    """Return the bytes of base64: Google takes both alphabets, its SDK sends the URL-safe one."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/"))


def _entry(name: str, vertex: bool) -> dict[str, Any]:
    """Return a model as the list of models shows it."""
    if vertex:
        return {
            "name": f"publishers/google/models/{name}",
            "versionId": "001" if name.endswith("-001") else "default",
            "launchStage": "GA",
        }
    return {
        "name": f"models/{name}",
        "version": "001" if name.endswith("-001") else "2.1" if "2.1" in name else "3.0",
        "displayName": name,
        "inputTokenLimit": 65_536,
        "outputTokenLimit": 32_768,
        "supportedGenerationMethods": ["predict"] if name in IMAGEN else ["generateContent"],
    }


def _invalid(message: str) -> Reply:
    return as_json(error(400, "INVALID_ARGUMENT", message), 400)


def _unknown(field: str, place: str) -> Reply:
    return _invalid(
        f"Invalid JSON payload received. Unknown name \"{field}\" at '{place}': Cannot find field."
    )


def _camel(value: Any) -> Any:
    """Return JSON with the names of its fields in camel case: Google takes both spellings."""
    if isinstance(value, dict):
        return {re.sub(r"_([a-z])", lambda m: m[1].upper(), k): _camel(v) for k, v in value.items()}
    return [_camel(each) for each in value] if isinstance(value, list) else value
