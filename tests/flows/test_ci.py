"""The reports for CI around a gate: never green by accident, and never in the verdict's way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from junitparser import JUnitXml

from flows import ci
from flows.ci import open_reports, redacted
from flows.request import GateRequest, GateResult
from tasks.errors import ConfigError, StateError
from tasks.records import Accounts, Rate
from tasks.settings import Settings, load_settings

SECRET = "sk-0123456789-secret"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"IMAGEGATE_HOME": str(tmp_path / "home"), "PICTURE_API_KEY": SECRET})


def the_error(file: Path) -> Any:
    (case,) = [case for suite in JUnitXml.fromfile(str(file)) for case in suite]
    (result,) = case.result
    return result


def a_result(evidence: Path) -> GateResult:
    rate = Rate(estimate=0.0, lower=0.0, upper=0.01, n=300, failures=0)
    return GateResult(
        run_id="r",
        verdict="PROMOTE",
        reasons=("good",),
        warnings=(),
        product="shop",
        candidate="new",
        baseline="old",
        production="new",
        images=300,
        incomplete=False,
        failure_rate=rate,
        baseline_failure_rate=rate,
        cost_per_1k_usd=1.0,
        effective_cost_per_1k_usd=1.0,
        baseline_effective_cost_per_1k_usd=1.0,
        spend_usd=1.0,
        latency_s={"p50": 1.0, "p95": 1.0, "p99": 1.0},
        accounts=Accounts(defect=0, refused=0, undelivered=0, unmeasured=0),
        slices=(),
        actions=(),
        evidence=str(evidence),
        report=str(evidence / "report.html"),
        seconds=1.0,
    )


def test_a_killed_gate_leaves_an_error_behind(settings: Settings, tmp_path: Path) -> None:
    junit, summary, copy = tmp_path / "out" / "j.xml", tmp_path / "s.md", tmp_path / "copy.xml"
    junit.parent.mkdir()
    junit.write_text("<testsuites tests='1' failures='0' errors='0'/>", encoding="utf-8")

    def gate() -> None:
        with open_reports(settings, junit=str(junit), summary=str(summary)):
            # What SIGKILL would leave is what lies there now.
            shutil.copy(junit, copy)
            assert "No verdict: Unfinished" in summary.read_text(encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gate()
    assert the_error(copy).type == "Unfinished"
    assert the_error(junit).type == "KeyboardInterrupt"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StateError(f"state.db of {SECRET} is locked"), "is locked"),
        (RuntimeError(f"no {SECRET}"), "imagegate itself broke: RuntimeError"),
    ],
)
def test_what_breaks_is_told_without_secrets(
    settings: Settings, tmp_path: Path, error: Exception, told: str
) -> None:
    junit, summary = tmp_path / "j.xml", tmp_path / "s.md"
    with (
        pytest.raises(type(error)),
        open_reports(settings, junit=str(junit), summary=str(summary)),
    ):
        raise error
    assert told in the_error(junit).message
    for file in (junit, summary):
        assert SECRET not in file.read_text(encoding="utf-8")


def test_a_report_that_cannot_be_made_is_red_and_changes_no_verdict(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "j.xml"
    with open_reports(settings, junit=str(junit), summary=None) as tell:
        tell(GateRequest(), a_result(tmp_path / "gone"))
    assert "PROMOTE, but this report of it cannot be made" in the_error(junit).message
    assert "warning:" in capsys.readouterr().err


def test_a_report_that_cannot_be_kept_is_said_and_changes_no_verdict(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    with open_reports(settings, junit=str(folder / "j.xml"), summary=None) as tell:
        shutil.rmtree(folder)
        folder.write_text("a file in the way", encoding="utf-8")
        tell(GateRequest(), a_result(tmp_path / "gone"))
    assert "not written" in capsys.readouterr().err


def test_github_gets_its_summary_and_commands_only_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = tmp_path / "step.md"
    step.write_text("of a command before\n", encoding="utf-8")
    settings = load_settings(
        {
            "IMAGEGATE_HOME": str(tmp_path),
            "GITHUB_ACTIONS": "true",
            "GITHUB_STEP_SUMMARY": str(step),
        }
    )
    with pytest.raises(ConfigError), open_reports(settings, junit=None, summary=None):
        raise ConfigError("mixes/\n::error::owned: no such file")
    ci._MUTED.end()
    *lines, end = capsys.readouterr().err.splitlines()
    first, again = lines[0].split("::")[2], lines[-1].split("::")[2]
    assert lines[1] == f"::{first}::"
    assert lines[2] == (
        "::error title=imagegate%3A no verdict (ConfigError)::mixes/%0A::error::owned: no such file"
    )
    assert len(lines) == 4
    assert first != again
    assert end == f"::{again}::"
    text = step.read_text(encoding="utf-8")
    assert text.startswith("of a command before\n## ❗ No verdict")


def test_nothing_is_said_where_there_is_no_ci(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError), open_reports(settings, junit=None, summary=None):
        raise ConfigError("wrong")
    assert capsys.readouterr() == ("", "")
    assert not settings.home.exists()


def test_a_password_of_the_database_is_a_secret(tmp_path: Path) -> None:
    url = "postgresql+psycopg://gate:hunter2hunter2@db/gate"
    settings = load_settings({"IMAGEGATE_HOME": str(tmp_path), "IMAGEGATE_STATE_URL": url})
    assert "hunter2" not in redacted(f"cannot connect to {url}", settings)
