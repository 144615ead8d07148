"""What an HTTP answer of an image model means: pure classification, shared by the adapters.

Every answer gets exactly one meaning: a delivered picture or a class of failure, with what it
cost. Whether the bytes of a delivered picture decode is not asked here: the checks judge that.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tasks.mix.catalog import Model
from tasks.providers.sniff import parse_json, sniff_mime
from tasks.records import Billed, CostSource, FailureClass, microusd

#: ``finish_reason`` of a 429 that waiting minutes does not mend: a used-up or missing quota.
QUOTA = "quota"

#: ``error.type`` or ``error.code`` of a refusal. The status does not tell: providers refuse with
#: 400, 403 and 422, which they use for other mistakes as well.
REFUSAL_TYPES = frozenset(
    {"content_policy", "content_policy_violation", "content_moderation", "moderation_blocked"}
)
_QUOTA_TYPES = frozenset({"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached"})

#: Response headers worth keeping; all others may hold secrets or noise.
KEPT_HEADERS = frozenset(
    {
        "content-length",
        "content-type",
        "date",
        "retry-after",
        "server",
        "x-cost-usd",
        "x-finish-reason",
        "x-model-version",
        "x-request-id",
        "x-seed",
    }
)

#: A reported price beyond this, in dollars for one picture, is a mistake and not a price.
MOST_COST_USD = 1_000.0
#: Longest Retry-After that is kept, in seconds; the field is free for the provider to fill.
MOST_RETRY_AFTER_S = 10_000_000.0


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    #: Why the body is not whole, when it is not.
    broken: tuple[FailureClass, str] | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer means. The body is a delivered picture exactly when ``delivered``."""

    failure: FailureClass | None
    #: In the provider's words, uncut and untrusted: redact, then :func:`clean`.
    message: str
    billed: Billed
    cost_microusd: int
    cost_source: CostSource
    delivered: bool = False
    #: In the provider's words too.
    finish_reason: str | None = None
    retry_after_s: float | None = None
    sniffed_mime: str | None = None


