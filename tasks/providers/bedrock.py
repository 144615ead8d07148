"""Amazon Bedrock with Stability's models: one signed ``InvokeModel`` a picture.

Requests are signed by Signature Version 4 through botocore, which is asked for nothing else; it is
the extra ``bedrock`` and imported when a request is signed. The key is
``ACCESS_KEY_ID:SECRET_ACCESS_KEY``, with ``:SESSION_TOKEN`` behind it for temporary credentials.
Filtered pictures come as a success whose ``finish_reasons`` says so. Upscalers and edits are
reached through a profile of several regions, whose id begins with ``us.``.

Sources: botocore's service descriptions of ``bedrock-runtime`` and ``bedrock`` (1.43), and
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-stability-diffusion.html and
…/stable-image-services.html.
"""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from tasks.errors import ConfigError, GateError, known
from tasks.mix.catalog import Model
from tasks.providers.answers import REFUSAL_TYPES, Answer, Facts, Meaning, error_of
from tasks.providers.assets import is_loopback
from tasks.providers.base import CannotAsk, Capabilities, GenerationRequest, Job, ServedModel
from tasks.providers.http import HttpAdapter
from tasks.providers.meanings import (
    broken,
    departure,
    drift,
    empty,
    failed,
    http_error,
    malformed,
    picture_base64,
    refusal,
    server,
    throttled,
)
from tasks.providers.message import Message
from tasks.providers.params import Number, Rule, Text, chosen
from tasks.providers.sniff import picture_size
from tasks.providers.usage import amount, seed_of
from tasks.records import FailureClass, Operation

SERVICE = "bedrock"
ASPECTS = ((21, 9), (16, 9), (3, 2), (5, 4), (1, 1), (4, 5), (2, 3), (9, 16), (9, 21))
#: Seeds run from 0 to this; 0 asks for a random one.
MOST_SEED = 4_294_967_294
#: How much an edit may change its picture where the mix does not say: 0 nothing, 1 everything.
STRENGTH = 0.6
#: The region of an address on this machine, where its name tells none.
LOOPBACK_REGION = "us-west-2"
_MEGAPIXEL = 1024 * 1024
_HOST = re.compile(r"\bbedrock(?:-runtime)?(?:-fips)?\.([a-z]{2}(?:-[a-z]+)+-\d)\.")
#: Profiles of several regions.
_PROFILE = re.compile(r"(us|eu|apac|global)\.")

_FORMAT = Text(choices=("png", "jpeg", "webp"))
_NEGATIVE: Mapping[str, Rule] = {"negative_prompt": Text(), "output_format": _FORMAT}


@dataclass(frozen=True, slots=True)
class Family:
    """What models whose id begins alike are told."""

    operations: tuple[Operation, ...]
    rules: Mapping[str, Rule]
    #: Whether they know ``mode``, so that one of them generates and edits.
    mode: bool = False
    prompt: bool = True
    mask: bool = False


_EDIT: Mapping[str, Rule] = {**_NEGATIVE, "strength": Number(0, 1)}
#: By the beginning of the id without publisher and profile.
FAMILIES: Mapping[str, Family] = {
    "sd3-5-large": Family(("generate", "edit"), _EDIT, mode=True),
    "stable-image-ultra": Family(("generate", "edit"), _EDIT),
    "stable-image-core": Family(("generate",), _NEGATIVE),
    "stable-image-inpaint": Family(("edit",), _NEGATIVE, mask=True),
    "stable-conservative-upscale": Family(
        ("upscale",), {**_NEGATIVE, "creativity": Number(0.1, 0.5)}
    ),
    "stable-creative-upscale": Family(("upscale",), {**_NEGATIVE, "creativity": Number(0.1, 0.5)}),
    "stable-fast-upscale": Family(("upscale",), {"output_format": _FORMAT}, prompt=False),
}

