"""What requests cost: by unit, never below what can be charged, unknown when it is unknown."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.mix.catalog import Price, TokenPrices
from tasks.providers.cost import cost_of, worst_case
from tasks.records import Usage
from tests.providers.kit import a_model, a_price

TOKENS = TokenPrices(text_in=5, image_in=8, text_out=10, image_out=30)
MODALITIES = ("text_in", "image_in", "text_out", "image_out")


@pytest.mark.parametrize(
    ("price", "usage", "size", "expected"),
    [
        (a_price(), None, (512, 512), (40_000, "list")),
        (a_price(per="megapixel", usd=0.015, first_usd=0.03), None, (1024, 1024), (30_000, "c")),
        (a_price(per="megapixel", usd=0.015, first_usd=0.03), None, (1025, 1024), (45_000, "c")),
        (a_price(per="megapixel", usd=0.015), None, (64, 64), (15_000, "c")),
        (a_price(per="megapixel", usd=0.01), Usage(megapixels=3.2), (64, 64), (40_000, "c")),
        (a_price(per="credit", usd=0.01, credits=4), None, (64, 64), (40_000, "list")),
        (a_price(per="credit", usd=0.01, credits=4), Usage(credits=6.5), (64, 64), (65_000, "c")),
        (a_price(per="gpu_second", usd=0.001), None, (64, 64), (2_000, "c")),
        (a_price(per="gpu_second", usd=0.001), Usage(gpu_seconds=7.25), (64, 64), (7_250, "c")),
        (a_price(per="gpu_second", usd=0.001), Usage(gpu_seconds=0), (64, 64), (0, "c")),
        (
            a_price(per="token", usd=0.3, tokens=TOKENS),
            Usage(text_in=50, image_in=0, text_out=0, image_out=4160),
            (64, 64),
            (125_050, "c"),
        ),
        (
            a_price(per="token", usd=0.3, tokens=TokenPrices(image_out=30)),
            Usage(image_out=1),
            (64, 64),
            (30, "c"),
        ),
        (a_price(per="token", usd=0.3, tokens=TOKENS), None, (64, 64), None),
        (
            a_price(per="token", usd=0.3, tokens=TOKENS),
            Usage(text_in=50, image_in=0, image_out=4160),
            (64, 64),
            None,
        ),
    ],
)
def test_costs_by_unit(
    price: Price, usage: Usage | None, size: tuple[int, int], expected: tuple[int, str] | None
) -> None:
    found = cost_of(price, usage, *size, seconds=2.0)
    if expected is None:
        assert found is None
    else:
        assert found == (expected[0], {"c": "computed"}.get(expected[1], expected[1]))


def test_the_list_prices_of_the_provider_notes_come_out() -> None:
    """Gemini's own example: 1,120 image tokens at $30 a million are $0.0336."""
    price = a_price(
        per="token", usd=0.2, tokens=TokenPrices(text_in=1.5, text_out=7.5, image_out=30)
    )
    assert cost_of(price, Usage(text_in=0, text_out=0, image_out=1120), 1, 1, 0) == (
        33_600,
        "computed",
    )


money = st.floats(0, 100, allow_nan=False)
sides = st.integers(16, 8192)


@given(money, money, sides, sides, sides, sides)
def test_the_worst_megapixels_cover_every_smaller_picture(
    usd: float, first: float, width: int, height: int, wide: int, high: int
) -> None:
    price = a_price(per="megapixel", usd=usd, first_usd=first)
    worst = worst_case(a_model(price=price), "", width, height)
    found = cost_of(price, None, min(wide, width), min(high, height), 0.0)
    assert worst is not None
    assert found is not None
    assert found[0] <= worst


@given(
    st.sampled_from(["image", "credit", "gpu_second"]),
    money,
    st.floats(0.01, 1000),
    sides,
    st.floats(0, 60),
    st.none() | money,
)
def test_the_worst_price_covers_what_a_request_costs(
    per: Any, usd: float, count: float, side: int, seconds: float, most: float | None
) -> None:
    price = a_price(per=per, usd=usd, credits=count if per == "credit" else None, most_usd=most)
    worst = worst_case(a_model(price=price, timeout_s=60.0), "", side, side)
    found = cost_of(price, None, side, side, seconds)
    assert worst is not None
    assert found is not None
    assert 0 <= found[0] <= worst