def clean(text: str, limit: int = 300) -> str:
    """Return untrusted text on one line, without control or format characters, cut to ``limit``."""
    kept = "".join(
        " " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c
        for c in text[: limit * 4]
    )
    line = " ".join(kept.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds to wait that a ``Retry-After`` header asks for.

    Args:
        value: The header: seconds, or an HTTP date.
        now: The present moment with its time zone.

    Returns:
        Seconds, never negative; ``None`` when the header is missing or makes no sense.
    """
    if value is None:
        return None
    text = value.strip()[:100]
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
            # A date without a zone is UTC by the HTTP standard.
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - now).total_seconds()
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        return min(max(seconds, 0.0), MOST_RETRY_AFTER_S)
    if math.isnan(seconds) or seconds < 0:
        return None
    return min(seconds, MOST_RETRY_AFTER_S)


def parse_cost(value: str | None) -> int | None:
    """Return a reported cost in micro-dollars, or ``None`` when none is reported.

    Raises:
        ValueError: The value is no number, not finite, negative or absurdly high.
    """
    if value is None:
        return None
    try:
        dollars = float(value.strip()[:100])
    except ValueError:
        raise ValueError(f"reported cost {clean(value, 40)!r} is not a number") from None
    if not math.isfinite(dollars) or not 0 <= dollars <= MOST_COST_USD:
        raise ValueError(
            f"reported cost {clean(value, 40)!r} is not between $0 and ${MOST_COST_USD:,.0f}"
        )
    return microusd(dollars)


def list_price(model: Model) -> int:
    """Return the catalog's price of one request in micro-dollars, 0 without a price."""
    return model.price.microusd if model.price is not None else 0


def error_of(body: bytes) -> tuple[frozenset[str], str]:
    """Return the types and the message of an error body; empty for a body without them."""
    value = parse_json(body)
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if not isinstance(value, dict):
        return frozenset(), body.decode("utf-8", "replace")
    types = frozenset(v for k in ("type", "code") if isinstance(v := value.get(k), str))
    for field in ("message", "error", "detail"):
        if isinstance(message := value.get(field), str):
            return types, message
    return types, ""


def interpret(answer: Answer, model: Model, seed: int, now: datetime) -> Meaning:
    """Return what an answer to one request for one picture means.

    Args:
        answer: The answer, untrusted in every part.
        model: The model asked, with its pin and list price.
        seed: The seed asked for.
        now: The present moment, for a ``Retry-After`` date.
    """
    if 200 <= answer.status < 300:
        return _success(answer, model, seed)
    return _error(answer, model, now)


def _price(answer: Answer, model: Model, billed: Billed) -> tuple[Billed, int, CostSource, str]:
    """Return billed, cost, its source and what is wrong with the reported cost, if anything."""
    listed = 0 if billed == "no" else list_price(model)
    try:
        reported = parse_cost(answer.headers.get("x-cost-usd"))
    except ValueError as error:
        # Nonsense about money: count the list price rather than trust or drop it.
        return "unknown", list_price(model), "list", str(error)
    if reported is None:
        return billed, listed, "list", ""
    return ("yes" if reported > 0 else "no"), reported, "reported", ""


def _success(answer: Answer, model: Model, seed: int) -> Meaning:
    """Return the meaning of a 2xx answer."""
    sniffed = sniff_mime(answer.body) if answer.body else None
    failure, message = _success_failure(answer, model, seed, sniffed)
    # A provider charges for what it answers with 200; half an answer may or may not be charged.
    billed, cost, source, doubt = _price(answer, model, "unknown" if answer.broken else "yes")
    delivered = failure is None
    if delivered and doubt:
        failure, message = FailureClass.COST_UNKNOWN, doubt
    return Meaning(
        failure=failure,
        message=message,
        billed=billed,
        cost_microusd=cost,
        cost_source=source,
        delivered=delivered,
        finish_reason=answer.headers.get("x-finish-reason"),
        sniffed_mime=sniffed,
    )


def _success_failure(
    answer: Answer, model: Model, seed: int, sniffed: str | None
) -> tuple[FailureClass | None, str]:
    """Return what is wrong with a 2xx answer; (``None``, "") for a delivered picture."""
    drift = _drift(answer, model, seed)
    if answer.broken is not None:
        return answer.broken
    if drift:
        return FailureClass.DRIFT, drift
    if answer.headers.get("x-finish-reason", "").strip().upper() == "CONTENT_FILTERED":
        return FailureClass.REFUSAL, "the provider filtered the picture (CONTENT_FILTERED)"
    if not answer.body:
        return FailureClass.EMPTY, f"HTTP {answer.status} without a body"
    return _body_failure(answer, sniffed)


def _body_failure(answer: Answer, sniffed: str | None) -> tuple[FailureClass | None, str]:
    """Return why a whole, wanted body is no picture; (``None``, "") when it is one."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    declared = declared_mime(answer.headers) or ""
    why = ""
    if encoding not in ("", "identity"):
        why = f"content-encoding {encoding!r}, though only 'identity' was accepted"
    elif answer.status != 200:
        why = f"HTTP {answer.status} instead of 200 with a picture"
    elif sniffed in ("text/html", "text/xml", "application/json"):
        types, said = error_of(answer.body)
        if types & REFUSAL_TYPES:
            return FailureClass.REFUSAL, said
        why = f"{sniffed} under HTTP 200 instead of a picture"
    elif sniffed is None and not declared.startswith("image/"):
        why = f"no picture: declared {declared or 'nothing'!r} and unknown by its first bytes"
    return (FailureClass.MALFORMED, why) if why else (None, "")


def _drift(answer: Answer, model: Model, seed: int) -> str:
    """Return how the answer departs from what was pinned and asked, "" when it does not."""
    version = answer.headers.get("x-model-version")
    if version is not None and version.strip() != model.version:
        return f"model {model.name!r} is pinned to {model.version!r}, reported {version!r}"
    used = answer.headers.get("x-seed")
    if used is not None and used.strip() != str(seed):
        return f"seed {seed} was asked for, {used!r} was used"
    return ""


def _error(answer: Answer, model: Model, now: datetime) -> Meaning:
    """Return the meaning of an answer that is not 2xx."""
    types, said = error_of(answer.body)
    status = answer.status
    finish: str | None = None
    wait: float | None = None
    if status == 429:
        failure = FailureClass.THROTTLED
        wait = parse_retry_after(answer.headers.get("retry-after"), now)
        if types & _QUOTA_TYPES or "limit: 0" in said.lower():
            finish = QUOTA
    elif status in (408, 409, 425) or 500 <= status < 600:
        failure = FailureClass.SERVER
        wait = parse_retry_after(answer.headers.get("retry-after"), now)
    elif types & REFUSAL_TYPES:
        failure, finish = FailureClass.REFUSAL, "content_policy"
    elif status in (401, 402, 403, 407):
        failure = FailureClass.AUTH
    elif status in (404, 410):
        failure = FailureClass.RETIRED
    elif 300 <= status < 400:
        failure = FailureClass.BAD_REQUEST
        said = "the address redirects; redirects are never followed: put the final address into "
        said += "the catalog"
    elif 400 <= status < 500:
        failure = FailureClass.BAD_REQUEST
    else:
        failure = FailureClass.MALFORMED
    billed, cost, source, _ = _price(answer, model, "no")
    return Meaning(
        failure=failure,
        message=f"HTTP {status}: {said}" if said.strip() else f"HTTP {status}",
        billed=billed,
        cost_microusd=cost,
        cost_source=source,
        finish_reason=finish,
        retry_after_s=wait,
    )


def declared_mime(headers: Mapping[str, str]) -> str | None:
    """Return the media type of the ``Content-Type`` header without its parameters."""
    value = headers.get("content-type")
    if value is None:
        return None
    return clean(value.split(";")[0].lower(), 100) or None
