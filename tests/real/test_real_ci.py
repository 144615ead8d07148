"""The steps of the GitHub action, run by bash as a runner does, on a build that must fail.

Needs bash. One gate for all tests of this module; a collector takes its spans meanwhile.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from junitparser import Error, Failure, JUnitXml

import tests.test_metrics_export as metrics_tests
from tasks.settings import load_settings
from tasks.state import State
from tests.conftest import ROOT, Command, clean_environment
from tests.fakes.otlp_server import Collector

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash, as a runner has it"),
]

ACTION = ROOT / "deployments" / "github" / "action.yml"
BROKEN = "deployments/mixes/candidate-broken.yaml"
#: What a mix can be called so that a script that pastes it would obey.
HOSTILE = "$(touch owned) `touch owned`; touch owned \"'${{ github.token }}"


@dataclass
class Runner:
    """A runner of GitHub: its files, its variables, and the steps of the action."""

    root: Path
    env: dict[str, str]
    given: dict[str, str]
    out: str = ""
    err: str = ""
    code: int | None = None
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def report(self) -> Path:
        return self.root / "temp" / "imagegate-report"

    @property
    def summary(self) -> str:
        return (self.root / "summary.md").read_text(encoding="utf-8")

    def run(self) -> Runner:
        """Run every step that is a script, until one fails, and the steps that always run."""
        action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        inputs = {name: str(spec["default"]) for name, spec in action["inputs"].items()}
        inputs |= self.given
        (self.root / "temp").mkdir(parents=True)
        for step in action["runs"]["steps"]:
            if "uses" in step or self.code:
                continue
            self._script(step, inputs)
        self.outputs = dict(
            line.partition("=")[::2]
            for line in (self.root / "output").read_text(encoding="utf-8").splitlines()
        )
        return self

    def _script(self, step: dict[str, Any], inputs: dict[str, str]) -> None:
        assert step["shell"] == "bash"
        script = self.root / "step.sh"
        script.write_text(step["run"], encoding="utf-8")

        def filled(text: str) -> str:
            return re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda m: inputs[m[1]], text)

        github = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "GITHUB_STEP_SUMMARY": str(self.root / "summary.md"),
            "GITHUB_OUTPUT": str(self.root / "output"),
            "GITHUB_ENV": str(self.root / "env"),
            "RUNNER_TEMP": str(self.root / "temp"),
        }
        done = subprocess.run(
            # As the runner's documentation gives the command of `shell: bash`.
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
            env=self.env | github | {k: filled(v) for k, v in step.get("env", {}).items()},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.out += done.stdout
        self.err += done.stderr
        self.code = done.returncode


def commands_of(output: str) -> tuple[list[str], int]:
    """Return the commands that GitHub's runner would obey, and how many lines it was kept from."""
    obeyed, kept, token = [], 0, None
    for line in output.splitlines():
        text = line.strip()
        if token is not None:
            if text == f"::{token}::":
                token = None
            else:
                kept += 1
            continue
        if text.startswith("::stop-commands::"):
            token = text.removeprefix("::stop-commands::")
            assert re.fullmatch(r"[0-9a-f]{32}", token)
        elif text.startswith("::") or "##[" in text:
            obeyed.append(text)
    assert token is None, "commands stay stopped for the rest of the step"
    return obeyed, kept


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as opened:
        yield opened


@pytest.fixture(scope="module")
def failed(
    tmp_path_factory: pytest.TempPathFactory,
    prefect_home: Path,
    prefect_server: str,
    collector: Collector,
) -> Runner:
    root = tmp_path_factory.mktemp("runner")
    policy = root / "strict.yaml"
    policy.write_text(
        yaml.safe_dump(
            {
                "schema_version": 1,
                "name": "strict",
                "failure": {"limit": 0.005, "promote_below": 0.01, "alpha": 0.2},
                "sampling": {"shard_size": 9, "stop_early": False},
            }
        ),
        encoding="utf-8",
    )
    env = clean_environment() | {
        "IMAGEGATE_HOME": str(root / "home"),
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_API_URL": prefect_server,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_SERVICE_NAME": "gate-under-test",
    }
    given = {
        "candidate": BROKEN,
        "policy": str(policy),
        "cases": "36",
        "budget-usd": "20",
        "python": sys.executable,
    }
    return Runner(root, env, given).run()


