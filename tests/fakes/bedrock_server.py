"""Amazon Bedrock with Stability's models, as botocore's service description gives it.

The signature of every request is recomputed here from Amazon's description of Signature Version 4
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html), with
nothing of botocore: a client whose signature is wrong is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

from tests.fakes.aggregator_http import FakeServer, Reply, Seen, as_json, picture

ACCESS = "AKIAIMAGEGATETEST000"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYBEDROCKTESTKEY"
TOKEN = "FwoGZXIvYXdzEBYaDFakeSessionToken=="
REGION = "us-west-2"
MODEL = "stability.sd3-5-large-v1:0"
#: Upscalers are served through a profile of several regions only: the name says which.
UPSCALER = "us.stability.stable-conservative-upscale-v1:0"
FAST_UPSCALER = "us.stability.stable-fast-upscale-v1:0"
_SERVED = (MODEL, UPSCALER, FAST_UPSCALER)
#: Error code, status: the exceptions of InvokeModel in botocore's service description.
STATUSES = {
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ThrottlingException": 429,
    "ModelTimeoutException": 408,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
    "ValidationException": 400,
    "ServiceQuotaExceededException": 400,
    "ModelNotReadyException": 429,
    "ModelErrorException": 424,
    # These come from the front door, before Bedrock.
    "InvalidSignatureException": 403,
    "UnrecognizedClientException": 403,
    "ExpiredTokenException": 403,
    "MissingAuthenticationTokenException": 403,
}


@dataclass
class Script:
    """How invocations go."""

    finish: str | None = None
    seed: int | None = None
    #: The ``images`` of the answer; ``None`` for the fake's own picture.
    images: list[Any] | None = None
    lifecycle: dict[str, Any] = field(default_factory=lambda: {"status": "ACTIVE"})


class BedrockServer(FakeServer):
    """Serves InvokeModel and GetFoundationModel, for signed requests only."""

    def __init__(self, script: Script | None = None) -> None:
        super().__init__()
        self.script = script or Script()
        self.picture = picture()
        #: Whether requests must carry the session token of temporary credentials.
        self.temporary = False

    def answer(self, seen: Seen) -> Reply:
        refused = self._check(seen)
        if refused is not None:
            return refused
        found = re.fullmatch(r"/model/([^/]+)/invoke", seen.path)
        if found and seen.method == "POST":
            return self.faults.get("submit") or self._invoke(unquote(found[1]), seen)
        found = re.fullmatch(r"/foundation-models/([^/]+)", seen.path)
        if found and seen.method == "GET":
            return self.faults.get("model") or self._describe(unquote(found[1]))
        return failure("ResourceNotFoundException", "no such operation")

    def _invoke(self, model: str, seen: Seen) -> Reply:
        if f"us.{model}" in _SERVED:
            return failure(
                "ValidationException",
                f"Invocation of model ID {model} with on-demand throughput isn't supported. Retry "
                "your request with the ID or ARN of an inference profile that contains this model.",
            )
        if model not in _SERVED:
            return failure("ValidationException", "The provided model identifier is invalid.")
        if seen.headers.get("content-type") != "application/json":
            return failure("ValidationException", "Content-Type must be application/json")
        given = seen.json()
        needed = {MODEL: ("prompt",), UPSCALER: ("prompt", "image"), FAST_UPSCALER: ("image",)}
        for name in needed[model]:
            if not given.get(name):
                return failure(
                    "ValidationException",
                    f"Malformed input request: #: required key [{name}] not found",
                )
        if model == FAST_UPSCALER and set(given) - {"image", "output_format"}:
            return failure(
                "ValidationException", "Malformed input request: #: extraneous key is not permitted"
            )
        if self.script.finish is not None:
            return as_json({"finish_reasons": [self.script.finish]}, x_amzn_RequestId="req-1")
        images = (
            [base64.b64encode(self.picture).decode()]
            if self.script.images is None
            else self.script.images
        )
        seed = given.get("seed", 1) if self.script.seed is None else self.script.seed
        return as_json(
            {"seeds": [seed], "finish_reasons": [None], "images": images},
            x_amzn_RequestId="req-1",
        )

    def _describe(self, model: str) -> Reply:
        if model not in [name.removeprefix("us.") for name in _SERVED]:
            return failure("ResourceNotFoundException", "The foundation model was not found.")
        return as_json(
            {
                "modelDetails": {
                    "modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/{model}",
                    "modelId": model,
                    "modelName": "Stable Diffusion 3.5 Large",
                    "providerName": "Stability AI",
                    "inputModalities": ["TEXT", "IMAGE"],
                    "outputModalities": ["IMAGE"],
                    "responseStreamingSupported": False,
                    "customizationsSupported": [],
                    "inferenceTypesSupported": ["ON_DEMAND"],
                    "modelLifecycle": self.script.lifecycle,
                }
            }
        )

    def _check(self, seen: Seen) -> Reply | None:
        """Return the refusal of a request whose signature does not hold, ``None`` when it does."""
        header = seen.headers.get("authorization", "")
        parts = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
            r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})",
            header,
        )
        if parts is None:
            return failure("MissingAuthenticationTokenException", "Missing Authentication Token")
        access, day, region, service, signed, signature = parts.groups()
        stamp = seen.headers.get("x-amz-date", "")
        if access != ACCESS:
            return failure(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )
        if self.temporary and seen.headers.get("x-amz-security-token") != TOKEN:
            return failure(
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            )
        sent = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        late = abs(datetime.now(UTC) - sent) > timedelta(minutes=5)
        names = signed.split(";")
        wanted = {"host", "x-amz-date"} | (
            {"x-amz-security-token"} if "x-amz-security-token" in seen.headers else set()
        )
        right = sign(seen, names, stamp, day, region, service)
        if (
            late
            or (region, service) != (REGION, "bedrock")
            or not stamp.startswith(day)
            or not wanted <= set(names)
            or not hmac.compare_digest(right, signature)
        ):
            return failure(
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
            )
        return None


def sign(seen: Seen, names: list[str], stamp: str, day: str, region: str, service: str) -> str:
    """Return the signature that belongs to a request."""
    # Every service but S3 signs the path encoded once more than it stands on the request line.
    path = "/".join(quote(part, safe="-_.~") for part in seen.path.split("/"))
    query = "&".join(sorted(seen.query.split("&"))) if seen.query else ""
    heads = "".join(f"{name}:{' '.join(seen.headers[name].split())}\n" for name in names)
    body = hashlib.sha256(seen.body).hexdigest()
    canonical = "\n".join((seen.method, path, query, heads, ";".join(names), body))
    scope = f"{day}/{region}/{service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashed))
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def failure(code: str, message: str, **headers: str) -> Reply:
    """An error as the REST-JSON protocol sends it: the code in a header."""
    return as_json(
        {"message": message},
        STATUSES[code],
        x_amzn_ErrorType=f"{code}:http://internal.amazon.com/coral/com.amazon.bedrock/",
        x_amzn_RequestId="req-1",
        **headers,
    )
