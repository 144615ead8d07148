"""An HTTP answer of an image model and what can be read from it: shapes and parsing, no judgement.

What an answer means is worked out in :mod:`tasks.providers.meanings`.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tasks.providers.sniff import parse_json
from tasks.records import Billed, CostSource, FailureClass, PinCheck, Usage, microusd

#: ``finish_reason`` of a 429 that waiting minutes does not mend: a used-up or missing quota.
QUOTA = "quota"
#: ``finish_reason`` of a fault that the provider itself says is not worth another attempt.
NO_RETRY = "no_retry"

#: ``error.type`` or ``error.code`` of a refusal. The status does not tell: providers refuse with
#: 400, 403 and 422, which they use for other mistakes as well.
REFUSAL_TYPES = frozenset(
    {"content_policy", "content_policy_violation", "content_moderation", "moderation_blocked"}
)
QUOTA_TYPES = frozenset({"insufficient_quota", "quota_exceeded", "billing_hard_limit_reached"})

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
#: Most bytes of a picture that comes as base64.
MOST_PICTURE = 64 * 1024 * 1024
_MOST_JSON = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer as it came; ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    #: Why the body is not whole, when it is not.
    broken: tuple[FailureClass, str] | None = None
    #: Seconds that the attempt has taken until this answer was whole.
    seconds: float = 0.0
    #: When it came, for dates in headers.
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx and the body whole."""
        return 200 <= self.status < 300 and self.broken is None

    def json(self) -> object | None:
        """Return the parsed body, ``None`` when it is no JSON; parsed anew at each call."""
        return parse_json(self.body, _MOST_JSON)


@dataclass(frozen=True, slots=True)
class Asset:
    """Where a finished picture lies."""

    url: str
    #: It lies at the adapter's own base address and needs the key there; else no key is sent.
    own: bool = False
    #: Media type that the provider stated beside the address.
    declared_mime: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer says beside its picture, in the provider's own untrusted words."""

    model_reported: str | None = None
    seed_used: int | None = None
    #: The seed as it was asked for, where the protocol takes no seed as large as ours.
    seed_asked: int | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    request_id: str | None = None
    #: A cost in dollars that the provider states for this request, as text.
    cost_usd: str | None = None
    #: Whether it was billed, where the protocol says so and it differs from the usual rule.
    billed: Billed | None = None


NO_FACTS = Facts()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer means."""

    failure: FailureClass | None
    #: In the provider's words, uncut and untrusted: redact, then :func:`clean`.
    message: str
    billed: Billed
    cost_microusd: int
    cost_source: CostSource
    #: The delivered picture; ``None`` also while it must still be fetched from ``asset``.
    image: bytes | None = field(default=None, repr=False)
    asset: Asset | None = None
    facts: Facts = NO_FACTS
    #: In the provider's words too.
    finish_reason: str | None = None
    retry_after_s: float | None = None
    declared_mime: str | None = None
    sniffed_mime: str | None = None
    pin: PinCheck | None = None

    @property
    def delivered(self) -> bool:
        """Whether there is a picture."""
        return self.image is not None


def clean(text: str, limit: int = 300) -> str:
    """Return untrusted text on one line, without control or format characters, cut to ``limit``."""
    kept = text[: limit * 4]
    # What is printable has none of them.
    if not kept.isprintable():
        kept = "".join(
            " " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c
            for c in kept
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


def error_of(body: bytes) -> tuple[frozenset[str], str]:
    """Return the types and the message of an error body; empty for a body without them.

    Knows ``{"error": {"type", "code", "message"}}``, the same without its envelope, and texts
    under ``message``, ``error`` and ``detail``.
    """
    value = parse_json(body)
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        value = value["error"]
    if not isinstance(value, dict):
        return frozenset(), body.decode("utf-8", "replace")
    types = frozenset(v for k in ("type", "code") if isinstance(v := value.get(k), str))
    for name in ("message", "error", "detail"):
        if isinstance(message := value.get(name), str):
            return types, message
    return types, ""


def declared_mime(headers: Mapping[str, str]) -> str | None:
    """Return the media type of the ``Content-Type`` header without its parameters."""
    value = headers.get("content-type")
    if value is None:
        return None
    return clean(value.split(";")[0].lower(), 100) or None
