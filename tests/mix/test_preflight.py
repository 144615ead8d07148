from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

from tasks.errors import PreflightError
from tasks.mix.catalog import Catalog, Licence, Model, Price
from tasks.mix.manifest import Mix, ResolvedMix, resolve_mix
from tasks.mix.preflight import check_preflight, preflight

TODAY, UNTIL = date(2026, 9, 14), date(2026, 9, 28)


@dataclass(frozen=True, slots=True)
class Answer:
    version: str = "folio-1-2026-01-01"
    safety: str | None = "on"
    price_usd: float | None = 0.02
    retires: str | None = None


def ending(day: date) -> Licence:
    return Licence(id="Terms", uses=("commercial",), expires=day)


def held_in(*regions: str) -> Licence:
    return Licence(id="Terms", uses=("commercial",), regions=regions)


@pytest.fixture
def problems(
    make_model: Callable[..., Model], make_manifest: Callable[..., dict[str, Any]]
) -> Callable[..., list[str]]:
    """Return what preflight says of a mix of one model that is changed in one way."""

    def find(
        answer: Answer | None = Answer(),
        keys: tuple[str, ...] = (),
        use: str = "commercial",
        safety_needed: bool = True,
        regions: tuple[str, ...] = (),
        **model: Any,
    ) -> list[str]:
        manifest = make_manifest("winter", "folio-1", use=use, regions=regions)
        mix = resolve_mix(
            Mix.model_validate(manifest), Catalog(models=(make_model(**model),)), "test"
        )
        served = {} if answer is None else {"folio-1": answer}
        return preflight(
            [mix, mix],
            served=served,
            has_key=keys.__contains__,
            today=TODAY,
            frozen_until=UNTIL,
            safety_needed=safety_needed,
        )

    return find


def test_a_sound_mix_has_no_problems(problems: Callable[..., list[str]]) -> None:
    assert problems() == []
    assert problems(answer=Answer(safety=None, price_usd=None)) == []
    assert problems(answer=Answer(price_usd=0.01, retires="2027-01-01")) == []
    assert problems(key_env="FOLIO_KEY", keys=("FOLIO_KEY",)) == []
    assert problems(retires=date(2026, 9, 29)) == []
    assert problems(licence=ending(date(2026, 9, 29))) == []
    assert problems(licence=held_in("EU"), regions=("DE", "EU", "FR")) == []
    assert problems(licence=held_in("EEA"), regions=("EU", "NO")) == []
    assert problems(regions=("CH",)) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"licence": None}, "no licence"),
        ({"use": "research"}, "'Apache-2.0' does not allow 'research' use"),
        ({"licence": Licence(id="X", uses=())}, "allowed: none"),
        ({"licence": ending(date(2026, 9, 13))}, "'Terms' ended on 2026-09-13"),
        ({"licence": ending(UNTIL)}, "ends on 2026-09-28, within the freeze until 2026-09-28"),
        ({"licence": held_in("EU")}, "holds only in EU, and mix 'winter' does not say"),
        ({"licence": held_in("EU"), "regions": ("DE", "CH")}, "does not hold in CH, where mix"),
        ({"licence": held_in("DE", "FR"), "regions": ("EU",)}, "does not hold in EU"),
        ({"price": None}, "no price"),
        ({"key_env": "FOLIO_KEY"}, "set the environment variable FOLIO_KEY"),
        ({"safety": "off"}, "safety setting is off in the catalog"),
        ({"retires": date(2026, 9, 14)}, "retired on 2026-09-14 by the catalog"),
        ({"retires": date(2020, 1, 1), "successor": "folio-2"}, "successor is 'folio-2'"),
        ({"retires": date(2026, 9, 28)}, "within the freeze until 2026-09-28"),
        ({"answer": None}, "embedded does not serve it (known: none)"),
        # Nobody was asked without a key, so nobody said that it is not served.
        ({"answer": None, "key_env": "FOLIO_KEY"}, "its key is missing"),
        ({"answer": Answer(version="folio-1-2026-09-01")}, "pins 'folio-1-2026-01-01'"),
        ({"answer": Answer(safety="off")}, "reports the safety setting 'off'"),
        ({"answer": Answer(safety="")}, "reports the safety setting ''"),
        ({"answer": Answer(retires="2026-09-20")}, "retires on 2026-09-20 by its provider"),
        ({"answer": Answer(retires="2026-01-01T00:00:00Z")}, "retired on 2026-01-01"),
        ({"answer": Answer(retires="soon")}, "'soon', not an ISO date"),
        ({"answer": Answer(price_usd=0.021)}, "charges $0.021 an image"),
        ({"answer": Answer(price_usd=float("nan"))}, "could not be kept"),
    ],
)
def test_each_rule_refuses_by_itself_and_once(
    problems: Callable[..., list[str]], change: dict[str, Any], text: str
) -> None:
    (only,) = problems(**change)
    assert text in only
    assert only.startswith("model 'folio-1': ")


def test_a_stage_with_its_safety_off_is_named(
    make_model: Callable[..., Model], make_manifest: Callable[..., dict[str, Any]]
) -> None:
    manifest = make_manifest("winter", "folio-1")
    manifest["routes"]["creative"] = [{"stages": [{"model": "folio-1", "safety": "off"}]}]
    mix = resolve_mix(Mix.model_validate(manifest), Catalog(models=(make_model(),)), "test")

    def find(needed: bool) -> list[str]:
        return preflight(
            [mix],
            served={"folio-1": Answer()},
            has_key=lambda _name: False,
            today=TODAY,
            frozen_until=UNTIL,
            safety_needed=needed,
        )

    (only,) = find(True)
    assert "stage 1 of 'creative' (model 'folio-1') has its safety setting off" in only
    assert find(False) == []


def test_safety_that_is_not_needed_is_not_asked_for(problems: Callable[..., list[str]]) -> None:
    assert problems(safety="off", answer=Answer(safety="off"), safety_needed=False) == []


def test_all_problems_are_told_at_once_and_no_secret_with_them(
    winter: ResolvedMix, make_model: Callable[..., Model]
) -> None:
    bare = make_model(licence=None, price=None, key_env="FOLIO_KEY")
    mix = winter.model_copy(update={"models": (bare,)})
    with pytest.raises(PreflightError) as caught:
        check_preflight(
            [mix],
            served={},
            has_key=lambda _name: False,
            today=TODAY,
            frozen_until=UNTIL,
        )
    assert len(caught.value.problems) == 3
    assert all(f"  - {problem}" in str(caught.value) for problem in caught.value.problems)


def test_sound_mixes_pass(winter: ResolvedMix) -> None:
    check_preflight(
        [winter],
        served={"folio-1": Answer(), "unused": Answer(version="?")},
        has_key=lambda _name: False,
        today=TODAY,
        frozen_until=UNTIL,
    )


def test_a_price_of_zero_is_a_known_price(problems: Callable[..., list[str]]) -> None:
    free = Price(usd=0, source="own machine", date=date(2026, 1, 1))
    assert problems(price=free, answer=Answer(price_usd=0)) == []
    (only,) = problems(price=free, answer=Answer(price_usd=1e-6))
    assert "reckons with $0" in only
