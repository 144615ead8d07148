import json
from collections import Counter

import pytest

from tasks.errors import ConfigError, DataError
from tasks.inputs.draw import draw_sample
from tasks.policy import Sampling
from tasks.settings import DATASETS

DEFAULT = Sampling()


def draw(inputs=None, sampling=DEFAULT, cases=None, seed=1):
    return draw_sample(inputs, sampling, cases, seed, DATASETS)[:2]


def test_the_default_mixture():
    cases, coverage = draw()
    assert len(cases) == 240
    assert coverage["drawn"] == {"production": 144, "stress": 72, "adversarial": 24}
    assert Counter(case.origin for case in cases) == coverage["drawn"]
    assert len({case.case_id for case in cases}) == 240
    production = [case for case in cases if case.origin == "production"]
    assert sum(case.weight for case in production) == pytest.approx(coverage["log"]["rows"])
    assert max(case.weight for case in production) <= 1.25 * 6000 / 144
    assert coverage["source"] == "datasets/production_log.parquet"
    assert coverage["log"]["dimensions"]["subtask"]["weighted_total_variation"] < 1e-9
    assert json.loads(json.dumps(coverage, allow_nan=False)) == coverage


def test_the_same_seed_gives_the_same_cases_in_the_same_order():
    assert draw(cases=50) == draw(cases=50)
    assert draw(cases=50, seed=2)[0] != draw(cases=50)[0]


def test_every_shard_is_a_mixture():
    cases, _ = draw()
    for start in range(0, 192, 64):
        origins = Counter(case.origin for case in cases[start : start + 64])
        assert origins["production"] > origins["stress"] > origins["adversarial"] > 0


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100])
def test_the_number_of_cases_is_the_total(count):
    cases, coverage = draw(cases=count)
    assert len(cases) == coverage["asked"] == count
    assert cases[0].origin == "production" or count > 1


def test_no_production_share_reads_no_log(tmp_path):
    bad = tmp_path / "log.csv"
    bad.write_text("colour\nred\n", encoding="utf-8")
    cases, coverage = draw(str(bad), Sampling(stress=0.5, adversarial=0.5), 10)
    assert {case.origin for case in cases} == {"stress", "adversarial"}
    assert coverage["log"] is None
    assert "no production input" in coverage["notes"][0]


def test_a_short_log_gives_all_it_has_and_says_so(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("a cat\na dog\na cat\n", encoding="utf-8")
    cases, coverage = draw(str(log), cases=20)
    assert coverage["drawn"] == {"production": 2, "stress": 6, "adversarial": 2}
    assert len(cases) == 10
    assert "holds only 2 different inputs in 3 rows" in coverage["notes"][0]
    assert {c.prompt: c.weight for c in cases if c.origin == "production"} == {
        "a cat": 1.5,
        "a dog": 1.5,
    }


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_log_is_refused(tmp_path, text):
    log = tmp_path / "log.txt"
    log.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="empty"):
        draw(str(log))


def test_a_header_without_rows_is_an_empty_log(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("prompt\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="empty"):
        draw(str(log))


def test_a_bad_row_anywhere_fails_the_draw(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("prompt,brand\n" + "a cat,\n" * 50 + "a dog,nobody\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 52, field 'brand'.*northwind"):
        draw(str(log))


def test_no_cases_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        draw(cases=0)


def test_groups_that_are_too_small_to_judge_are_named(tmp_path):
    rows = [f"prompt {n},summer," for n in range(3)] + ["one,autumn,", "again,,2"]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["prompt,campaign,repeats", *rows]))
    only = Sampling(stress=0, adversarial=0)
    drawn = draw_sample(str(log), only, 20, 1, DATASETS)
    assert sorted(c.campaign or "" for c in drawn.cases) == ["", "", "autumn", *["summer"] * 3]
    assert len({c.digest for c in drawn.cases}) == 6
    few = [note for note in drawn.coverage["notes"] if "belong together" in note]
    assert few == [
        "1 of 2 campaigns have fewer than 3 cases in the sample, e.g. 'autumn': whether their "
        "pictures belong together is not judged",
        "1 of 1 prompts asked for repeatedly have fewer than 3 cases in the sample: whether their "
        "pictures belong together is not judged",
    ]
