"""The reserve: extra cases for slices that look bad, none of which the sample has."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.inputs.draw import draw_sample
from tasks.inputs.reserve import choose_reserve, likeness, slices_of
from tasks.policy import Sampling, SliceRule
from tasks.records import ORIGINS, Case
from tasks.settings import DATASETS

RULE = SliceRule(min_images=4)
DIMENSIONS = RULE.dimensions


def case(number, subtask="fast", locale="en", origin="production", **more):
    fields = {"case_id": f"{origin}-{number}", "prompt": f"prompt {number} {origin}"} | more
    return Case(subtask=subtask, locale=locale, origin=origin, **fields)


CASES = st.builds(
    case,
    number=st.integers(0, 60),
    subtask=st.sampled_from(["fast", "creative", "typography"]),
    locale=st.sampled_from(["en", "de", "th", "zh-TW"]),
    origin=st.sampled_from(ORIGINS),
)


@given(
    headline=st.lists(CASES, max_size=25),
    spare=st.lists(CASES, max_size=60),
    count=st.integers(0, 40),
    seed=st.integers(0, 3),
)
def test_the_reserve_keeps_its_promises(headline, spare, count, seed):
    reserve = choose_reserve(headline, spare, count, RULE, seed)
    assert reserve == choose_reserve(headline, spare, count, RULE, seed)
    assert len(reserve) <= count
    assert set(reserve) <= set(spare)
    together = [*dict.fromkeys(headline), *reserve]
    extra = len({c.case_id for c in reserve}) + len({c.case_id for c in headline})
    assert len({c.case_id for c in together}) == extra
    assert not {likeness(c) for c in reserve} & {likeness(c) for c in headline}
    assert len({likeness(c) for c in reserve}) == len(reserve)
    assert {c.origin for c in reserve} <= {c.origin for c in headline}
    if len(reserve) < count:
        # All that could serve a slice of the headline is in it.
        wanted = {key for c in headline for key in slices_of(c, DIMENSIONS)}
        seen = {likeness(c) for c in (*headline, *reserve)}
        ids = {c.case_id for c in (*headline, *reserve)}
        for other in spare:
            if other.origin in {c.origin for c in headline} and other.case_id not in ids:
                assert likeness(other) in seen or not wanted & set(slices_of(other, DIMENSIONS))


def test_near_copies_are_passed_over():
    headline = [case(1, prompt="Un Café  noir", expected_text=("OPEN",))]
    copies = [
        case(2, prompt="un cafe\u0301 NOIR", expected_text=("open",)),
        case(3, prompt="Un Café noir ", expected_text=("OPEN",), width=1024, locale="fr"),
        case(4, prompt="Un Café noir", expected_text=("OPEN",)),
    ]
    new = case(5, prompt="Un Café noir", expected_text=("CLOSED",))
    assert choose_reserve(headline, [*copies, new], 9, RULE, 1) == (new,)
    assert likeness(case(6, prompt="ไทย ก่")) != likeness(case(7, prompt="ไทย ก"))


def test_a_rare_slice_has_its_place_beside_large_ones():
    headline = [case(n, locale="en") for n in range(40)]
    headline += [case(n, locale="th") for n in range(40, 42)]
    spare = [case(n, locale="en") for n in range(100, 200)]
    spare += [case(n, locale="th") for n in range(200, 210)]
    reserve = choose_reserve(headline, spare, 12, RULE, 1)
    locales = Counter(c.locale for c in reserve)
    # English needs 4 to be judged and Thai has 2: two to one, whatever the log holds.
    assert locales == {"en": 8, "th": 4}
    assert {c.locale for c in reserve[:3]} == {"en", "th"}


def test_a_critical_slice_is_served_even_if_the_headline_has_none_of_it():
    headline = [case(n) for n in range(10)]
    spare = [case(n, locale="th") for n in range(50, 60)] + [case(n) for n in range(60, 90)]
    assert "th" not in {c.locale for c in choose_reserve(headline, spare[10:], 10, RULE, 1)}
    rule = SliceRule(min_images=4, critical=("locale=th", "model=folio-1"))
    assert Counter(c.locale for c in choose_reserve(headline, spare, 10, rule, 1))["th"] >= 4


def test_a_slice_keeps_the_origins_of_its_headline():
    """Harder cases than the slice itself would find it worse than it is."""
    headline = [case(n, origin="production") for n in range(30)]
    headline += [case(n, origin="stress") for n in range(10)]
    spare = [case(n, origin="stress") for n in range(100, 150)]
    spare += [case(n, origin="production") for n in range(100, 150)]
    rule = SliceRule(min_images=4, dimensions=("subtask",))
    reserve = choose_reserve(headline, spare, 20, rule, 1)
    assert Counter(c.origin for c in reserve) == {"production": 15, "stress": 5}


@pytest.mark.parametrize("dimensions", [(), ("model",), ("locale",)])
def test_only_slices_that_are_judged_are_served(dimensions):
    rule = SliceRule(dimensions=dimensions)
    assert bool(choose_reserve([case(1)], [case(2)], 5, rule, 1)) == bool(dimensions)


# --- with the draw --------------------------------------------------------------------------


def draw(slices=None, cases=None, seed=1, inputs=None):
    return draw_sample(inputs, Sampling(), cases, seed, DATASETS, slices)


@pytest.fixture(scope="module")
def default():
    return draw(SliceRule())


def test_the_sample_is_the_same_with_and_without_a_reserve(default):
    assert draw().cases == default.cases == draw(SliceRule(top_up=0)).cases
    assert draw().reserve == draw(SliceRule(top_up=0)).reserve == ()
    without = draw().coverage
    assert {**default.coverage, "reserve": without["reserve"]} == without
    assert without["reserve"] == {"production": 0, "stress": 0, "adversarial": 0}


def test_the_default_reserve_serves_every_slice(default):
    cases, coverage, reserve = default
    assert len(reserve) == 60
    assert Counter(c.origin for c in reserve) == coverage["reserve"]
    ids = [c.case_id for c in (*cases, *reserve)]
    assert len(set(ids)) == 300
    assert not {c.digest for c in cases} & {c.digest for c in reserve}
    assert not {likeness(c) for c in cases} & {likeness(c) for c in reserve}
    extra = Counter(key for c in reserve for key in slices_of(c, DIMENSIONS))
    sizes = Counter(key for c in cases for key in slices_of(c, DIMENSIONS))
    assert set(sizes) <= set(extra), "no slice is forgotten"
    assert all(extra[key] >= 3 for key, size in sizes.items() if size >= 8)
    shares = [extra["origin", name] / sizes["origin", name] for name in ORIGINS]
    assert max(shares) < 1.5 * min(shares)


def test_the_reserve_is_decided_by_the_seed(default):
    assert draw(SliceRule()).reserve == default.reserve
    assert draw(SliceRule(), seed=2).reserve != default.reserve


@pytest.mark.parametrize(("cases", "top_up", "size"), [(30, 0.1, 3), (7, 0.25, 2), (100, 1, 100)])
def test_its_size_is_the_share_of_the_cases_rounded_up(cases, top_up, size):
    assert len(draw(SliceRule(top_up=top_up), cases).reserve) == size


def test_a_log_of_one_stratum_has_a_reserve_too(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("\n".join(f"a cat number {n}" for n in range(500)), encoding="utf-8")
    found = draw_sample(
        str(log), Sampling(stress=0, adversarial=0), 100, 1, DATASETS, SliceRule(top_up=0.5)
    )
    assert (len(found.cases), len(found.reserve)) == (100, 50)
    assert {c.weight for c in (*found.cases, *found.reserve)} == {5.0}


def test_a_short_log_gives_what_is_left(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("a cat\nA  cat\na dog\n", encoding="utf-8")
    found = draw_sample(
        str(log), Sampling(stress=0, adversarial=0), 2, 1, DATASETS, SliceRule(top_up=1)
    )
    assert len(found.cases) == 2
    assert {likeness(c) for c in found.reserve}.isdisjoint({likeness(c) for c in found.cases})
