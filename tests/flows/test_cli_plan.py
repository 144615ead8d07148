"""``imagegate plan`` and ``imagegate simulate`` as a user meets them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flows.cli import _main
from flows.cli_plan import OPEN_CAP
from flows.figures import bar, chosen, dollars, duration, odds, parse_share, parts
from flows.plan_flags import assumed_critical, costs_of, read_policy, read_slices
from tasks.checks import health
from tasks.checks.base import Expected
from tasks.checks.counts import ANY, CheckHealth, CleanHealth, DefectHealth
from tasks.checks.decode import decode
from tasks.errors import ConfigError
from tasks.policy import Policy, SliceRule, load_policy
from tasks.verdict.checkers import Sensitivity
from tasks.verdict.planning import expect, plan_of
from tests.conftest import Command

PLAN = ("plan", "--limit", "2%", "--promote-below", "3%", "--rate", "1%", "--price", "0.04")


def a_policy(tmp_path: Path, **sections: Any) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump({"name": "mine"} | sections), encoding="utf-8")
    return str(path)


def test_a_plan_answers_in_a_table_bars_and_a_sentence(light_imagegate: Command) -> None:
    done = light_imagegate(*PLAN)
    assert done.code == 0, done.err
    shown = light_imagegate(*PLAN, "--json").json
    row = shown["expected"]
    said = (
        f"At a true failure rate of 1 % expect {row['images']:,.0f} images, "
        f"${row['images'] * 0.04:.2f} (${row['images'] * 0.08:.2f} with the baseline) and "
        f"{row['images'] * 2 / 60:.0f} min"
    )
    assert said in done.out
    assert shown["sentences"][0].startswith(said)
    lines = done.out.splitlines()
    assert any(line.startswith("> 1 %") and f"{row['images']:,.0f}" in line for line in lines)
    for rate in shown["rates"]:
        assert any(line.lstrip("> ").startswith(chosen(rate["rate"])) for line in lines)
    assert all(mark in done.out for mark in "█░▓")
    # Nothing was written, nothing was started.
    assert not light_imagegate.home.exists()


def test_the_rows_are_whole_and_cost_what_their_images_cost(light_imagegate: Command) -> None:
    shown = light_imagegate(*PLAN, "--price-baseline", "0.01", "--json").json
    assert (shown["limit"], shown["promote_below"], shown["cases"]) == (0.02, 0.03, OPEN_CAP)
    assert shown["alpha_failure_rate"] == shown["alpha"] / 2
    rates = [row["rate"] for row in shown["rates"]]
    assert rates == sorted(rates)
    assert {0.01, 0.02, 0.03} <= {*rates}
    for row in shown["rates"]:
        assert row["PROMOTE"] + row["ROLLBACK"] + row["HOLD"] == pytest.approx(1)
        assert row["cost_usd"] == pytest.approx(0.04 * row["images"])
        assert row["cost_with_baseline_usd"] == pytest.approx(0.05 * row["images"])
    assert shown["with_default_cap"]["cases"] < OPEN_CAP
    assert shown["with_default_cap"]["HOLD"] > shown["expected"]["HOLD"]
    assert all(0 <= one["beta_left"] <= shown["beta"] for one in shown["retests"])


def test_a_policy_gives_the_rules_and_flags_overrule_it(
    light_imagegate: Command, tmp_path: Path
) -> None:
    policy = a_policy(
        tmp_path,
        failure={"limit": 0.01, "promote_below": 0.02, "alpha": 0.1, "beta": 0.02},
        sampling={"cases": 900, "shard_size": 30},
    )
    shown = light_imagegate("plan", "--policy", policy, "--json").json
    assert (shown["limit"], shown["promote_below"], shown["beta"]) == (0.01, 0.02, 0.02)
    assert (shown["cases"], shown["look_every"], shown["expected"]) == (900, 30, None)
    assert shown["policy"] == policy
    assert shown["log_e_fail_at"] == pytest.approx(-math.log(0.05))
    over = light_imagegate(
        *("plan", "--policy", policy, "--n-max", "400", "--mode", "calibrated", "--beta", "5 %"),
        *("--look-every", "1", "--seconds-per-image", "3", "--perfect-checks", "--json"),
    ).json
    assert (over["cases"], over["look_every"], over["beta"]) == (400, 1, 0.05)
    assert over["log_e_pass_at"] < -math.log(0.05)
    assert over["seconds_per_image"] == 3
    # A calibrated run that went to its end leaves nothing to a second one, with perfect checks.
    assert {one["beta_left"] for one in over["retests"]} == {0.0}


def a_record(tmp_path: Path, found: int, alarms: int, version: str | None = None) -> str:
    """A record of two checks, as a gate on this machine would read it."""
    checks = [
        CheckHealth(
            name,
            CleanHealth(name, 0, 1_000),
            (DefectHealth("kind", name, 1.0, found, 1_000),),
        )
        for name in ("geometry.size", "decode.file")
    ]
    flagged = CheckHealth(ANY, CleanHealth(ANY, alarms, 1_000))
    path = tmp_path / "planted.json"
    record = health.HealthRecord(
        version or health.version(), health.second_reader(), 1_000, 1_000, (*checks, flagged)
    )
    health.write(path, record)
    return str(path)


@pytest.mark.parametrize("rules", [{}, {"sensitivity": "worst", "false_alarms": "allow"}])
def test_both_commands_reckon_with_the_record_that_a_gate_would_use(
    light_imagegate: Command, tmp_path: Path, rules: dict[str, str]
) -> None:
    policy = a_policy(tmp_path, checks=rules, sampling={"cases": 500, "shard_size": 20})
    env = {"IMAGEGATE_PLANTED_FILE": a_record(tmp_path, 950, 5)}
    checks = tuple(Sensitivity(name, 950, 1_000, 0, 1_000) for name in ("a", "b"))
    alarms = Sensitivity(ANY, 0, 0, 5, 1_000)
    wanted = plan_of(load_policy(Path(policy)), 500, 20, checks=checks, alarms=alarms)
    arguments = ("plan", "--policy", policy, "--rate", "1%")
    shown, done = (
        light_imagegate(*arguments, "--json", **env).json,
        light_imagegate(*arguments, **env),
    )
    assert done.code == 0, done.err
    assert shown["log_e_pass_at"] == wanted.log_pass
    assert shown["expected"]["images"] == pytest.approx(expect(wanted, 0.01).images)
    told = shown["checks"]
    assert told["pass_tested_below"] == wanted.promote_below < 0.03
    assert told["fail_tested_above"] == wanted.limit
    assert (told["sensitivity"], told["false_alarms"]) == (0.95, 0.005)
    assert told["beta_for_sensitivity"] + told["pass_risk"] == pytest.approx(0.05)
    assert (told["perfect"], told["missing"], told["blind"]) == (False, None, [])
    sentence = next(s for s in shown["sentences"] if s.startswith("The checks find 95 %"))
    assert f"PASS is tested against {chosen(wanted.promote_below)} instead of 3 %" in sentence
    assert "of a build that truly fails 1 % they flag 1.45 %" in sentence
    assert sentence in done.out
    perfect = light_imagegate(*arguments, "--perfect-checks", "--json", **env).json
    assert perfect["checks"]["perfect"]
    assert perfect["checks"]["pass_tested_below"] == 0.03
    assert perfect["log_e_pass_at"] == pytest.approx(-math.log(0.05))
    assert perfect["expected"]["images"] < shown["expected"]["images"]
    assert any("perfect checks, as asked" in s for s in perfect["sentences"])
    played = light_imagegate(
        *("simulate", "--policy", policy, "--rate", "1%", "--runs", "2000", "--json"), **env
    ).json
    assert played["checks"] == told
    alone = played["verdicts"]["PROMOTE"]
    assert alone["failure_rate_alone"] == pytest.approx(expect(wanted, 0.01).promote)
    assert abs(alone["share"] - alone["failure_rate_alone"]) < 0.06
    assert sentence in played["sentences"]


def test_without_a_record_of_these_checks_they_are_perfect_and_that_is_said(
    light_imagegate: Command, tmp_path: Path
) -> None:
    arguments = ("plan", "--rate", "1%", "--json")
    perfect = light_imagegate(*arguments, "--perfect-checks").json
    for file, words in (
        (str(tmp_path / "nowhere.json"), "is missing"),
        (a_record(tmp_path, 950, 5, version="sha256:other"), "is of other versions"),
    ):
        shown = light_imagegate(*arguments, IMAGEGATE_PLANTED_FILE=file).json
        assert shown["rates"] == perfect["rates"]
        assert words in shown["checks"]["missing"]
        [said] = [s for s in shown["sentences"] if "Reckoned with perfect checks" in s]
        assert words in said
        assert "a real gate needs more images" in said


def test_a_blind_check_on_record_is_named_and_promises_nothing(
    light_imagegate: Command, tmp_path: Path
) -> None:
    env = {"IMAGEGATE_PLANTED_FILE": a_record(tmp_path, 300, 0)}
    shown = light_imagegate("plan", "--rate", "0.1%", "--cases", "400", "--json", **env).json
    assert {row["PROMOTE"] for row in shown["rates"]} == {0.0}
    assert shown["checks"]["pass_tested_below"] is None
    assert "geometry.size" in shown["checks"]["blind"]
    assert any("never promotes" in s and "geometry.size" in s for s in shown["sentences"])
    assert shown["log_e_pass_at"] is None
    done = light_imagegate("simulate", "--rate", "0.1%", "--runs", "200", "--json", **env).json
    assert done["verdicts"]["PROMOTE"]["share"] == 0


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_and_bars_fit_the_terminal(light_imagegate: Command, columns: int) -> None:
    for arguments in (
        (*PLAN, "--price", "12"),
        ("simulate", "--rate", "2%", "--slices", "locale=th@5%:15%,locale=de", "--runs", "200"),
    ):
        done = light_imagegate(*arguments, COLUMNS=str(columns))
        assert done.code == 0, done.err
        drawn = [line for line in done.out.splitlines() if line.count("  ") or "█" in line]
        assert max(len(line) for line in drawn) <= columns
        assert not any("…" in line for line in drawn)


def test_neither_command_loads_prefect_or_great_expectations(light_imagegate: Command) -> None:
    for arguments in (PLAN, ("simulate", "--rate", "1%", "--runs", "200")):
        done = light_imagegate(*arguments, PYTHONPROFILEIMPORTTIME="1")
        assert done.code == 0
        loaded = {
            line.rpartition("|")[2].strip().partition(".")[0] for line in done.err.splitlines()
        }
        assert "numpy" in loaded
        # The record is of a version of the checks; asking which one loads what they import.
        assert not loaded & {"prefect", "great_expectations", "pandas", "onnxruntime"}
        quick = light_imagegate(*arguments, "--perfect-checks", PYTHONPROFILEIMPORTTIME="1")
        assert quick.code == 0
        assert "cv2" not in quick.err


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_pictures_are_drawn(light_imagegate: Command, tmp_path: Path, kind: str) -> None:
    for name, arguments in (
        ("plan", PLAN),
        ("simulate", ("simulate", "--rate", "1%", "--runs", "300")),
    ):
        target = tmp_path / "new" / f"{name}.{kind}"
        done = light_imagegate(*arguments, "--plot", str(target))
        assert done.code == 0, done.err
        assert str(target) in done.out
        if kind == "svg":
            root = ET.fromstring(target.read_text(encoding="utf-8"))  # noqa: S314 - our own
            words = " ".join(node.text or "" for node in root.iter())
            assert all(word in words for word in ("PROMOTE", "HOLD", "ROLLBACK", "images"))
            assert words.isascii()
        else:
            picture = decode(target.read_bytes(), Expected()).picture
            assert picture is not None
            assert len(np.unique(picture.rgb.reshape(-1, 3), axis=0)) > 50


def test_a_simulation_shows_shares_with_intervals_and_who_was_caught(
    light_imagegate: Command,
) -> None:
    arguments = ("simulate", "--rate", "0.5%", "--slices", "locale=th@10%:40%", "--runs", "500")
    done, shown = light_imagegate(*arguments), light_imagegate(*arguments, "--json").json
    assert done.code == 0, done.err
    verdicts = shown["verdicts"]
    assert sum(v["share"] for v in verdicts.values()) == pytest.approx(1)
    for name, one in verdicts.items():
        assert one["lower"] <= one["share"] <= one["upper"]
        assert name in done.out
    assert sum(v["failure_rate_alone"] for v in verdicts.values()) == pytest.approx(1)
    thai = shown["slices"][0]
    assert (thai["name"], thai["judged"]) == ("locale=th", True)
    assert thai["rollbacks"] > 0.5
    assert shown["rate_over_all"] == pytest.approx(0.9 * 0.005 + 0.1 * 0.4)
    assert shown["images"]["p10"] <= shown["images"]["p50"] <= shown["images"]["p90"]
    assert shown["cost_usd"] == pytest.approx(0.04 * shown["images"]["mean"])
    assert "locale=th" in done.out
    assert all(sentence in done.out for sentence in shown["sentences"])
    # The same seed, the same runs.
    assert light_imagegate(*arguments, "--json").json == shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("plan", "--limit", "2"), ("--limit", "'2'", "2%?", "0.02")),
        (("plan", "--limit", "0%"), ("--limit", "above 0 %")),
        (("plan", "--limit", "4%", "--promote-below", "3%"), ("--promote-below", "4 %", "3 %")),
        (("plan", "--rate", "nan"), ("--rate", "'nan'", "0 %")),
        (("plan", "--alpha", "60%"), ("alpha", "0.5")),
        (("plan", "--mode", "fixed"), ("mode", "anytime", "calibrated")),
        (("plan", "--price", "nan"), ("--price", "0 or more")),
        (("plan", "--price", "-1"), ("--price", "0 or more")),
        (("plan", "--per-minute", "0"), ("--per-minute", "above 0")),
        (("plan", "--per-minute", "5", "--seconds-per-image", "1"), ("either", "not both")),
        (("plan", "--cases", "0"), ("--cases", "1")),
        (("plan", "--policy", "nowhere.yaml"), ("nowhere.yaml", "no such file")),
        (("plan", "--plot", "p.gif"), ("p.gif", ".svg or .png")),
        (("simulate",), ("--rate",)),
        (("simulate", "--rate", "x"), ("--rate", "'x'")),
        (("simulate", "--rate", "1%", "--slices", "a=b@:"), ("share of 'a=b'", "2%")),
        (("simulate", "--rate", "1%", "--slices", "a=b@90%,a=c@20%"), ("'a'", "sum to 1.1")),
        (("simulate", "--rate", "1%", "--slices", "a=b@5%,a=b@5%"), ("a=b", "twice")),
        (("simulate", "--rate", "1%", "--slices", "a=b@100%,a=c"), ("a=c", "no share")),
        (("simulate", "--rate", "1%", "--slices", "0"), ("1 to 200", "0")),
        (("simulate", "--rate", "1%", "--slices", "@5%"), ("locale=th@5%:15%", "'@5%'")),
        (("simulate", "--rate", "1%", "--runs", "0"), ("--runs", "1")),
    ],
)
def test_wrong_input_is_exit_2_with_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert _main(list(arguments)) == 2
    done = capsys.readouterr()
    assert done.out == ""
    flat = " ".join(done.err.replace("│", " ").split())
    for word in words:
        assert word in flat
    assert "Traceback" not in done.err


def test_the_help_says_what_is_counted(light_imagegate: Command) -> None:
    for command, words in (
        ("plan", ("--rate", "--price-baseline", "HOLD", "half of it", "Examples")),
        ("simulate", ("locale=th@5%:15%", "--seed", "imagegate simulate --rate 1%")),
    ):
        done = light_imagegate(command, "--help", COLUMNS="120")
        assert done.code == 0
        flat = " ".join(done.out.replace("│", " ").split())
        for word in words:
            assert word in flat
    assert "simulate" in light_imagegate("--help").out


@given(st.integers(1, 9_999))
def test_per_cent_and_share_read_alike(hundredths: int) -> None:
    percent = f"{hundredths / 100:.2f}"
    texts = (f"{percent}%", f" {percent} % ", f"{hundredths / 10_000:.6f}")
    values = {round(parse_share(text, "--x"), 12) for text in texts}
    assert values == {round(hundredths / 10_000, 12)}


@given(st.text(max_size=12))
def test_any_other_text_is_refused_or_a_share(text: str) -> None:
    try:
        value = parse_share(text, "--x", zero=True, one=True)
    except ConfigError as error:
        value, said = 0.0, str(error)
    else:
        said = "--x"
    assert 0 <= value <= 1
    assert "--x" in said
    assert len(said) < 300


@pytest.mark.parametrize(
    "text", ["2,5%", "2%%", "٢%", "-1%", "1e400", "inf", "0x1p-3", "", "%", "1_0%"]
)
def test_odd_numbers_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="found"):
        parse_share(text, "--limit", zero=True)


def test_slices_without_a_share_get_one() -> None:
    found = {s.name: (s.share, s.rate) for s in read_slices(["locale=th:15%, locale=de@30%", "x"])}
    assert found == {"locale=th": (0.1, 0.15), "locale=de": (0.3, None), "x": (0.1, None)}
    many = read_slices([",".join(f"locale=l{n}" for n in range(20))])
    assert {round(s.share, 12) for s in many} == {0.05}
    assert [s.share for s in read_slices(["4"])] == [0.25] * 4
    assert read_slices([]) == []


def test_critical_slices_that_nobody_named_get_a_share_where_there_is_room() -> None:
    policy = Policy(slices=SliceRule(critical=("subtask=typography",)))
    [one] = assumed_critical([], policy)
    assert (one.name, one.share, one.rate) == ("subtask=typography", 0.2, None)
    assert assumed_critical(read_slices(["subtask=typography@40%"]), policy) == []
    [less] = assumed_critical(read_slices(["subtask=fast@90%"]), policy)
    assert less.share == pytest.approx(0.1)
    assert assumed_critical(read_slices(["subtask=fast@100%"]), policy) == []


def test_a_higher_limit_alone_asks_for_the_strict_rule() -> None:
    rule = read_policy(None, limit="5%").failure
    assert (rule.limit, rule.promote_below) == (0.05, 0.05)
    assert read_policy(None, limit="1%").failure.promote_below == 0.03


def test_costs_count_the_baseline_unless_it_is_cached() -> None:
    assert costs_of(0.04, None).both(100) == pytest.approx(8)
    assert costs_of(0.04, 0.0).both(100) == pytest.approx(4)
    assert costs_of(0.04, None, per_minute=60).time(90) == pytest.approx(90)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3).filter(lambda s: sum(s) > 0.01))
def test_a_bar_of_parts_is_full_and_shows_whoever_matters(shares: list[float]) -> None:
    whole = [share / sum(shares) for share in shares]
    given_width = parts(whole, 30)
    assert sum(given_width) == 30
    assert all(count > 0 for count, share in zip(given_width, whole, strict=True) if share >= 0.005)
    assert all(abs(c - 30 * s) < 2.5 for c, s in zip(given_width, whole, strict=True))


def test_figures_are_no_more_certain_than_they_are() -> None:
    assert [odds(x) for x in (0, 1e-5, 0.004, 0.054, 0.28, 0.938, 0.9999, 1)] == [
        "0 %", "<0.1 %", "0.4 %", "5.4 %", "28 %", "93.8 %", ">99.9 %", "100 %",
    ]  # fmt: skip
    assert [dollars(x) for x in (0, 16.8, 999.994, 12_345.6)] == [
        "$0.00", "$16.80", "$999.99", "$12,346",
    ]  # fmt: skip
    assert [duration(x) for x in (5, 89, 840, 6_840, 90_000)] == [
        "5 s", "89 s", "14 min", "1.9 h", "25 h",
    ]  # fmt: skip
    assert [bar(x, 8, 1) for x in (0, 0.001, 4, 8, 20)] == ["", "▏", "▌", "█", "█"]