_AUTH = frozenset(
    {
        "AccessDeniedException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
_BROKE = frozenset(
    {
        "InternalServerException",
        "ModelErrorException",
        "ModelTimeoutException",
        "ServiceUnavailableException",
    }
)
#: Words of a ``ValidationException`` about a model that is there no more.
_GONE = re.compile(r"end of its life|model identifier is invalid|legacy", re.IGNORECASE)
_FILTERED = re.compile(r"content (filter|polic)|guardrail|moderat|flagged|blocked", re.IGNORECASE)


class BedrockProvider(HttpAdapter):
    """Adapter of Stability's models on Amazon Bedrock.

    Args:
        base_url: ``https://bedrock-runtime.<region>.amazonaws.com``.
        key: The credentials, see above.

    Raises:
        ConfigError: Address or credentials cannot be used, or botocore is not installed.
    """

    kept_headers = frozenset({"x-amzn-requestid", "x-amzn-errortype"})

    def __init__(self, base_url: str, key: SecretStr | None, **more: Any) -> None:
        parts = _credentials(base_url, key)
        # Set before the base asks for the secrets.
        self._access, self._secret, self._token = parts
        super().__init__(base_url, key, **more)
        self._region = _region(self.base_url)
        if importlib.util.find_spec("botocore") is None:
            raise ConfigError(
                f"endpoint {self.base_url}: requests to Bedrock are signed by botocore, which is "
                "not installed; install imagegate with the extra 'bedrock'"
            )

    def secrets(self) -> tuple[str, ...]:
        """Return the values that may stand in no text."""
        return tuple(s for s in (self._key, self._access, self._secret, self._token) if s)

    def authorize(self, method: str, url: str, body: bytes) -> dict[str, str]:
        """Return the headers that sign a request."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        held = Credentials(self._access, self._secret, self._token or None)
        signed = AWSRequest(method=method, url=url, data=body)
        SigV4Auth(held, SERVICE, self._region).add_auth(signed)
        return dict(signed.headers.items())

    def capabilities(self, model: Model) -> Capabilities:
        """Return what can be asked of a model; about a megapixel, chosen by its aspect ratio."""
        family = family_of(model)
        if family is None:
            return Capabilities(operations=())
        return Capabilities(
            operations=family.operations,
            aspects=ASPECTS,
            multiple_of=64,
            least_side=640,
            most_side=1536,
            most_pixels=_MEGAPIXEL,
            seed=family.prompt,
            mask=family.mask,
            most_upload=20 * 1024 * 1024,
            most_prompt=10_000,
            pin="dated",
        )

    def asked_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Return the size of the picture that comes: it follows from the aspect ratio alone."""
        source = picture_size(request.image or b"") or (request.width, request.height)
        if request.operation == "upscale":
            fast = "fast-upscale" in request.model.model_id
            scale = 4.0 if fast else (4 * _MEGAPIXEL / (source[0] * source[1])) ** 0.5
            return round(source[0] * scale), round(source[1] * scale)
        if request.operation == "edit" or family_of(request.model) is None:
            ratio = source[0] / source[1]
        else:
            aspect = self.capabilities(request.model).aspect_for(request.width, request.height)
            wide, high = map(int, aspect.split(":"))
            ratio = wide / high
        sides = ((_MEGAPIXEL * r) ** 0.5 for r in (ratio, 1 / ratio))
        across, down = (max(64, round(side / 64) * 64) for side in sides)
        return across, down

    def message(self, request: GenerationRequest) -> Message:
        """Return the invocation.

        Raises:
            CannotAsk: Bedrock has no such model of Stability, or the model cannot do this.
        """
        model, family = request.model, family_of(request.model)
        if family is None or request.operation not in family.operations:
            can = FAMILIES if family is None else family.operations
            raise CannotAsk(
                f"model {model.name!r}: Bedrock's {model.model_id!r} cannot "
                f"{request.operation!r} {known(can)}"
            )
        path = f"/model/{quote(model.model_id, safe='')}/invoke"
        return Message("POST", path, json=self._fields(request, family))

    def _fields(self, request: GenerationRequest, family: Family) -> dict[str, Any]:
        fields: dict[str, Any] = {"output_format": "png"}
        if family.prompt:
            fields |= {"prompt": request.prompt, "seed": seed_for(request.seed)}
        if request.operation == "generate":
            can = self.capabilities(request.model)
            fields["aspect_ratio"] = can.aspect_for(request.width, request.height)
        else:
            fields["image"] = _base64(request, request.image, "picture")
        if family.mode:
            fields["mode"] = (
                "text-to-image" if request.operation == "generate" else "image-to-image"
            )
        if request.operation == "edit" and "strength" in family.rules:
            fields["strength"] = STRENGTH
        if family.mask:
            fields["mask"] = _base64(request, request.mask, "mask")
        elif request.mask is not None:
            raise CannotAsk(
                f"model {request.model.name!r}: {request.model.model_id!r} takes no mask; one that "
                "does is stable-image-inpaint"
            )
        # One catalog entry serves both; text to image has no strength.
        aside = frozenset({"strength"}) if request.operation == "generate" else frozenset[str]()
        rules = {name: rule for name, rule in family.rules.items() if name not in aside}
        return fields | chosen(request, rules, aside)

    def read(self, answer: Answer, request: GenerationRequest) -> Meaning | Job:
        """Return what the answer to an invocation means."""
        if not 200 <= answer.status < 300:
            return _refused(answer, request)
        if answer.broken is not None:
            return broken(answer, request, _told(answer))
        value = answer.json()
        if not isinstance(value, dict):
            why = "expected JSON with images and finish_reasons, got something else"
            return malformed(answer, request, why, _told(answer))
        return _invoked(answer, request, value)

    async def served(
        self, client: httpx.AsyncClient, models: Sequence[Model] = ()
    ) -> dict[str, ServedModel]:
        """Return which models the region has, and when they retire.

        Raises:
            GateError: Bedrock's control plane does not answer, or refuses the credentials.
        """
        plane = self._control_plane()
        if not models:
            await plane.ask(client, "/foundation-models")
            return {}
        found: dict[str, ServedModel] = {}
        for model in models:
            number = _PROFILE.sub("", model.model_id, count=1)
            path = f"/foundation-models/{quote(number, safe='')}"
            value = await plane.ask(client, path, missing_ok=True)
            if value is None:
                continue
            details = value.get("modelDetails") if isinstance(value, dict) else None
            if not isinstance(details, dict) or not isinstance(details.get("modelId"), str):
                raise GateError(f"{plane.base_url}{path}: expected JSON with modelDetails.modelId")
            life = details.get("modelLifecycle")
            ends = life.get("endOfLifeTime") if isinstance(life, dict) else None
            found[model.name] = ServedModel(model.name, details["modelId"], retires=_day(ends))
        return found

    def _control_plane(self) -> BedrockProvider:
        """Return the adapter for the API that lists models: another host, the same signature."""
        url = self.base_url.replace("bedrock-runtime", "bedrock", 1)
        parts = ":".join(p for p in (self._access, self._secret, self._token) if p)
        return BedrockProvider(url, SecretStr(parts), clock=self._clock)


def family_of(model: Model) -> Family | None:
    """Return what a model is told, ``None`` for one that is not known."""
    name = _PROFILE.sub("", model.model_id, count=1).removeprefix("stability.")
    found = [f for start, f in FAMILIES.items() if name == start or name.startswith(f"{start}-v")]
    return found[0] if found else None


def seed_for(seed: int) -> int:
    """Return the seed to ask for: the same where Stability takes it, never 0 (a random one)."""
    return seed if 1 <= seed <= MOST_SEED else (seed - 1) % MOST_SEED + 1


def _credentials(base_url: str, key: SecretStr | None) -> tuple[str, str, str]:
    """Return access key, secret and session token.

    Raises:
        ConfigError: The key is not of this form; it is not repeated.
    """
    text = key.get_secret_value().strip() if key is not None else ""
    # A secret holds letters, digits, "/" and "+"; a token "=" as well; none of them ":".
    parts = text.split(":")
    if not 2 <= len(parts) <= 3 or not all(part.strip() for part in parts):
        raise ConfigError(
            f"the key for {base_url} must read ACCESS_KEY_ID:SECRET_ACCESS_KEY, with "
            f":SESSION_TOKEN behind it for temporary credentials; it has {len(parts)} part(s)"
        )
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _region(base_url: str) -> str:
    """Return the region that an address names.

    Raises:
        ConfigError: It names none.
    """
    url = httpx.URL(base_url)
    if found := _HOST.search(url.host):
        return found[1]
    if is_loopback(url):
        return LOOPBACK_REGION
    raise ConfigError(
        f"endpoint {base_url}: names no region to sign for (needed: "
        "https://bedrock-runtime.<region>.amazonaws.com)"
    )


def _base64(request: GenerationRequest, data: bytes | None, what: str) -> str:
    """Return a picture as base64.

    Raises:
        CannotAsk: There is none.
    """
    if not data:
        raise CannotAsk(f"model {request.model.name!r}: {request.operation} without a {what}")
    return base64.b64encode(data).decode("ascii")


def _told(answer: Answer) -> Facts:
    return Facts(request_id=answer.headers.get("x-amzn-requestid"))


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None


def _invoked(answer: Answer, request: GenerationRequest, value: dict[str, Any]) -> Meaning:
    """Return what a successful invocation means by its finish reason."""
    reasons, reason = value.get("finish_reasons"), _first(value.get("finish_reasons"))
    used = seed_of(_first(value.get("seeds")))
    # The fast upscaler takes no seed, and tells one all the same.
    takes = "fast-upscale" not in request.model.model_id
    facts = Facts(
        request_id=answer.headers.get("x-amzn-requestid"),
        finish_reason=reason if isinstance(reason, str) else None,
        seed_used=used,
        seed_asked=seed_for(request.seed) if takes else used,
    )
    if wrong := departure(request, facts):
        return drift(answer, request, wrong, facts)
    if isinstance(reason, str):
        ended = refusal if reason.startswith("Filter reason") else server
        return ended(answer, request, f"Stability's model ended with {reason!r}", facts)
    if not isinstance(reasons, list) or not reasons or reason is not None:
        # Without the reason, a filtered picture would pass for a good one.
        return malformed(answer, request, "the answer tells no finish reasons", facts)
    if not value.get("images"):
        return empty(answer, request, "the answer holds no pictures", facts)
    return picture_base64(answer, request, _first(value["images"]), facts)


def _refused(answer: Answer, request: GenerationRequest) -> Meaning:
    """Return what an error means; its code stands in a header, before a colon."""
    code = answer.headers.get("x-amzn-errortype", "").partition(":")[0].rpartition("#")[2].strip()
    _, said = error_of(answer.body)
    facts, text = _told(answer), f"HTTP {answer.status}: {code}: {said}".replace(": : ", ": ")
    if code == "ServiceQuotaExceededException":
        return throttled(answer, request, text, facts, quota=True)
    if code in ("ThrottlingException", "ModelNotReadyException"):
        return throttled(answer, request, text, facts)
    if code in _BROKE:
        return server(answer, request, text, facts)
    failure: FailureClass | None = None
    if code == "ResourceNotFoundException" or (code != "" and _GONE.search(said)):
        failure = FailureClass.RETIRED
    elif code in _AUTH:
        failure = FailureClass.AUTH
    if failure is not None:
        return failed(failure, answer, request, text, facts)
    types = REFUSAL_TYPES if answer.status == 400 and _FILTERED.search(said) else frozenset[str]()
    return http_error(answer, request, facts, types=types, message=f"{code}: {said}".strip(": "))


def _day(moment: object) -> str | None:
    """Return the day of a time in ISO form or in seconds, ``None`` when there is none."""
    if isinstance(moment, str):
        return moment[:10]
    seconds = amount(moment) if not isinstance(moment, int | float) else float(moment)
    if seconds is None or not 0 <= seconds < 2**33:
        return None
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


ADAPTER = BedrockProvider
