import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tasks.inputs.coverage import log_coverage, total_variation
from tasks.inputs.rows import LogRow
from tasks.inputs.sample import (
    MAX_LANGUAGES,
    MAX_OVERWEIGHT,
    Stratum,
    _floor,
    allocate,
    content_key,
    sample_log,
    size_class,
    split,
    stratum_of,
    text_length,
)
from tasks.records import Case


def row(prompt="a cat", subtask="fast", locale="en", size=(512, 512), texts=(), request=None):
    return LogRow(prompt, subtask, locale, *size, texts, None, None, "image", request)


ROWS = st.builds(
    row,
    prompt=st.sampled_from([f"prompt {n}" for n in range(25)]),
    subtask=st.sampled_from(["typography", "creative", "fast"]),
    locale=st.sampled_from(["en", "de", "pt-BR", "zh"]),
    size=st.sampled_from([(512, 512), (640, 384), (1024, 1024)]),
    texts=st.sampled_from([(), ("Open",), ("A longer text here",)]),
    request=st.one_of(st.none(), st.integers(0, 9999).map(str)),
)
LOGS = st.lists(ROWS, min_size=1, max_size=120)


@given(log=LOGS, count=st.integers(1, 60), seed=st.integers(0, 5))
def test_sample_keeps_its_promises(log, count, seed):
    sample = sample_log(log, count, seed)
    different = {content_key(r) for r in log}
    assert len(sample.cases) == min(count, len(different))
    assert len({case.digest for case in sample.cases}) == len(sample.cases)
    assert len({case.case_id for case in sample.cases}) == len(sample.cases)
    assert sum(case.weight for case in sample.cases) == pytest.approx(len(log))
    assert sum(sample.rows.values()) == len(log)
    assert sum(sample.drawn.values()) == len(sample.cases)
    asked = {(r.prompt, r.subtask, r.locale, r.width, r.expected_text) for r in log}
    for case in sample.cases:
        assert (case.prompt, case.subtask, case.locale, case.width, case.expected_text) in asked
    assert bool(sample.notes) == (len(different) < count)


@given(log=LOGS, count=st.integers(1, 40), seed=st.integers(0, 5), shuffle=st.randoms())
def test_the_order_of_the_log_does_not_matter(log, count, seed, shuffle):
    turned = list(log)
    shuffle.shuffle(turned)
    one, other = sample_log(log, count, seed), sample_log(turned, count, seed)
    assert set(one.cases) == set(other.cases)


@given(log=LOGS, count=st.integers(1, 40))
def test_weight_is_rows_over_cases_of_the_stratum(log, count):
    sample = sample_log(log, count, 1)
    cases = Counter(case.stratum for case in sample.cases)
    rows = Counter(
        "/".join(getattr(stratum_of(r), name) for name in sample.level) or "all" for r in log
    )
    assert set(cases) == set(rows)
    for case in sample.cases:
        assert case.weight == pytest.approx(rows[case.stratum] / cases[case.stratum])


@given(
    log=LOGS,
    count=st.integers(1, 40),
    extra=st.integers(1, 30),
    held=st.sampled_from([1_000, 8_000, 30_000, 10**8]),
)
def test_spare_rows_change_nothing_of_the_sample(log, count, extra, held):
    """Also when memory is short: the spare rows are let go first."""
    plain = sample_log(log, count, 1, held)
    more = sample_log(log, count, 1, held, extra)
    assert replace(more, spare=()) == plain
    cases = {case.digest for case in more.cases}
    assert not cases & {case.digest for case in more.spare}
    assert len({case.digest for case in more.spare}) == len(more.spare)
    assert max(Counter(stratum_of_case(c) for c in more.spare).values(), default=0) <= extra
    if held == 10**8:
        different = {content_key(r): stratum_of(r) for r in log}
        of_stratum = Counter(different.values())
        drawn = Counter(map(stratum_of_case, more.cases))
        spare = Counter(map(stratum_of_case, more.spare))
        for stratum, size in of_stratum.items():
            assert spare[stratum] == min(extra, size - drawn[stratum])


def stratum_of_case(case):
    language, text = case.locale.partition("-")[0], text_length(case.expected_text)
    return Stratum(case.subtask, language, text, size_class(case.width, case.height))


def test_every_beginning_of_the_spare_rows_has_the_strata_in_proportion():
    log = [row(f"{n}", locale=loc) for loc, m in (("en", 600), ("de", 300)) for n in range(m)]
    spare = sample_log(log, 30, 1, extra=100).spare
    assert Counter(case.locale for case in spare[:30]) == {"en": 20, "de": 10}


def test_the_seed_changes_the_draw():
    log = [row(f"prompt {n}") for n in range(500)]
    one, other = ({case.prompt for case in sample_log(log, 20, seed).cases} for seed in (1, 2))
    assert one != other
    assert {case.prompt for case in sample_log(log, 20, 1).cases} == one


