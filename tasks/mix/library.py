"""What the library of models says of itself: what is missing, what ages, what ends; pure rules.

The preflight refuses a run for what is wrong with *its* models (:mod:`tasks.mix.preflight`); here
the whole catalog is read as a person does who looks after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, Protocol
from urllib.parse import urlsplit

from tasks.mix.catalog import EMBEDDED, Catalog, Model

#: A price that was looked up longer ago is to be looked up again.
PRICE_AGE = timedelta(days=90)
#: A model that ends within this time needs a successor now, freeze or not.
NOTICE = timedelta(days=90)

#: ``stop``: no run may use the model as it stands. ``mind``: somebody should look.
Weight = Literal["stop", "mind"]


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing about a catalog entry that somebody should know."""

    weight: Weight
    #: The field of the entry that it is about.
    field: str
    text: str


class Served(Protocol):
    """What a provider says of a model; the fields of ``tasks.providers.base.ServedModel``."""

    @property
    def version(self) -> str | None:
        """Version that it serves now, ``None`` when it does not say."""
        ...

    @property
    def known(self) -> bool:
        """Whether it can be asked at all."""
        ...

    @property
    def retires(self) -> str | None:
        """ISO date of its retirement, ``None`` when it does not say or has none."""
        ...

    @property
    def price_usd(self) -> float | None:
        """Dollars for one image, ``None`` when it does not say."""
        ...


def remarks(
    model: Model, *, today: date, frozen_until: date | None, has_key: Callable[[str], bool]
) -> tuple[Remark, ...]:
    """Return what is missing in an entry and what ages, the gravest first.

    Args:
        model: The entry.
        today: The present day, UTC.
        frozen_until: Last day of the freeze that holds, ``None`` without one.
        has_key: Tells whether the key of this name is set.
    """
    found = [
        *_licence(model, today, frozen_until),
        *_price(model, today),
        *_retirement(model, today, frozen_until),
        *_pin(model),
    ]
    if model.safety == "off":
        found.append(Remark("stop", "safety", "its safety setting is off"))
    if model.key_env is not None and not has_key(model.key_env):
        found.append(Remark("mind", "key_env", f"no key: {model.key_env} is not set"))
    return tuple(sorted(found, key=lambda remark: remark.weight != "stop"))


def _licence(model: Model, today: date, frozen_until: date | None) -> Iterator[Remark]:
    licence = model.licence
    if licence is None:
        yield Remark("stop", "licence", "no licence is known")
        return
    if "commercial" not in licence.uses:
        uses = ", ".join(licence.uses) or "nothing"
        yield Remark("mind", "licence.uses", f"not for commercial use (allowed: {uses})")
    if licence.regions:
        yield Remark("mind", "licence.regions", f"only in {', '.join(licence.regions)}")
    if licence.expires is not None:
        if licence.expires < today:
            yield Remark("stop", "licence.expires", f"the licence ended on {licence.expires}")
        elif frozen_until is not None and licence.expires <= frozen_until:
            text = f"the licence ends on {licence.expires}, within the freeze until {frozen_until}"
            yield Remark("stop", "licence.expires", text)
        elif licence.expires - today <= NOTICE:
            yield Remark("mind", "licence.expires", f"the licence ends on {licence.expires}")
    if licence.evidence is None and model.endpoint != EMBEDDED:
        yield Remark("mind", "licence.evidence", "no address shows the licence's text")


def _price(model: Model, today: date) -> Iterator[Remark]:
    price = model.price
    if price is None:
        yield Remark("stop", "price", "no price is known")
        return
    age = today - price.date
    if age > PRICE_AGE:
        text = f"the price is {age.days} days old (of {price.date}): look it up again"
        yield Remark("mind", "price.date", text)
    if price.date > today:
        yield Remark("mind", "price.date", f"the price is of {price.date}, a day yet to come")
    if model.endpoint != EMBEDDED and urlsplit(price.source).scheme != "https":
        yield Remark("mind", "price.source", "the price's source is no https address")


