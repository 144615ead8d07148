from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.mix.catalog import Catalog, Model
from tasks.mix.library import NOTICE, PRICE_AGE, compared, listed, remarks

TODAY = date(2026, 11, 29)
ENTRY: dict[str, Any] = {
    "name": "bold-1",
    "protocol": "raw",
    "endpoint": "https://images.example.com",
    "version": "bold-1-2026-01-01",
    "pin": "dated",
    "operations": ["generate"],
    "licence": {
        "id": "Terms of Example",
        "uses": ["commercial"],
        "evidence": "https://example.com/terms",
    },
    "price": {"usd": 0.02, "source": "https://example.com/prices", "date": "2026-11-01"},
}


def model(**changes: Any) -> Model:
    return Model.model_validate(ENTRY | changes)


def found(
    entry: Model, frozen_until: date | None = None, keys: tuple[str, ...] = ()
) -> dict[str, str]:
    told = remarks(entry, today=TODAY, frozen_until=frozen_until, has_key=lambda name: name in keys)
    return {remark.field: remark.weight for remark in told}


def test_a_whole_entry_has_no_remarks() -> None:
    assert found(model()) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"licence": None}, {"licence": "stop"}),
        ({"licence": {"id": "NC", "uses": ["research"]}}, {"licence.uses": "mind"}),
        (
            {"licence": {"id": "Terms", "uses": ["commercial"], "regions": ["EU"]}},
            {"licence.regions": "mind"},
        ),
        ({"price": None}, {"price": "stop"}),
        ({"safety": "off"}, {"safety": "stop"}),
        ({"pin": "alias"}, {"pin": "mind"}),
        ({"pin": "none"}, {"pin": "mind"}),
        ({"key_env": "BOLD_KEY"}, {"key_env": "mind"}),
        ({"retires": "2026-11-29"}, {"retires": "stop"}),
        ({"retires": "2026-12-31"}, {"retires": "mind"}),
        ({"retires": "2027-11-29"}, {}),
        ({"endpoint": "embedded", "licence": {"id": "MIT", "uses": ["commercial"]}}, {}),
    ],
)
def test_what_is_missing_or_ends_is_said(changes: dict[str, Any], expected: dict[str, str]) -> None:
    assert expected.items() <= found(model(**changes)).items()
    assert set(found(model(**changes))) - set(expected) <= {"licence.evidence"}


def test_an_end_within_the_freeze_stops() -> None:
    until = TODAY + timedelta(days=14)
    assert found(model(retires=str(until)), until) == {"retires": "stop"}
    assert found(model(retires=str(until + timedelta(days=1))), until) == {"retires": "mind"}
    licence = ENTRY["licence"] | {"expires": str(until)}
    assert found(model(licence=licence), until) == {"licence.expires": "stop"}
    assert found(model(licence=licence)) == {"licence.expires": "mind"}
    over = ENTRY["licence"] | {"expires": str(TODAY - timedelta(days=1))}
    assert found(model(licence=over)) == {"licence.expires": "stop"}


@given(st.integers(-400, 400))
def test_a_price_ages_after_ninety_days(days: int) -> None:
    price = ENTRY["price"] | {"date": str(TODAY - timedelta(days=days))}
    aged = days > PRICE_AGE.days or days < 0
    assert found(model(price=price)) == ({"price.date": "mind"} if aged else {})


def test_a_key_that_is_set_is_not_missed() -> None:
    assert found(model(key_env="BOLD_KEY"), keys=("BOLD_KEY",)) == {}


def test_the_gravest_comes_first_and_the_successor_is_named() -> None:
    entry = model(
        pin="alias", retires=str(TODAY + NOTICE), successor="bold-2", price=None, key_env="BOLD_KEY"
    )
    told = remarks(entry, today=TODAY, frozen_until=None, has_key=lambda _: False)
    weights = [remark.weight for remark in told]
    assert weights == sorted(weights, key=lambda weight: weight != "stop")
    assert "bold-2" in next(remark.text for remark in told if remark.field == "retires")


@dataclass(frozen=True)
class Said:
    version: str | None = "bold-1-2026-01-01"
    known: bool = True
    retires: str | None = None
    price_usd: float | None = None


@pytest.mark.parametrize(
    ("said", "changes", "weights"),
    [
        (Said(), {}, []),
        (None, {}, ["stop"]),
        (Said(known=False, version=None), {}, ["mind"]),
        (Said(version=None), {}, ["mind"]),
        (Said(version="other"), {}, ["stop"]),
        (Said(version="other"), {"pin": "alias"}, ["mind"]),
        (Said(retires="2026-11-01"), {}, ["stop"]),
        (Said(retires="2027-11-01"), {}, ["mind"]),
        (Said(retires="2027-11-01"), {"retires": "2027-11-01"}, []),
        (Said(retires="soon"), {}, ["mind"]),
        (Said(price_usd=0.03), {}, ["stop"]),
        (Said(price_usd=float("nan")), {}, ["stop"]),
        (Said(price_usd=0.02), {}, []),
    ],
)
def test_what_a_provider_says_is_compared(
    said: Said | None, changes: dict[str, Any], weights: list[str]
) -> None:
    told = compared(model(**changes), said, today=TODAY)
    assert [remark.weight for remark in told] == weights


def test_rows_say_what_serves_and_what_may_be_used() -> None:
    catalog = Catalog(models=(model(), model(name="bold-2", price=None)))
    rows = listed(
        catalog,
        today=TODAY,
        frozen_until=None,
        has_key=lambda _: True,
        uses={"bold-1": ("fast", "creative")},
    )
    assert [row["usable"] for row in rows] == [True, False]
    assert [row["serves"] for row in rows] == [["fast", "creative"], []]


def test_an_old_licence_is_dumped_as_it_was() -> None:
    entry = model(licence={"id": "MIT", "uses": ["commercial"]})
    assert entry.model_dump(mode="json")["licence"] == {"id": "MIT", "uses": ["commercial"]}
