"""The models that the embedded server offers, with their prices, speed, quality and faults.

Three generations, honestly different: the first is slow, dear, softer and fails in many ways; the
second is fast, cheap and sound; the third is cheap and fails in new ways. Rates are per request
for defects (drawn once for a prompt and a seed, so that a retry meets them again) and per attempt
for transients (drawn with the retry count, so that a retry usually succeeds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from tasks.records import Operation, microusd


class Fault(StrEnum):
    """What can go wrong with one answer; the values stand in the request log."""

    # Transients: the attempt fails, another one may succeed.
    BAD_GATEWAY = "bad_gateway"
    THROTTLED = "throttled"
    TIMEOUT = "timeout"
    RESET = "reset"
    # Broken files and wrong answers under HTTP 200.
    INVALID_HEADER = "invalid_header"
    TRUNCATED = "truncated"
    HTML = "html"
    WRONG_MIME = "wrong_mime"
    WRONG_ASPECT = "wrong_aspect"
    BLANK = "blank"
    FILTERED = "filtered"
    # Bad pictures.
    LETTERS_SWAPPED = "letters_swapped"
    LETTERS_DROPPED = "letters_dropped"
    MISSING_GLYPHS = "missing_glyphs"
    COLOUR_CAST = "colour_cast"
    LOGO_MISSING = "logo_missing"
    LOGO_OUTSIDE = "logo_outside"


TRANSIENTS = frozenset({Fault.BAD_GATEWAY, Fault.THROTTLED, Fault.TIMEOUT, Fault.RESET})
#: Defects that change letters; they need a text of which two letters can be told apart.
LETTER_FAULTS = frozenset({Fault.LETTERS_SWAPPED, Fault.LETTERS_DROPPED})
#: Defects that need text to be set.
TEXT_FAULTS = LETTER_FAULTS | {Fault.MISSING_GLYPHS}
#: Defects that need a brand.
LOGO_FAULTS = frozenset({Fault.LOGO_MISSING, Fault.LOGO_OUTSIDE})


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of the embedded server."""

    name: str
    version: str
    #: List price of one billed answer, in dollars.
    price_usd: float
    operations: tuple[Operation, ...]
    #: Shortest and longest simulated time on the accelerator in seconds.
    latency_s: tuple[float, float]
    #: Standard deviation of the sensor noise, in 8-bit levels.
    grain: float = 1.0
    #: Blur of the scene behind text and logo, in pixels at 512 pixels width.
    softness: float = 0.0
    #: Probability that a request has a defect, whatever kinds apply to it.
    defect_rate: float = 0.0
    #: Kinds of defects with their relative weights; those that do not apply are left out.
    defects: Mapping[Fault, float] = field(default_factory=dict)
    #: Kinds of transient failures with their probability per attempt.
    transients: Mapping[Fault, float] = field(default_factory=dict)
    retires: str | None = None

    @property
    def price_microusd(self) -> int:
        """List price in micro-dollars."""
        return microusd(self.price_usd)


