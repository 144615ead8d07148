"""What an HTTP answer of an image model means: pure classification, shared by the adapters.

Every answer gets exactly one meaning: a delivered picture or a class of failure, with what it
cost. An adapter reads its protocol's fields into :class:`tasks.providers.answers.Facts` and ends
with one of these functions, so that all adapters bill alike. Whether the bytes of a delivered
picture decode is not asked here: the checks judge that.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic_core import CoreConfig, SchemaValidator, ValidationError, core_schema

from tasks.mix.catalog import Model
from tasks.providers.answers import (
    MOST_PICTURE,
    NO_FACTS,
    QUOTA,
    QUOTA_TYPES,
    REFUSAL_TYPES,
    Answer,
    Asset,
    Facts,
    Meaning,
    declared_mime,
    error_of,
    parse_cost,
    parse_retry_after,
)
from tasks.providers.base import GenerationRequest
from tasks.providers.cost import cost_of, worst_case
from tasks.providers.sniff import picture_size, sniff_mime
from tasks.records import Billed, CostSource, FailureClass, PinCheck

_BASE64 = SchemaValidator(core_schema.bytes_schema(), config=CoreConfig(val_json_bytes="base64"))
#: Letters of the URL-safe alphabet, which the decoder takes too.
_NOT_STANDARD = ("-", "_")


def pin_check(model: Model, reported: str | None) -> PinCheck:
    """Return what a reported version says about a model's pin."""
    if model.pin == "none":
        return "unpinned"
    if reported is None:
        return "unsaid"
    if reported.strip() == model.version:
        return "held"
    return "moved" if model.pin == "alias" else "broken"


def departure(request: GenerationRequest, facts: Facts) -> str:
    """Return how an answer departs from what was pinned and asked, "" when it does not."""
    model = request.model
    if pin_check(model, facts.model_reported) == "broken":
        return (
            f"model {model.name!r} is pinned to {model.version!r}, reported "
            f"{facts.model_reported!r}"
        )
    asked = request.seed if facts.seed_asked is None else facts.seed_asked
    if facts.seed_used is not None and facts.seed_used != asked:
        return f"seed {asked} was asked for, {str(facts.seed_used)!r} was used"
    return ""


def picture(
    answer: Answer,
    request: GenerationRequest,
    image: bytes | Asset,
    facts: Facts = NO_FACTS,
    *,
    declared: str | None = None,
    is_body: bool = False,
) -> Meaning:
    """Return the meaning of an answer that brings a picture: delivered, or why it is none.

    Args:
        answer: The answer, untrusted in every part.
        request: What was asked.
        image: The bytes, or where they lie; then they are fetched before anything is recorded.
        facts: What the answer says beside the picture.
        declared: Media type that the answer states for the bytes.
        is_body: The bytes are the body of the answer: its status and headers speak of them.
    """
    if answer.broken is not None:
        return broken(answer, request, facts)
    if wrong := departure(request, facts):
        return drift(answer, request, wrong, facts)
    if isinstance(image, Asset):
        if not isinstance(image.url, str) or not image.url:
            return empty(answer, request, "the answer names no address of a picture", facts)
        meaning = _meaning(None, "", answer, request, facts, "yes")
        return replace(meaning, asset=image, declared_mime=image.declared_mime)
    if not image:
        return empty(answer, request, f"HTTP {answer.status} without a body", facts)
    sniffed = sniff_mime(image)
    stated = declared_mime(answer.headers) if is_body else declared
    failure, why = _no_picture(answer if is_body else None, image, sniffed, stated)
    if failure is FailureClass.REFUSAL:
        meaning = refusal(answer, request, why, facts)
    elif failure is not None:
        meaning = malformed(answer, request, why, facts)
    else:
        meaning = _meaning(None, "", answer, request, facts, "yes", image)
        meaning = replace(meaning, image=image)
    return replace(meaning, sniffed_mime=sniffed, declared_mime=stated)


def picture_base64(
    answer: Answer,
    request: GenerationRequest,
    text: object,
    facts: Facts = NO_FACTS,
    *,
    declared: str | None = None,
    most: int = MOST_PICTURE,
) -> Meaning:
    """Return the meaning of an answer whose picture is base64 in its JSON; see :func:`picture`.

    A ``data:`` prefix is taken off. Anything but base64 in the strict sense is malformed.
    """
    if not isinstance(text, str) or not text:
        return empty(answer, request, "the answer has no picture where it belongs", facts)
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        declared = declared or head.removeprefix("data:").split(";")[0] or None
    if len(text) // 4 * 3 > most:
        return malformed(answer, request, f"the picture has more than {most:,} bytes", facts)
    try:
        data = decode_base64(text)
    except ValueError as error:
        return malformed(answer, request, f"the picture is not base64: {error}", facts)
    return picture(answer, request, data, facts, declared=declared)


