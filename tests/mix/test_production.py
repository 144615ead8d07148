from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from datetime import date

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError, RefusedError, StateError
from tasks.mix.catalog import Catalog, Model, Price
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import (
    Transition,
    adopt,
    find_mix,
    journal_of,
    keep_mix,
    kept_mix,
    previous_digest,
    production_mix,
    products,
    read_production,
    require_production,
    serving_order,
)
from tasks.state import State
from tasks.tables import mixes


def test_the_first_mix_of_a_product_is_adopted(state: State, winter: ResolvedMix) -> None:
    assert read_production(state, "shop") is None
    pointer = adopt(state, winter, "ann", "first")
    assert (pointer.mix_digest, pointer.epoch, pointer.settled) == (winter.digest, 1, False)
    assert require_production(state, "shop") == pointer
    assert production_mix(state, "shop") == winter
    (line,) = journal_of(state, "shop")
    assert (line.kind, line.from_digest, line.to_digest) == ("adopt", None, winter.digest)
    assert products(state) == ("shop",)


def test_adopting_never_replaces_a_production(
    shop: State, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    assert adopt(shop, summer, "ann", "again").mix_digest == winter.digest
    assert len(journal_of(shop, "shop")) == 1


def test_a_product_without_production_is_refused_with_those_that_have_one(shop: State) -> None:
    with pytest.raises(RefusedError, match=r"'cards'.*known: shop"):
        require_production(shop, "cards")


def test_a_kept_mix_comes_back_whole(state: State, summer: ResolvedMix) -> None:
    assert keep_mix(state, summer) == summer.digest
    assert kept_mix(state, summer.digest) == summer
    with pytest.raises(RefusedError, match=r"'sha256:1'.*summer"):
        kept_mix(state, "sha256:1")


def test_keeping_again_takes_the_present_prices(
    state: State, winter: ResolvedMix, make_model: Callable[..., Model]
) -> None:
    keep_mix(state, winter)
    dearer = make_model(price=Price(usd=0.5, source="new list", date=date(2026, 9, 1)))
    keep_mix(state, winter.model_copy(update={"models": (dearer,)}))
    kept = kept_mix(state, winter.digest)
    assert kept.models[0].price is not None
    assert kept.models[0].price.usd == 0.5


@pytest.mark.parametrize("text", ["{}", "not json", '{"mix": null, "models": []}'])
def test_a_damaged_manifest_is_a_state_error(state: State, winter: ResolvedMix, text: str) -> None:
    keep_mix(state, winter)
    with state.begin() as connection:
        connection.execute(sa.update(mixes).values(manifest=text))
    with pytest.raises(StateError, match="cannot be read"):
        kept_mix(state, winter.digest)


def test_a_swapped_manifest_is_a_state_error(
    state: State, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    keep_mix(state, winter)
    with state.begin() as connection:
        connection.execute(sa.update(mixes).values(manifest=summer.model_dump_json()))
    with pytest.raises(StateError, match="was altered"):
        kept_mix(state, winter.digest)


def test_people_find_a_mix_by_name_digest_or_its_start(
    state: State, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    keep_mix(state, winter)
    keep_mix(state, summer)
    for reference in ("winter", winter.digest, winter.digest[:16], winter.digest[7:15]):
        assert find_mix(state, reference) == winter
    with pytest.raises(RefusedError, match=r"'spring'.*summer"):
        find_mix(state, "spring")
    with pytest.raises(RefusedError):
        find_mix(state, winter.digest[7:9])


def test_a_name_of_two_mixes_is_not_guessed(
    state: State, winter: ResolvedMix, make_mix: Callable[..., ResolvedMix]
) -> None:
    other = make_mix("winter", "folio-7")
    keep_mix(state, winter)
    keep_mix(state, other)
    with pytest.raises(ConfigError, match="fits 2 mixes"):
        find_mix(state, "winter")
    assert find_mix(state, other.digest) == other


def test_production_takes_prices_from_the_catalog_while_the_images_stay_the_same(
    shop: State, make_model: Callable[..., Model]
) -> None:
    price = Price(usd=0.09, source="new list", date=date(2026, 9, 1))
    fresh = production_mix(shop, "shop", Catalog(models=(make_model(price=price),)))
    assert fresh.models[0].price == price
    moved = Catalog(models=(make_model(price=price, version="folio-1-2026-09-01"),))
    assert production_mix(shop, "shop", moved).models[0].version == "folio-1-2026-01-01"
    gone = Catalog(models=(make_model("other"),))
    assert production_mix(shop, "shop", gone).models[0].name == "folio-1"


def lines(changes: Sequence[tuple[str, str]]) -> list[Transition]:
    return [
        Transition(n, "shop", n, kind, None, to, "a", "r", None, "t")
        for n, (kind, to) in enumerate(changes)
    ]


@pytest.mark.parametrize(
    ("changes", "order"),
    [
        ([], ()),
        ([("adopt", "a"), ("verified", "a")], ("a",)),
        ([("adopt", "a"), ("promote", "b"), ("verified", "b")], ("a", "b")),
        ([("adopt", "a"), ("promote", "b"), ("rollback", "a")], ("a",)),
        ([("adopt", "a"), ("promote", "b"), ("promote", "c"), ("rollback", "a")], ("a",)),
        ([("adopt", "a"), ("promote", "b"), ("promote", "a")], ("a", "b", "a")),
        ([("adopt", "a"), ("rollback", "a"), ("reconcile", "a")], ("a",)),
        ([("adopt", "a"), ("promote", "b"), ("rollback", "z")], ("a", "b", "z")),
    ],
)
def test_the_order_of_serving_follows_promotions_and_rollbacks(
    changes: list[tuple[str, str]], order: tuple[str, ...]
) -> None:
    assert serving_order(lines(changes)) == order


@given(
    st.lists(
        st.tuples(st.sampled_from(["promote", "rollback", "reconcile", "verified"]), st.text("abc"))
    )
)
def test_the_order_ends_with_the_last_change_and_repeats_nobody_beside_itself(
    changes: list[tuple[str, str]],
) -> None:
    order = serving_order(lines(changes))
    real = [to for kind, to in changes if kind != "verified"]
    assert order[-1:] == tuple(real[-1:])
    assert all(a != b for a, b in itertools.pairwise(order))


def test_the_mix_before_the_present_one(shop: State) -> None:
    assert previous_digest(shop, "shop") is None
    assert previous_digest(shop, "cards") is None