def test_the_build_fails_and_the_outputs_say_why(failed: Runner) -> None:
    assert failed.code == 1, failed.err
    assert failed.outputs["verdict"] == "ROLLBACK"
    assert failed.outputs["exit-code"] == "1"
    assert failed.outputs["report"] == str(failed.report)
    result = json.loads((failed.report / "result.json").read_text(encoding="utf-8"))
    assert failed.outputs["run-id"] == result["run_id"]
    assert (failed.report / "report.html").stat().st_size > 10_000
    assert (failed.report / "evidence" / "verdict.json").is_file()
    assert "Traceback" not in failed.err


def test_the_junit_file_is_read_and_says_what_failed(failed: Runner) -> None:
    found = JUnitXml.fromfile(str(failed.report / "junit.xml"))
    cases = {(case.classname, case.name): case for suite in found for case in suite}
    assert len(cases) == found.tests > 30
    assert found.failures == sum(
        isinstance(r, Failure) for case in cases.values() for r in case.result
    )
    headline = cases["imagegate.verdict.gate", "failure rate"]
    assert isinstance(headline.result[0], Failure)
    assert " of 36" in headline.result[0].message
    verdict = cases["imagegate.verdict.gate", "verdict"]
    assert verdict.result[0].message.startswith("ROLLBACK: ")
    checks = {name for group, name in cases if group.startswith("imagegate.checks.")}
    assert {"decode.file", "typography.text"} <= checks or len(checks) >= 8
    result = json.loads((failed.report / "result.json").read_text(encoding="utf-8"))
    slices = {f"{s['dimension']}={s['value']}" for s in result["slices"] if s["arm"] == "candidate"}
    told = {name for group, name in cases if group.startswith("imagegate.slices.")}
    assert told == {name for name in slices if not name.startswith("check=")}
    properties = {p.name: p.value for p in next(iter(found)).properties()}
    assert properties["run_id"] == result["run_id"]
    assert properties["digest.candidate"].startswith("sha256:")
    assert float(properties["spend_usd"]) == pytest.approx(result["spend_usd"])


def test_the_summary_is_where_people_look(failed: Runner) -> None:
    first = failed.summary.splitlines()[0]
    assert first == "## ⛔ ROLLBACK: candidate\\-broken for storefront"
    assert "before (production)" in failed.summary
    assert "### What to do" in failed.summary
    assert failed.summary.strip() == (failed.report / "summary.md").read_text("utf-8").strip()


def test_annotations_come_through_and_nothing_else_does(failed: Runner) -> None:
    assert failed.out == ""
    obeyed, kept = commands_of(failed.err)
    assert obeyed[0].startswith(f"::error file={BROKEN},title=imagegate ROLLBACK::")
    assert all(line.startswith(("::error ", "::warning ")) for line in obeyed)
    assert kept > 5