def test_every_row_has_about_the_same_chance():
    log = [row(f"prompt {n}") for n in range(40)]
    hits = Counter(c.prompt for seed in range(400) for c in sample_log(log, 10, seed).cases)
    # 400 draws of one quarter: 100 expected, deviation 8.7; five deviations are never met by luck.
    assert all(56 <= hits[r.prompt] <= 144 for r in log)


def test_request_ids_make_frequent_inputs_likelier():
    log = [row("often", request=str(n)) for n in range(60)]
    log += [row(f"rare {n}", request=f"r{n}") for n in range(60)]
    hits = sum("often" in {c.prompt for c in sample_log(log, 3, s).cases} for s in range(200))
    # Three draws of which half of the requests ask for it: 7 in 8, against 3 in 61 without ids.
    assert hits > 140


def test_duplicates_are_one_case_that_stands_for_all():
    sample = sample_log([row("same", request=str(n)) for n in range(10)], 5, 0)
    (case,) = sample.cases
    assert case.weight == 10
    assert len(sample.notes) == 1
    assert "drawn 1: the log holds only 1 different inputs in 10 rows" in sample.notes[0]


def test_an_empty_log_gives_no_case():
    sample = sample_log([], 5, 0)
    assert sample.cases == ()
    assert log_coverage(sample)["rows_in_covered_strata"] == 0.0


def test_strata_stay_fine_when_there_is_room():
    log = [row(f"{n}", subtask=s) for s in ("fast", "creative") for n in range(50)]
    sample = sample_log(log, 20, 0)
    assert sample.level == ("subtask", "language", "text", "size")
    assert Counter(case.subtask for case in sample.cases) == {"fast": 10, "creative": 10}


def test_strata_are_joined_when_there_is_no_room_and_every_row_is_stood_for():
    languages = ["en", "de", "fr", "es", "it", "pl", "tr", "zh", "ja", "ko"]
    log = [
        row(f"{n} {language}", subtask=subtask, locale=language, texts=("x" * n,))
        for n in range(30)
        for language in languages
        for subtask in ("fast", "creative")
    ]
    sample = sample_log(log, 18, 0)
    assert sample.level == ("subtask", "text")
    assert sum(case.weight for case in sample.cases) == pytest.approx(len(log))
    assert sample_log(log, 1, 0).level == ()


def test_a_rare_stratum_gets_a_case_and_none_is_overweight():
    log = [row(f"{n}") for n in range(990)] + [row(f"{n}", locale="th") for n in range(10)]
    sample = sample_log(log, 50, 0)
    assert "th" in {case.locale for case in sample.cases}
    assert max(case.weight for case in sample.cases) <= 1.25 * len(log) / 50


def test_memory_is_bounded_by_letting_rows_go():
    log = [row(f"{n} " + "x" * 1000, locale=loc) for loc in ("en", "de") for n in range(400)]
    small = sample_log(log, 200, 3, max_held=60_000)
    assert "only" in small.notes[0]
    assert 0 < len(small.cases) < 200
    assert sum(case.weight for case in small.cases) == pytest.approx(len(log))
    # What is kept are still the rows of the smallest hashes, so the small sample is in the large.
    large = {case.prompt for case in sample_log(log, 200, 3).cases}
    assert {case.prompt for case in small.cases} <= large