def decode_base64(text: str) -> bytes:
    """Return the bytes of base64 in the strict sense: standard letters, padded, nothing else.

    Four times as fast as :func:`base64.b64decode`, which holds up all other requests meanwhile.

    Raises:
        ValueError: With what is wrong.
    """
    if len(text) % 4:
        raise ValueError(f"its length {len(text):,} is no multiple of 4")
    for letter in _NOT_STANDARD:
        if letter in text:
            raise ValueError(f"it holds the letter {letter!r}")
    try:
        # Its stub leaves out that a text alone is one of the inputs.
        decoded: bytes = _BASE64.validate_strings(text)  # type: ignore[arg-type]
    except (ValidationError, UnicodeError):
        raise ValueError("it holds other letters, or ends in the middle") from None
    return decoded


def fetched(meaning: Meaning, answer: Answer, request: GenerationRequest, asset: Answer) -> Meaning:
    """Return the meaning of an answer after the picture that it pointed to was fetched whole."""
    found = picture(
        replace(asset, seconds=asset.seconds or answer.seconds),
        request,
        asset.body,
        meaning.facts,
        is_body=True,
    )
    return replace(found, declared_mime=found.declared_mime or meaning.declared_mime)


def refusal(
    answer: Answer, request: GenerationRequest, message: str, facts: Facts = NO_FACTS
) -> Meaning:
    """Return that the provider will not make or show this picture; billed unless it is an error."""
    billed: Billed = "yes" if _success(answer) else "no"
    finish = facts.finish_reason or "content_policy"
    return _meaning(FailureClass.REFUSAL, message, answer, request, facts, billed, finish=finish)


def throttled(
    answer: Answer,
    request: GenerationRequest,
    message: str,
    facts: Facts = NO_FACTS,
    *,
    wait_s: float | None = None,
    quota: bool = False,
) -> Meaning:
    """Return that the provider wants fewer requests; not billed.

    Args:
        answer: Its ``Retry-After`` counts unless ``wait_s`` is given.
        request: What was asked.
        message: The provider's words.
        facts: What else the answer says.
        wait_s: Seconds to wait, where the protocol says so elsewhere.
        quota: Waiting does not help: a day's or an account's limit.
    """
    return _meaning(
        FailureClass.THROTTLED,
        message,
        answer,
        request,
        facts,
        "no",
        finish=QUOTA if quota else None,
        wait_s=wait_s if wait_s is not None else _retry_after(answer),
    )


def server(
    answer: Answer,
    request: GenerationRequest,
    message: str,
    facts: Facts = NO_FACTS,
    *,
    wait_s: float | None = None,
) -> Meaning:
    """Return that the provider broke; an error is not billed, a job that fails may be."""
    billed: Billed = "unknown" if _success(answer) else "no"
    wait = wait_s if wait_s is not None else _retry_after(answer)
    return _meaning(FailureClass.SERVER, message, answer, request, facts, billed, wait_s=wait)


def empty(
    answer: Answer, request: GenerationRequest, message: str, facts: Facts = NO_FACTS
) -> Meaning:
    """Return that a success brought no picture; billed."""
    return _meaning(FailureClass.EMPTY, message, answer, request, facts, "yes")


def malformed(
    answer: Answer, request: GenerationRequest, message: str, facts: Facts = NO_FACTS
) -> Meaning:
    """Return that a success cannot be understood; billed."""
    billed: Billed = "yes" if _success(answer) else "no"
    return _meaning(FailureClass.MALFORMED, message, answer, request, facts, billed)


def drift(
    answer: Answer, request: GenerationRequest, message: str, facts: Facts = NO_FACTS
) -> Meaning:
    """Return that something else answered than was pinned or asked; billed."""
    return _meaning(FailureClass.DRIFT, message, answer, request, facts, "yes")


def asset_url(
    answer: Answer, request: GenerationRequest, message: str, facts: Facts = NO_FACTS
) -> Meaning:
    """Return that the picture was made and cannot be fetched; billed."""
    return _meaning(FailureClass.ASSET_URL, message, answer, request, facts, "yes")


def failed(
    failure: FailureClass,
    answer: Answer,
    request: GenerationRequest,
    message: str,
    facts: Facts = NO_FACTS,
) -> Meaning:
    """Return another class of failure, not billed unless the facts say so: auth, bad request."""
    return _meaning(failure, message, answer, request, facts, "no")


def broken(answer: Answer, request: GenerationRequest, facts: Facts = NO_FACTS) -> Meaning:
    """Return the meaning of an answer whose body is not whole; it may have been billed."""
    failure, why = answer.broken or (FailureClass.TRANSPORT, "the body is not whole")
    billed: Billed = "unknown" if _success(answer) else "no"
    return _meaning(failure, why, answer, request, facts, billed)