_FIRST_DEFECTS = {
    Fault.INVALID_HEADER: 0.8,
    Fault.TRUNCATED: 1.0,
    Fault.HTML: 0.7,
    Fault.WRONG_MIME: 0.7,
    Fault.WRONG_ASPECT: 1.3,
    Fault.BLANK: 1.1,
    Fault.FILTERED: 0.8,
    Fault.COLOUR_CAST: 1.4,
    Fault.LETTERS_SWAPPED: 2.2,
    Fault.LETTERS_DROPPED: 2.0,
    Fault.MISSING_GLYPHS: 1.2,
    Fault.LOGO_MISSING: 1.5,
    Fault.LOGO_OUTSIDE: 1.2,
}
_FIRST_TRANSIENTS = {
    Fault.BAD_GATEWAY: 0.022,
    Fault.THROTTLED: 0.022,
    Fault.TIMEOUT: 0.007,
    Fault.RESET: 0.011,
}
_SECOND_DEFECTS = {
    Fault.TRUNCATED: 1.0,
    Fault.WRONG_ASPECT: 0.5,
    Fault.COLOUR_CAST: 1.0,
    Fault.LETTERS_SWAPPED: 1.0,
    Fault.LETTERS_DROPPED: 1.0,
    Fault.LOGO_OUTSIDE: 0.5,
}
_SECOND_TRANSIENTS = {
    Fault.BAD_GATEWAY: 0.006,
    Fault.THROTTLED: 0.008,
    Fault.TIMEOUT: 0.001,
    Fault.RESET: 0.001,
}
_THIRD_DEFECTS = {
    Fault.MISSING_GLYPHS: 3.0,
    Fault.COLOUR_CAST: 2.0,
    Fault.FILTERED: 1.2,
    Fault.LOGO_OUTSIDE: 2.5,
    Fault.TRUNCATED: 0.8,
}
_THIRD_TRANSIENTS = {Fault.BAD_GATEWAY: 0.008, Fault.THROTTLED: 0.01, Fault.RESET: 0.002}


def _first(
    name: str, version: str, usd: float, seconds: tuple[float, float], rate: float, *more: Operation
) -> ModelSpec:
    return ModelSpec(
        name=name,
        version=version,
        price_usd=usd,
        operations=("generate", *more),
        latency_s=seconds,
        grain=2.4,
        softness=1.1,
        defect_rate=rate,
        defects=_FIRST_DEFECTS,
        transients=_FIRST_TRANSIENTS,
        retires="2027-06-30",
    )


def _second(
    name: str, version: str, usd: float, seconds: tuple[float, float], *more: Operation
) -> ModelSpec:
    return ModelSpec(
        name=name,
        version=version,
        price_usd=usd,
        operations=("generate", *more),
        latency_s=seconds,
        grain=1.0,
        defect_rate=0.004,
        defects=_SECOND_DEFECTS,
        transients=_SECOND_TRANSIENTS,
    )


def _third(
    name: str, version: str, usd: float, seconds: tuple[float, float], *more: Operation
) -> ModelSpec:
    return ModelSpec(
        name=name,
        version=version,
        price_usd=usd,
        operations=("generate", *more),
        latency_s=seconds,
        grain=1.4,
        softness=0.6,
        defect_rate=0.15,
        defects=_THIRD_DEFECTS,
        transients=_THIRD_TRANSIENTS,
    )


#: All models by name.
MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _first("folio-1", "folio-1-2025-06-12", 0.037, (0.55, 0.9), 0.145),
            _first("muse-1", "muse-1-2025-05-20", 0.039, (0.55, 0.9), 0.14),
            _first("dash-1", "dash-1-2025-07-01", 0.022, (0.3, 0.5), 0.14),
            _first("retouch-1", "retouch-1-2025-06-30", 0.041, (0.5, 0.8), 0.14, "edit"),
            _second("folio-2", "folio-2-2026-08-18", 0.0185, (0.25, 0.4)),
            _second("muse-2", "muse-2-2026-08-25", 0.020, (0.25, 0.4)),
            _second("dash-2", "dash-2-2026-09-02", 0.0095, (0.12, 0.22)),
            _second("retouch-2", "retouch-2-2026-08-30", 0.020, (0.22, 0.35), "edit"),
            _third("folio-3", "folio-3-2026-10-05", 0.017, (0.25, 0.4)),
            _third("muse-3", "muse-3-2026-10-05", 0.019, (0.25, 0.4)),
            _third("dash-3", "dash-3-2026-10-06", 0.008, (0.12, 0.22)),
            _third("retouch-3", "retouch-3-2026-10-06", 0.019, (0.22, 0.35), "edit"),
            ModelSpec(
                name="acnet-x2",
                version="acnet-x2-2026-01-15",
                price_usd=0.004,
                operations=("upscale",),
                latency_s=(0.0, 0.0),
                transients={Fault.BAD_GATEWAY: 0.003, Fault.THROTTLED: 0.004},
            ),
        )
    }
)