def test_languages_are_bounded():
    codes = [f"{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
    sample = sample_log([row(f"{n}", locale=code) for n, code in enumerate(codes)], 300, 0)
    assert len({s.language for s in sample.rows}) == MAX_LANGUAGES + 1
    assert sum(sample.rows.values()) == 100


@given(one=ROWS, other=ROWS)
def test_content_key_agrees_with_the_digest_of_the_case(one, other):
    cases = [
        Case(case_id="x", **dict(zip(r._fields[:9], r[:9], strict=True))) for r in (one, other)
    ]
    assert (content_key(one) == content_key(other)) == (cases[0].digest == cases[1].digest)


def test_rows_without_groups_keep_the_names_of_their_cases():
    # As the first release named them.
    assert content_key(row("a cat")).hex()[:16] == "b8a2d45920b97c73"
    grouped = [row()._replace(**{name: value}) for name, value in GROUPS.items()]
    assert len({content_key(r) for r in (row(), *grouped)}) == 4


GROUPS = {"mask": "uploads/m.png", "campaign": "summer", "repeat": 2}


def test_mask_and_groups_reach_the_case():
    asked = row(subtask="edit")._replace(upload="uploads/u.png", **GROUPS)
    case = sample_log([asked], 1, 0).cases[0]
    assert {name: getattr(case, name) for name in GROUPS} == GROUPS
    assert case.repeat_of == case.model_copy(update={"repeat": 9}).repeat_of
    assert case.digest != case.model_copy(update={"repeat": 9}).digest


def test_hostile_texts_cannot_be_mistaken_for_each_other():
    assert content_key(row("a", texts=("b', 'c",))) != content_key(row("a", texts=("b", "c")))


STRATA = st.dictionaries(
    st.tuples(st.text("abc", min_size=1, max_size=3)), st.integers(1, 1000), min_size=1, max_size=12
)


@given(rows=STRATA, count=st.integers(1, 200), data=st.data())
def test_allocation_sums_and_fits(rows, count, data):
    available = {name: data.draw(st.integers(1, n)) for name, n in rows.items()}
    shares = allocate(rows, available, count)
    assert sum(shares.values()) == min(count, sum(available.values()))
    assert all(0 <= shares[name] <= available[name] for name in rows)
    assert shares == allocate(dict(reversed(rows.items())), available, count)


@given(rows=STRATA, count=st.integers(1, 200))
def test_allocation_keeps_the_floor_when_it_fits(rows, count):
    total = sum(rows.values())
    assume(count <= total)
    floors = {name: min(_floor(n, total, count), n) for name, n in rows.items()}
    assume(sum(floors.values()) <= count)
    shares = allocate(rows, rows, count)
    for name, n in rows.items():
        assert shares[name] >= 1
        if shares[name] < n:
            assert n * count <= shares[name] * total * MAX_OVERWEIGHT


def test_allocation_is_proportional_by_largest_remainder():
    rows = {("a",): 500, ("b",): 333, ("c",): 167}
    assert allocate(rows, rows, 10) == {("a",): 5, ("b",): 3, ("c",): 2}


def test_what_one_stratum_lacks_goes_to_the_others():
    rows = {("a",): 900, ("b",): 100}
    assert allocate(rows, {("a",): 3, ("b",): 100}, 20) == {("a",): 3, ("b",): 17}


@given(count=st.integers(0, 500), stress=st.floats(0, 0.5), adversarial=st.floats(0, 0.5))
def test_split_is_whole_and_near(count, stress, adversarial):
    shares = {"production": 1 - stress - adversarial, "stress": stress, "adversarial": adversarial}
    given_ = split(count, shares)
    assert sum(given_.values()) == count
    for name, share in shares.items():
        assert abs(given_[name] - share * count) <= 1 + 1e-9


def test_split_of_one_case_goes_to_the_largest_share():
    assert split(1, {"production": 0.6, "stress": 0.3, "adversarial": 0.1})["production"] == 1
    assert split(1, {"production": 0.1, "stress": 0.8, "adversarial": 0.1})["stress"] == 1
    assert split(0, {"production": 1.0}) == {"production": 0}


def test_buckets():
    names = [text_length(("x" * n,)) for n in range(40)]
    assert names[0] == "no text"
    assert len(set(names)) == 4
    assert sum(a != b for a, b in pairwise(names)) == 3
    assert size_class(512, 512) == "square"
    assert size_class(1024, 1024) == "large square"
    assert size_class(384, 640) == "tall"


def test_coverage_of_a_known_sample():
    log = [row(f"{n}") for n in range(30)] + [row(f"{n}", locale="de") for n in range(10)]
    coverage = log_coverage(sample_log(log, 8, 0))
    assert (coverage["rows"], coverage["cases"]) == (40, 8)
    assert coverage["strata_covered"] == coverage["strata_seen"] == 2
    assert coverage["rows_in_covered_strata"] == 1.0
    language = coverage["dimensions"]["language"]
    assert list(language["shares"]) == ["en", "de"]
    assert language["shares"]["de"]["log"] == 0.25
    assert language["shares"]["de"]["weighted"] == pytest.approx(0.25)
    assert set(coverage["dimensions"]) == set(Stratum._fields)


@given(
    one=st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1), min_size=1),
    other=st.dictionaries(st.sampled_from("abcd"), st.floats(0.01, 1), min_size=1),
)
def test_total_variation_is_a_distance_between_shares(one, other):
    a, b = ({k: v / sum(d.values()) for k, v in d.items()} for d in (one, other))
    assert total_variation(a, a) == 0
    assert 0 <= total_variation(a, b) <= 1 + 1e-9
    assert total_variation(a, b) == pytest.approx(total_variation(b, a))


def test_total_variation_of_strangers_is_one():
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1.0
    assert total_variation({"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}) == 0.25


def test_a_stream_that_cannot_be_read_twice_is_enough():
    draw = random.Random(1)
    sample = sample_log((row(f"prompt {draw.random()}") for _ in range(20_000)), 10, 0)
    assert sum(sample.rows.values()) == 20_000
    assert len(sample.cases) == 10