def http_error(
    answer: Answer,
    request: GenerationRequest,
    facts: Facts = NO_FACTS,
    *,
    types: frozenset[str] | None = None,
    message: str | None = None,
    wait_s: float | None = None,
    quota: bool | None = None,
) -> Meaning:
    """Return what an answer that is not 2xx means by its status and the usual error bodies.

    Args:
        answer: The answer.
        request: What was asked.
        facts: What else the answer says.
        types: Types and codes of the error; found by :func:`error_of` when not given.
        message: The provider's words; found by :func:`error_of` when not given.
        wait_s: Seconds to wait, where the protocol says so elsewhere than in ``Retry-After``.
        quota: Whether a 429 is of a quota that waiting does not refill; found when not given.
    """
    found_types, found = error_of(answer.body)
    types = found_types if types is None else types
    said = found if message is None else message
    status = answer.status
    text = f"HTTP {status}: {said}" if said.strip() else f"HTTP {status}"
    if status == 429:
        if quota is None:
            quota = bool(types & QUOTA_TYPES) or "limit: 0" in said.lower()
        return throttled(answer, request, text, facts, wait_s=wait_s, quota=quota)
    if status in (408, 409, 425) or 500 <= status < 600:
        return server(answer, request, text, facts, wait_s=wait_s)
    if types & REFUSAL_TYPES:
        return refusal(answer, request, text, facts)
    if 300 <= status < 400:
        text = (
            f"HTTP {status}: the address redirects; redirects are never followed: put the final "
            "address into the catalog"
        )
    return failed(class_of_status(status), answer, request, text, facts)


def class_of_status(status: int) -> FailureClass:
    """Return the class of a status that no body, pause or repetition explains."""
    if status in (401, 402, 403, 407):
        return FailureClass.AUTH
    if status in (404, 410):
        return FailureClass.RETIRED
    return FailureClass.BAD_REQUEST if 300 <= status < 500 else FailureClass.MALFORMED


def _no_picture(
    carrier: Answer | None, data: bytes, sniffed: str | None, declared: str | None
) -> tuple[FailureClass | None, str]:
    """Return why whole, wanted bytes are no picture; (``None``, "") when they are one."""
    stated = declared or ""
    why = ""
    encoding = ""
    if carrier is not None:
        encoding = carrier.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        why = f"content-encoding {encoding!r}, though only 'identity' was accepted"
    elif carrier is not None and carrier.status != 200:
        why = f"HTTP {carrier.status} instead of 200 with a picture"
    elif sniffed in ("text/html", "text/xml", "application/json"):
        types, said = error_of(data)
        if types & REFUSAL_TYPES:
            return FailureClass.REFUSAL, said
        why = f"{sniffed} under HTTP 200 instead of a picture"
    elif sniffed is None and not stated.startswith("image/"):
        why = f"no picture: declared {stated or 'nothing'!r} and unknown by its first bytes"
    return (FailureClass.MALFORMED, why) if why else (None, "")


def _success(answer: Answer) -> bool:
    """Return whether the status says that the request was done, whole or not."""
    return 200 <= answer.status < 300


def _retry_after(answer: Answer) -> float | None:
    return parse_retry_after(answer.headers.get("retry-after"), answer.at)


def _meaning(
    failure: FailureClass | None,
    message: str,
    answer: Answer,
    request: GenerationRequest,
    facts: Facts,
    billed: Billed,
    image: bytes | None = None,
    *,
    finish: str | None = None,
    wait_s: float | None = None,
) -> Meaning:
    """Return a meaning with its cost."""
    size = picture_size(image) if image is not None else None
    billed, cost, source, doubt = charge(
        request, facts, facts.billed or billed, size or (request.width, request.height), answer
    )
    if failure is None and doubt:
        failure, message = FailureClass.COST_UNKNOWN, doubt
    reported = facts.model_reported
    return Meaning(
        failure=failure,
        message=message,
        billed=billed,
        cost_microusd=cost,
        cost_source=source,
        facts=facts,
        finish_reason=finish or facts.finish_reason,
        retry_after_s=wait_s,
        # An error says nothing about the pin unless it names a version.
        pin=pin_check(request.model, reported) if _success(answer) or reported else None,
    )


def charge(
    request: GenerationRequest,
    facts: Facts,
    billed: Billed,
    size: tuple[int, int],
    answer: Answer | None,
) -> tuple[Billed, int, CostSource, str]:
    """Return billed, cost in micro-dollars, its source, and what is in doubt about it, if anything.

    A cost that the provider states counts. Nonsense and what cannot be worked out count as the
    worst price and as unknown, rather than be trusted or dropped.
    """
    price = request.model.price
    worst = worst_case(request.model, request.prompt, *size) or 0
    try:
        reported = parse_cost(facts.cost_usd)
    except ValueError as error:
        return "unknown", worst, "list", str(error)
    if reported is not None:
        return ("yes" if reported > 0 else "no"), reported, "reported", ""
    if billed == "no":
        return "no", 0, "list", ""
    if billed == "unknown" or price is None:
        return billed, worst, "list", ""
    known = cost_of(price, facts.usage, *size, answer.seconds if answer is not None else 0.0)
    if known is None:
        doubt = f"the provider did not say how many tokens it used; the price is per {price.per}"
        return "unknown", worst, "list", doubt
    return ("yes" if known[0] > 0 else "no"), known[0], known[1], ""
