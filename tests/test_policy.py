from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.policy import MEASURES, Limit, Policy, load_policy, parse_strict, read_yaml
from tasks.settings import DEPLOYMENTS


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def call(text: str | bytes) -> Policy:
        path = tmp_path / "policy.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_policy(path)

    return call


@pytest.mark.parametrize("text", ["", "# nothing but a remark\n", "{}", "null"])
def test_an_empty_policy_is_refused(load: Any, text: str) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        load(text)


def test_what_a_policy_leaves_out_is_the_default(load: Any) -> None:
    assert load("name: default").failure == Policy().failure
    assert load("name: default").failure.limit == 0.02


def test_a_critical_slice_that_no_case_can_be_in_is_refused(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"typografy.*typography"):
        load("slices: {critical: ['subtask=typografy']}")


def test_shipped_policies_load() -> None:
    files = sorted((DEPLOYMENTS / "policies").glob("*.yaml"))
    assert files
    for path in files:
        policy = load_policy(path)
        assert {limit.measure for limit in policy.limits} <= MEASURES.keys()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nmae: x", "field 'nmae': unknown field; check the spelling"),
        ("failure: {limti: 0.1}", "field 'failure.limti': unknown field"),
        ("failure: {limit: 2}", "field 'failure.limit': Input should be less than 1, got 2"),
        ("failure: {limit: .nan}", "field 'failure.limit'"),
        ("failure: {limit: .inf}", "field 'failure.limit'"),
        ("failure: {limit: 0.05, promote_below: 0.01}", "must not be below limit"),
        ("failure: {origins: []}", "must name at least one"),
        ("failure: {origins: [staging]}", "field 'failure.origins.0'"),
        ("limits: [{measure: beauty, max: 1}]", "'beauty' is not measured by the gate (known:"),
        ("limits: [{measure: images}]", "needs max, min or both"),
        ("limits: [{measure: images, min: 5, max: 1}]", "min 5.0 is above max 1.0"),
        ("limits: [{measure: images, min: 5, on_breach: shrug}]", "field 'limits.0.on_breach'"),
        ("budget: {run_usd: 0}", "field 'budget.run_usd'"),
        ("budget: {run_usd: -3}", "greater than 0, got -3"),
        ("sampling: {stress: 0.8, adversarial: 0.3}", "must not exceed 1"),
        ("sampling: {cases: 0}", "field 'sampling.cases'"),
        ("freeze: {days: 400}", "field 'freeze.days'"),
        ("slices: {critical: [thai]}", "must read dimension=value"),
        ("slices: {critical: [colour=red]}", "with a dimension of"),
        ("schema_version: 2", "field 'schema_version'"),
        ("[1, 2]", "expected a mapping of fields, got list"),
        ("just words", "expected a mapping of fields, got str"),
        ("a: [1", "line 1: not valid YAML"),
        ("a: 1\n\tb: 2", "line 2: not valid YAML"),
        ("!!python/object/apply:os.system [id]", "not valid YAML"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("a: b: c", "not valid YAML"),
        ("a: 2026-13-45", "not valid YAML: month must be in 1..12"),
        ("[" * 5000, "not valid YAML: nested too deeply"),
        ("? [a]\n: b", "not valid YAML: found unhashable key"),
    ],
)
def test_a_wrong_policy_says_file_field_and_what_is_allowed(
    load: Any, text: str | bytes, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "policy.yaml" in str(caught.value)
    assert problem in str(caught.value)


def test_every_problem_is_told_at_once(load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load("nmae: x\nbudget: {run_usd: 0}\nfailure: {alpha: 7}")
    assert len(str(caught.value).splitlines()) == 3


def test_a_doubled_key_is_refused_not_overruled(load: Any) -> None:
    with pytest.raises(ConfigError, match=r"line 2.*'budget'.*twice"):
        load("budget: {run_usd: 5}\nbudget: {run_usd: 500}")
    with pytest.raises(ConfigError, match="twice"):
        load("budget: {run_usd: 5, run_usd: 500}")


def test_merged_keys_of_yaml_may_be_overruled(load: Any) -> None:
    policy = load("budget: {<<: {run_usd: 5, day_usd: 50}, run_usd: 7}")
    assert (policy.budget.run_usd, policy.budget.day_usd) == (7, 50)


def test_a_missing_file_and_a_folder_are_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_a_yaml_bomb_does_not_blow_up_the_message(load: Any) -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8)
    )
    with pytest.raises(ConfigError) as caught:
        load(bomb)
    assert len(str(caught.value)) < 5000


def test_the_digest_changes_with_every_rule_and_with_nothing_else(load: Any) -> None:
    base = load("budget: {run_usd: 5}")
    assert base.digest == load("# remark\nbudget:\n  run_usd: 5.0\n").digest
    variants = [
        "budget: {run_usd: 6}",
        "budget: {run_usd: 5}\nfailure: {limit: 0.01}",
        "budget: {run_usd: 5}\nlimits: [{measure: images, min: 1}]",
        "budget: {run_usd: 5}\nslices: {critical: [locale=th]}",
        "budget: {run_usd: 5}\nname: other",
        "budget: {run_usd: 5}\nsampling: {seed: 1}",
    ]
    assert len({base.digest, *(load(text).digest for text in variants)}) == len(variants) + 1


def test_a_policy_does_not_change_after_its_digest(load: Any) -> None:
    policy = load("name: default")
    with pytest.raises(ValidationError):
        policy.name = "other"


@given(st.sampled_from(sorted(MEASURES)), st.floats(allow_nan=True, allow_infinity=True))
def test_a_limit_is_a_number_that_can_be_compared(measure: str, value: float) -> None:
    try:
        limit = Limit(measure=measure, max=value)
    except ValidationError:
        assert not math.isfinite(value)
    else:
        assert limit.max == value
        assert math.isfinite(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*Policy.model_fields, "x"]), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_value_is_a_policy_or_a_config_error(value: Any) -> None:
    try:
        policy = parse_strict(Policy, value, "policy.yaml")
    except ConfigError as error:
        said = str(error)
    else:
        said = "policy.yaml"
        assert Policy.model_validate(policy.model_dump()) == policy
    assert said.startswith("policy.yaml")


def test_what_is_written_as_yaml_comes_back(load: Any) -> None:
    policy = Policy(limits=(Limit(measure="images", min=100, on_breach="warn"),))
    text = yaml.safe_dump(policy.model_dump(mode="json"))
    assert load(text) == policy