def _retirement(model: Model, today: date, frozen_until: date | None) -> Iterator[Remark]:
    day = model.retires
    if day is None:
        return
    then = f"; next: {model.successor}" if model.successor else "; no successor is named"
    if day <= today:
        yield Remark("stop", "retires", f"retired on {day}{then}")
    elif frozen_until is not None and day <= frozen_until:
        text = f"retires on {day}, within the freeze until {frozen_until}{then}"
        yield Remark("stop", "retires", text)
    elif day - today <= NOTICE:
        yield Remark("mind", "retires", f"retires on {day}, in {(day - today).days} days{then}")


def _pin(model: Model) -> Iterator[Remark]:
    if model.pin == "alias":
        text = "an alias: the provider may serve another version under it any day"
        yield Remark("mind", "pin", text)
    elif model.pin == "none":
        yield Remark("mind", "pin", "no version can be pinned")


def compared(model: Model, served: Served | None, *, today: date) -> tuple[Remark, ...]:
    """Return where a provider's answer departs from the catalog; empty when it agrees.

    Args:
        model: The entry.
        served: The answer, ``None`` when the provider does not serve the model.
        today: The present day, UTC.
    """
    if served is None:
        text = f"not served at {model.endpoint}"
        if model.successor:
            text += f"; next: {model.successor}"
        return (Remark("stop", "name", text),)
    if not served.known:
        return (Remark("mind", "version", "the provider cannot be asked what it serves"),)
    return tuple(_departures(model, served, today))


def _departures(model: Model, served: Served, today: date) -> Iterator[Remark]:
    if served.version is None:
        yield Remark("mind", "version", "served; the provider does not say which version")
    elif served.version != model.version:
        pinned = model.pin in ("immutable", "dated")
        yield Remark(
            "stop" if pinned else "mind",
            "version",
            f"serves {served.version!r}, the catalog says {model.version!r}",
        )
    if served.retires is not None:
        yield from _served_end(model, served.retires, today)
    if served.price_usd is not None and model.price is not None and model.price.per == "image":
        # Asked this way round, NaN is a departure too.
        covered = served.price_usd <= model.price.usd + 1e-9
        if not covered:
            text = f"asks ${served.price_usd:g} an image, the catalog says ${model.price.usd:g}"
            yield Remark("stop", "price", text)


def _served_end(model: Model, told: str, today: date) -> Iterator[Remark]:
    try:
        day = date.fromisoformat(told[:10])
    except ValueError:
        yield Remark("mind", "retires", f"tells the retirement date {told!r}, no ISO date")
        return
    if day <= today:
        yield Remark("stop", "retires", f"retired on {day} by its provider")
    elif model.retires != day:
        known = model.retires or "none"
        yield Remark("mind", "retires", f"retires on {day} by its provider, the catalog: {known}")


def listed(
    catalog: Catalog,
    *,
    today: date,
    frozen_until: date | None,
    has_key: Callable[[str], bool],
    uses: Mapping[str, tuple[str, ...]],
) -> list[dict[str, object]]:
    """Return the catalog as rows for people and programs, in its own order.

    Args:
        catalog: The catalog.
        today: The present day, UTC.
        frozen_until: Last day of the freeze that holds, ``None`` without one.
        has_key: Tells whether the key of this name is set.
        uses: Subtasks that production gives to a model, by its name.
    """
    rows: list[dict[str, object]] = []
    for model in catalog.models:
        found = remarks(model, today=today, frozen_until=frozen_until, has_key=has_key)
        rows.append(
            {
                "name": model.name,
                "protocol": model.protocol,
                "endpoint": model.endpoint,
                "operations": list(model.operations),
                "version": model.version,
                "pin": model.pin,
                "price": None if model.price is None else model.price.model_dump(mode="json"),
                "licence": None if model.licence is None else model.licence.model_dump(mode="json"),
                "key_env": model.key_env,
                "retires": None if model.retires is None else str(model.retires),
                "successor": model.successor,
                "serves": list(uses.get(model.name, ())),
                "usable": all(remark.weight != "stop" for remark in found),
                "remarks": [{"weight": r.weight, "field": r.field, "text": r.text} for r in found],
            }
        )
    return rows
