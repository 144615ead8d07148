"""Preflight: what must be right before a cent is spent.

Pure rules; who asks the providers and reads the keys is elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from typing import Protocol

from tasks.errors import PreflightError, known
from tasks.mix.catalog import Licence, Model
from tasks.mix.manifest import Mix, ResolvedMix

#: A reported price counts as higher than the catalog's from here on, in dollars.
_CENT_FRACTION = 1e-9


class Served(Protocol):
    """What a provider says that it serves under a name."""

    @property
    def version(self) -> str | None:
        """Version that it serves now, ``None`` when it cannot tell before it answers."""
        ...

    @property
    def safety(self) -> str | None:
        """``on``, ``off``, or ``None`` when it does not say."""
        ...

    @property
    def price_usd(self) -> float | None:
        """Price of one image in dollars, ``None`` when it does not say."""
        ...

    @property
    def retires(self) -> str | None:
        """ISO date of its retirement, ``None`` when it does not say or has none."""
        ...


def preflight(
    mixes: Iterable[ResolvedMix],
    *,
    served: Mapping[str, Served],
    has_key: Callable[[str], bool],
    today: date,
    frozen_until: date,
    safety_needed: bool = True,
) -> list[str]:
    """Return one sentence a problem, in the order of the mixes; empty when all is well.

    Args:
        mixes: The mixes that the run would pay for.
        served: What providers say they serve, by model name. A model that is missing here is a
            problem: nobody knows what would answer.
        has_key: Tells whether the environment variable of this name is set.
        today: The present day, UTC.
        frozen_until: Last day of the freeze; a model must outlive it.
        safety_needed: Whether every model must run with its safety setting on.
    """
    problems: dict[str, None] = {}  # an ordered set: both arms may share a model
    for mix in mixes:
        for model in mix.models:
            for problem in _model_problems(
                model,
                mix=mix.mix,
                served=served.get(model.name),
                offered=served,
                has_key=has_key,
                today=today,
                frozen_until=frozen_until,
                safety_needed=safety_needed,
            ):
                problems[f"model {model.name!r}: {problem}"] = None
        if safety_needed:
            problems |= dict.fromkeys(_stage_problems(mix))
    return list(problems)


def check_preflight(
    mixes: Iterable[ResolvedMix],
    *,
    served: Mapping[str, Served],
    has_key: Callable[[str], bool],
    today: date,
    frozen_until: date,
    safety_needed: bool = True,
) -> None:
    """Pass when :func:`preflight` finds nothing.

    Raises:
        PreflightError: With every problem, so that one look is enough to mend them all.
    """
    problems = preflight(
        mixes,
        served=served,
        has_key=has_key,
        today=today,
        frozen_until=frozen_until,
        safety_needed=safety_needed,
    )
    if problems:
        raise PreflightError(problems)


def _model_problems(
    model: Model,
    *,
    mix: Mix,
    served: Served | None,
    offered: Iterable[str],
    has_key: Callable[[str], bool],
    today: date,
    frozen_until: date,
    safety_needed: bool,
) -> Iterator[str]:
    if model.licence is None:
        yield "the catalog knows no licence for it; add 'licence' with id and uses"
    else:
        yield from _licence_problems(model.licence, mix, today, frozen_until)
    if model.price is None:
        yield "the catalog knows no price for it; add 'price' with usd, source and date"
    if safety_needed and model.safety == "off":
        yield "its safety setting is off in the catalog; set safety: on or take another model"
    keyless = model.key_env is not None and not has_key(model.key_env)
    if keyless:
        yield f"its key is missing: set the environment variable {model.key_env}"
    if model.retires is not None:
        yield from _retirement(model, model.retires, "by the catalog", today, frozen_until)
    if served is None and keyless:
        pass  # Nobody was asked.
    elif served is None:
        yield f"its endpoint {model.endpoint} does not serve it {known(offered)}"
    else:
        yield from _served_problems(model, served, today, frozen_until, safety_needed)


def _licence_problems(licence: Licence, mix: Mix, today: date, frozen_until: date) -> Iterator[str]:
    if mix.use not in licence.uses:
        yield (
            f"its licence {licence.id!r} does not allow {mix.use!r} use "
            f"(allowed: {', '.join(licence.uses) or 'none'})"
        )
    if licence.expires is not None:
        if licence.expires < today:
            yield f"its licence {licence.id!r} ended on {licence.expires}"
        elif licence.expires <= frozen_until:
            yield (
                f"its licence {licence.id!r} ends on {licence.expires}, within the freeze until "
                f"{frozen_until}"
            )
    held = ", ".join(licence.regions)
    if licence.regions and not mix.regions:
        yield (
            f"its licence {licence.id!r} holds only in {held}, and mix {mix.name!r} does not say "
            "where it is used; add 'regions' to the mix"
        )
    elif outside := licence.uncovered(mix.regions):
        yield (
            f"its licence {licence.id!r} does not hold in {', '.join(outside)}, where mix "
            f"{mix.name!r} is used (it holds in: {held})"
        )


def _served_problems(
    model: Model, served: Served, today: date, frozen_until: date, safety_needed: bool
) -> Iterator[str]:
    # An alias may move; what it moved to stands in the record of every attempt.
    pinned = model.pin not in ("alias", "none")
    if pinned and served.version is not None and served.version != model.version:
        yield (
            f"its provider serves version {served.version!r}, the catalog pins {model.version!r}; "
            "judge the new version as a new mix, or have the pinned one served again"
        )
    if safety_needed and served.safety not in (None, "on"):
        yield f"its provider reports the safety setting {served.safety!r}, it must be 'on'"
    # Only the price of an image can be compared with what a provider asks for one.
    listed = model.price if model.price is not None and model.price.per == "image" else None
    if served.price_usd is not None and listed is not None:
        # Asked this way round, NaN is a problem too: what cannot be compared is not known.
        covered = served.price_usd <= listed.usd + _CENT_FRACTION
        if not covered:
            yield (
                f"its provider charges ${served.price_usd:g} an image, the catalog reckons with "
                f"${listed.usd:g}; the budget could not be kept: mend the catalog's price"
            )
    if served.retires is not None:
        try:
            day = date.fromisoformat(served.retires[:10])
        except ValueError:
            yield f"its provider reports the retirement date {served.retires!r}, not an ISO date"
        else:
            yield from _retirement(model, day, "by its provider", today, frozen_until)


def _retirement(
    model: Model, day: date, source: str, today: date, frozen_until: date
) -> Iterator[str]:
    advice = f"; its successor is {model.successor!r}" if model.successor else ""
    if day <= today:
        yield f"it retired on {day} {source}{advice}"
    elif day <= frozen_until:
        yield f"it retires on {day} {source}, within the freeze until {frozen_until}{advice}"


def _stage_problems(mix: ResolvedMix) -> Iterator[str]:
    for subtask, route in mix.mix.routes.items():
        for alternative in route:
            for position, stage in enumerate(alternative.stages, start=1):
                if stage.safety == "off":
                    yield (
                        f"mix {mix.mix.name!r}: stage {position} of {subtask!r} "
                        f"(model {stage.model!r}) has its safety setting off; set safety: on"
                    )