@given(
    st.tuples(money, money, money, money),
    st.tuples(*[st.integers(0, 100_000)] * 4),
    st.text(max_size=50),
)
def test_tokens_cost_what_the_table_says_and_the_worst_price_covers_them(
    rates: tuple[float, ...], counts: tuple[int, ...], prompt: str
) -> None:
    table = TokenPrices(**dict(zip(MODALITIES, rates, strict=True)))
    exact = sum(Fraction(r) * n / 10**6 for r, n in zip(rates, counts, strict=True))
    price = a_price(per="token", usd=float(exact), tokens=table)
    found = cost_of(price, Usage(**dict(zip(MODALITIES, counts, strict=True))), 64, 64, 0.0)
    assert found is not None
    # Rounded up, and never by more than a micro-dollar and what a float cannot hold.
    assert -1e-3 <= found[0] - exact * 10**6 <= 1.001
    worst = worst_case(a_model(price=price), prompt, 64, 64)
    assert worst is not None
    assert worst >= found[0] - 1


@given(st.sampled_from(MODALITIES))
def test_a_priced_modality_that_is_not_said_makes_the_cost_unknown(missing: str) -> None:
    counts = dict.fromkeys(MODALITIES, 10) | {missing: None}
    price = a_price(per="token", usd=1, tokens=TOKENS)
    assert cost_of(price, Usage(**counts), 64, 64, 0.0) is None
    free = a_price(per="token", usd=1, tokens=TOKENS.model_copy(update={missing: 0.0}))
    assert cost_of(free, Usage(**counts), 64, 64, 0.0) is not None


def test_without_a_price_there_is_no_worst_price() -> None:
    assert worst_case(a_model(price=None), "", 64, 64) is None


def test_the_most_of_a_request_raises_the_reservation() -> None:
    assert worst_case(a_model(price=a_price(most_usd=0.5)), "", 64, 64) == 500_000
    assert worst_case(a_model(price=a_price(most_usd=0.01)), "", 64, 64) == 40_000


def test_a_long_prompt_can_cost_more_than_the_rest() -> None:
    model = a_model(price=a_price(per="token", usd=0.1, tokens=TokenPrices(text_in=5)))
    assert worst_case(model, "ä" * 100_000, 64, 64) == 100_000 + 1_000_000
    assert worst_case(model, "\ud800", 64, 64) == 100_015


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"per": "token"}, "'tokens' belongs to per: token"),
        ({"per": "image", "tokens": TOKENS}, "'tokens' belongs to per: token"),
        ({"per": "credit"}, "'credits' belongs to per: credit"),
        ({"per": "image", "credits": 3}, "'credits' belongs to per: credit"),
        ({"per": "credit", "credits": 0}, "greater than 0"),
        ({"per": "image", "first_usd": 1}, "'first_usd' belongs to per: megapixel"),
        ({"per": "pound"}, "Input should be 'image'"),
        ({"most_usd": -1}, "greater than or equal to 0"),
    ],
)
def test_a_price_fits_its_unit(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        a_price(**fields)


def test_prices_of_the_first_release_are_dumped_as_they_were() -> None:
    assert set(a_price().model_dump(mode="json")) == {"usd", "per", "source", "date"}
    full = a_price(per="megapixel", usd=0.015, first_usd=0.0, most_usd=1)
    assert Price.model_validate(full.model_dump(mode="json")) == full
    assert full.model_dump()["first_usd"] == 0.0


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (a_price(), "$0.04 per image"),
        (a_price(per="gpu_second", usd=0.001), "$0.001 per GPU-second"),
        (a_price(per="credit", usd=0.01, credits=3.5), "3.5 credits of $0.01"),
        (
            a_price(per="megapixel", usd=0.015, first_usd=0.03),
            "$0.03 for the first megapixel, $0.015 per megapixel",
        ),
        (
            a_price(per="token", usd=0.2, tokens=TokenPrices(text_in=5, image_out=30)),
            "up to $0.2 per image (text_in $5, image_out $30 per million tokens)",
        ),
    ],
)
def test_prices_have_words(price: Price, words: str) -> None:
    assert price.words == words