def test_its_spans_make_one_tree_without_prompts(failed: Runner, collector: Collector) -> None:
    spans = collector.spans
    assert {span.resource["service.name"] for span in spans} == {"gate-under-test"}
    (root,) = [span for span in spans if not span.parent]
    assert root.name == "release-gate"
    assert root.attributes["imagegate.verdict"] == "ROLLBACK"
    assert root.attributes["imagegate.run_id"] == failed.outputs["run-id"]
    assert {span.trace for span in spans} == {root.trace}
    by_id = {span.id: span for span in spans}
    assert all(span.parent in by_id for span in spans if span is not root)
    stages = {span.name for span in spans if span.parent == root.id}
    for stage in (
        "freeze_mix", "preflight", "draw_sample", "run_harness", "check_images",
        "compute_metrics", "validate_expectations", "decide", "roll_back", "notify",
        "publish_evidence",
    ):  # fmt: skip
        assert stage in stages
    shards = [span for span in spans if span.name == "run_harness"]
    assert {(s.attributes["imagegate.arm"], s.attributes["imagegate.shard"]) for s in shards} == {
        (arm, shard) for arm in ("baseline", "candidate") for shard in range(4)
    }
    requests = [span for span in spans if span.kind == 3]
    assert len(requests) >= 72
    for request in requests:
        assert by_id[request.parent].name == "run_harness"
        assert (
            request.attributes["imagegate.arm"]
            == (by_id[request.parent].attributes["imagegate.arm"])
        )
        assert request.attributes["server.address"] == "127.0.0.1"
        assert request.attributes["http.request.method"] == "POST"
    result = json.loads((failed.report / "result.json").read_text(encoding="utf-8"))
    paid = sum(request.attributes["imagegate.cost_usd"] for request in requests)
    assert paid == pytest.approx(result["spend_usd"])
    plan = json.loads((failed.report / "evidence" / "plan.json").read_text(encoding="utf-8"))
    sent = b"".join(collector.bodies).decode("utf-8", "replace")
    assert len(plan["cases"]) == 36
    for case in plan["cases"]:
        assert case["prompt"] not in sent


def test_a_refused_build_fails_and_its_text_runs_nowhere(tmp_path: Path, failed: Runner) -> None:
    junit = tmp_path / "temp" / "imagegate-report" / "junit.xml"
    given = failed.given | {"candidate": HOSTILE, "inputs": HOSTILE, "allow-hold": "true"}
    env = failed.env | {"IMAGEGATE_HOME": str(tmp_path / "home")}
    refused = Runner(tmp_path, env, given).run()
    assert refused.code == 2, refused.err
    assert refused.outputs["verdict"] == ""
    assert refused.outputs["exit-code"] == "2"
    (case,) = [case for suite in JUnitXml.fromfile(str(junit)) for case in suite]
    assert isinstance(case.result[0], Error)
    assert "touch owned" in case.result[0].message
    assert refused.summary.startswith("## ❗ No verdict")
    obeyed, _ = commands_of(refused.err)
    assert len(obeyed) == 1
    assert not (ROOT / "owned").exists()


def test_a_file_that_cannot_be_written_is_refused_before_anything(
    light_imagegate: Command, tmp_path: Path
) -> None:
    for flag in ("--junit", "--summary"):
        for bad in (str(tmp_path), "/proc/nothing/junit.xml", "/dev/null"):
            refused = light_imagegate("run", flag, bad)
            assert refused.code == 2, refused.err
            assert flag in refused.err
    assert not light_imagegate.home.exists()


def test_an_old_green_file_does_not_outlive_a_refusal(
    light_imagegate: Command, tmp_path: Path
) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites tests='1' failures='0' errors='0'/>", encoding="utf-8")
    refused = light_imagegate("run", "--junit", str(junit), "--resume", "no-such-run")
    assert refused.code == 2
    assert JUnitXml.fromfile(str(junit)).errors == 1
    assert "no-such-run" in junit.read_text(encoding="utf-8")
    dry = light_imagegate("run", "--dry-run", "--junit", str(junit))
    assert dry.code == 2
    assert "--dry-run" in dry.err


def test_the_metrics_are_read_from_postgresql_as_from_a_file(
    postgres_url: str, tmp_path: Path
) -> None:
    settings = load_settings({"IMAGEGATE_HOME": str(tmp_path), "IMAGEGATE_STATE_URL": postgres_url})
    with closing(State(postgres_url)) as state:
        metrics_tests.test_it_tells_alerts_production_freezes_and_questions(settings, state)
        metrics_tests.check_money_and_budget(settings, state, tmp_path, "poster")
