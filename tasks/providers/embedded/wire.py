"""Requests as they come over the wire: read within limits, checked, typed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

MAX_BODY = 16_000_000
MAX_PROMPT = 200_000
SMALLEST, LARGEST = 64, 2048
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})\Z")
_FIELDS = frozenset({"prompt", "size", "model", "seed", "brand", "locale", "safety", "params"})
_FILES = frozenset({"image", "mask"})
_LOCALE = re.compile(r"[A-Za-z0-9_-]{1,35}\Z")


class BadRequest(Exception):  # noqa: N818 - named after the HTTP status it becomes
    """The request cannot be served as it stands; the text says why."""


class TooLarge(HTTPException):
    """The body is larger than the server takes."""

    def __init__(self) -> None:
        super().__init__(413, f"the body is larger than {MAX_BODY} bytes")


@dataclass(frozen=True, slots=True)
class Order:
    """One request in typed form."""

    prompt: str
    width: int
    height: int
    model: str
    seed: int
    brand: str | None
    locale: str
    safety: str
    params: Mapping[str, Any] = field(default_factory=dict)
    image: bytes | None = field(default=None, repr=False)
    #: White where an edit may change the image.
    mask: bytes | None = field(default=None, repr=False)


def _limited(request: Request) -> Receive:
    """Return the request's receive that refuses a body above the limit.

    The rest of a refused body is read and thrown away, up to four times the limit, so that the
    client reads the answer instead of meeting a reset connection.
    """
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY:
            while message.get("more_body") and received < 4 * MAX_BODY:
                message = await request.receive()
                received += len(message.get("body", b""))
            raise TooLarge
        return message

    return receive


async def read_order(request: Request, *, multipart: bool) -> Order:
    """Read and check a request.

    Raises:
        BadRequest: A field is missing, of a wrong type, unknown or outside its limits.
        TooLarge: The body is above the limit.
    """
    bounded = Request(request.scope, _limited(request))
    return await _from_form(bounded) if multipart else _from_json(await bounded.body())


def _from_json(body: bytes) -> Order:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be a JSON object, got {type(value).__name__}")
    return _order(value, None)


async def _from_form(request: Request) -> Order:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise BadRequest("the body must be multipart/form-data with a file 'image'")
    try:
        async with request.form(max_files=2, max_fields=16) as form:
            return await _from_fields(form)
    except TooLarge:
        raise
    except HTTPException as error:
        raise BadRequest(f"the form cannot be read: {error.detail}") from None


async def _from_fields(form: FormData) -> Order:
    value: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, part in form.multi_items():
        if name in _FILES:
            if not isinstance(part, UploadFile):
                raise BadRequest(f"field {name!r} must be a file part")
            if name in files:
                raise BadRequest(f"field {name!r} stands in the form twice")
            files[name] = await part.read()
        elif not isinstance(part, str):
            raise BadRequest(f"field {name[:40]!r} must not be a file")
        elif name in value:
            raise BadRequest(f"field {name[:40]!r} stands in the form twice")
        else:
            value[name] = part
    if "image" not in files:
        raise BadRequest("the file 'image' is missing")
    try:
        if "params" in value:
            value["params"] = json.loads(value["params"] or "{}")
        if "seed" in value:
            value["seed"] = int(value["seed"])
    except (ValueError, RecursionError):
        raise BadRequest("'params' must be a JSON object and 'seed' a whole number") from None
    value["brand"] = value.get("brand") or None
    return replace(_order(value, files["image"]), mask=files.get("mask"))


def _text(value: Mapping[str, Any], name: str, default: str) -> str:
    found = value.get(name, default)
    if not isinstance(found, str):
        raise BadRequest(f"field {name!r} must be a string, got {type(found).__name__}")
    return found


def _order(value: Mapping[str, Any], image: bytes | None) -> Order:
    unknown = sorted(set(value) - _FIELDS)
    if unknown:
        raise BadRequest(f"unknown field {unknown[0][:40]!r} (known: {', '.join(sorted(_FIELDS))})")
    for name in ("prompt", "size", "model"):
        if name not in value:
            raise BadRequest(f"field {name!r} is missing")
    prompt = _text(value, "prompt", "")
    if len(prompt) > MAX_PROMPT:
        raise BadRequest(f"the prompt has {len(prompt)} characters, at most {MAX_PROMPT} are taken")
    seed = value.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise BadRequest("field 'seed' must be a whole number from 0 to 2^63 - 1")
    brand = value.get("brand")
    if brand is not None and not isinstance(brand, str):
        raise BadRequest("field 'brand' must be a string or null")
    safety = _text(value, "safety", "on")
    if safety not in {"on", "off"}:
        raise BadRequest(f"field 'safety' must be 'on' or 'off', got {safety[:20]!r}")
    locale = _text(value, "locale", "und")
    if not _LOCALE.match(locale):
        raise BadRequest("field 'locale' must be a BCP 47 tag")
    params = value.get("params", {})
    if not isinstance(params, dict):
        raise BadRequest("field 'params' must be a JSON object")
    width, height = _size(_text(value, "size", ""))
    return Order(
        prompt=prompt,
        width=width,
        height=height,
        model=_text(value, "model", ""),
        seed=seed,
        brand=brand,
        locale=locale,
        safety=safety,
        params=params,
        image=image,
    )


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.match(text)
    if match is None:
        raise BadRequest(f"field 'size' must read WIDTHxHEIGHT, got {text[:20]!r}")
    width, height = int(match[1]), int(match[2])
    if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
        raise BadRequest(
            f"field 'size': {width}x{height} is outside {SMALLEST} to {LARGEST} pixels a side"
        )
    return width, height


def whole(params: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """Return a whole number of the parameters.

    Raises:
        BadRequest: It is none, or outside ``low`` to ``high``.
    """
    value = params.get(name, default)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value != int(value) or not low <= value <= high:
        raise BadRequest(f"params.{name} must be a whole number from {low} to {high}")
    return int(value)
