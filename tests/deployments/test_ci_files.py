"""The files for CI servers, Prometheus and Grafana: by schema, and by what they name."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from flows import cli
from tasks.metrics_export import registry_of
from tasks.settings import load_settings
from tests.conftest import ROOT

DEPLOYMENTS = ROOT / "deployments"
ACTION = DEPLOYMENTS / "github" / "action.yml"
WORKFLOW = DEPLOYMENTS / "github" / "example-workflow.yml"
GITLAB = DEPLOYMENTS / "gitlab" / "imagegate.gitlab-ci.yml"
RULES = DEPLOYMENTS / "prometheus" / "rules.yml"
DASHBOARD = DEPLOYMENTS / "grafana" / "imagegate.json"

#: Words of PromQL that are no metric: functions, aggregations, keywords.
PROMQL = {
    "absent", "by", "changes", "group_left", "ignoring", "increase", "label_values", "max",
    "min", "on", "or", "sum", "unless",
}  # fmt: skip

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool of Debian's package prometheus"
)


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-actions", ACTION),
        ("vendor.github-workflows", WORKFLOW),
        ("vendor.gitlab-ci", GITLAB),
    ],
)
def test_ci_files_fit_their_schema(schema: str, file: Path, tmp_path: Path) -> None:
    def check(path: Path) -> int:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
        return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode

    assert check(file) == 0
    value = yaml.safe_load(file.read_text(encoding="utf-8"))
    broken = tmp_path / file.name
    key = {"action.yml": "runs", "example-workflow.yml": "jobs"}.get(file.name, "imagegate")
    broken.write_text(yaml.safe_dump(value | {key: 7}), encoding="utf-8")
    assert check(broken) != 0


def steps() -> list[dict[str, Any]]:
    found = list(yaml.safe_load(ACTION.read_text(encoding="utf-8"))["runs"]["steps"])
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    for job in workflow["jobs"].values():
        found += job["steps"]
    return found


def test_no_script_holds_what_others_write() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    assert len(scripts) >= 3
    for script in scripts:
        assert "${{" not in script


def test_actions_of_others_are_pinned_by_commit() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert len(used) >= 4
    for name in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", name), name


def test_the_inputs_of_the_action_are_all_used_and_all_there() -> None:
    text = ACTION.read_text(encoding="utf-8")
    given = set(yaml.safe_load(text)["inputs"])
    assert set(re.findall(r"\binputs\.([a-z-]+)", text)) == given
    passed = set(re.findall(r'"--([a-z-]+)=', text))
    known = {
        option
        for parameter in typer.main.get_command(cli.app).commands["run"].params  # type: ignore[attr-defined]
        for option in parameter.opts
    }
    assert {f"--{name}" for name in passed} <= known
    assert given - {"allow-hold", "python-version", "python", "artifact"} <= passed


def test_the_report_is_kept_when_the_gate_fails() -> None:
    (upload,) = [s for s in steps() if "upload-artifact" in s.get("uses", "")]
    assert "always()" in upload["if"]
    job = yaml.safe_load(GITLAB.read_text(encoding="utf-8"))["imagegate"]
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] in " ".join(job["script"])
    assert "allow_failure" not in job


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("step", ["Install imagegate", "Judge the candidate"])
def test_the_scripts_are_bash(step: str) -> None:
    (script,) = [s["run"] for s in steps() if s.get("name") == step]
    done = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


def exposed(tmp_path: Path) -> dict[str, set[str]]:
    """Return the names of the samples that a new database exposes, with the labels of each."""
    settings = load_settings({"IMAGEGATE_HOME": str(tmp_path)})
    names: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry_of(settings)).decode()):
        total = "_total" if family.type == "counter" else ""
        names[family.name.removesuffix("_total") + total] = set()
    return names


def metrics_in(expression: str) -> set[str]:
    """Return the metrics that a PromQL expression reads."""
    bare = re.sub(r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]", " ", expression)
    bare = re.sub(r"\b(?:by|on|ignoring|group_left)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"[a-zA-Z_][a-zA-Z0-9_:]*", bare)) - PROMQL


def dashboard() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return value


def expressions() -> list[tuple[str, str]]:
    found = [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]
    found += [
        (note["name"], note["expr"])
        for note in dashboard()["annotations"]["list"]
        if "expr" in note
    ]
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    found += [(rule["alert"], rule["expr"]) for g in rules["groups"] for rule in g["rules"]]
    return found


def test_every_expression_reads_metrics_that_are_exposed(tmp_path: Path) -> None:
    names = exposed(tmp_path)
    listed = expressions()
    assert len(listed) >= 25
    read: set[str] = set()
    for where, expression in listed:
        found = metrics_in(expression)
        assert found, where
        assert found <= set(names), (where, found - set(names))
        read |= found
    # What people are to see on the dashboard, or be told by a rule.
    for needed in (
        "imagegate_runs_by_state", "imagegate_last_run_failure_ratio", "imagegate_images_total",
        "imagegate_budget_spent_dollars", "imagegate_last_good_run_age_seconds",
        "imagegate_alerts_undelivered", "imagegate_runs_dead", "imagegate_approvals_pending",
        "imagegate_production_epoch", "imagegate_freezes_active",
    ):  # fmt: skip
        assert needed in read


def test_the_dashboard_can_be_loaded_and_read() -> None:
    board = dashboard()
    assert board["uid"] == "imagegate"
    assert board["schemaVersion"] >= 36
    sources = [v for v in board["templating"]["list"] if v["type"] == "datasource"]
    assert [v["query"] for v in sources] == ["prometheus"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
    (rate,) = [p for p in board["panels"] if p["title"].startswith("Failure rate")]
    lines = rate["fieldConfig"]["defaults"]["thresholds"]["steps"]
    policy = yaml.safe_load((DEPLOYMENTS / "policies" / "default.yaml").read_text("utf-8"))
    assert [step["value"] for step in lines] == [None, policy["failure"]["limit"]]


@needs_promtool
def test_rules_and_scrapes_are_what_prometheus_takes(tmp_path: Path) -> None:
    assert "rules found" in promtool("check", "rules", str(RULES))
    promtool("check", "config", str(DEPLOYMENTS / "prometheus" / "prometheus.yml"))
    settings = load_settings({"IMAGEGATE_HOME": str(tmp_path)})
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(registry_of(settings)),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    # The expressions of the dashboard parse, with its variables filled in.
    record = {
        "groups": [
            {
                "name": "dashboard",
                "rules": [
                    {"record": f"panel:{n}", "expr": e.replace("$product", ".*")}
                    for n, (_, e) in enumerate(expressions())
                ],
            }
        ]
    }
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump(record), encoding="utf-8")
    promtool("check", "rules", str(file))


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    shop = 'imagegate_runs_total{product="shop"}'
    good = 'imagegate_last_good_run_age_seconds{product="shop"}'
    budget = 'scope="all",window="day"'

    def firing(alert: str, series: dict[str, str], at: str, labels: dict[str, str] | None) -> Any:
        return {
            "interval": "1m",
            "input_series": [
                {"series": name, "values": values}
                for name, values in ({"imagegate_state_up": "1x3000"} | series).items()
            ],
            "alert_rule_test": [
                {
                    "eval_time": at,
                    "alertname": alert,
                    "exp_alerts": [] if labels is None else [{"exp_labels": labels}],
                }
            ],
        }

    warned, paged = {"severity": "warning"}, {"severity": "page"}
    tests = [
        firing("ImagegateNoGoodRun", {good: "86400+60x900"}, "10h", None),
        firing("ImagegateNoGoodRun", {good: "86400+60x900"}, "13h", warned | {"product": "shop"}),
        firing("ImagegateNeverAGoodRun", {shop: "2x3000"}, "35h", None),
        firing("ImagegateNeverAGoodRun", {shop: "2x3000"}, "37h", warned | {"product": "shop"}),
        firing("ImagegateNeverAGoodRun", {shop: "2x3000", good: "1x3000"}, "37h", None),
        firing("ImagegateStateUnreadable", {"imagegate_state_up": "0x30"}, "10m", paged),
        firing("ImagegateStateUnreadable", {}, "10m", None),
        firing(
            "ImagegateAlertsUndelivered",
            {"imagegate_alerts_oldest_undelivered_age_seconds": "0+60x60"},
            "30m",
            paged,
        ),
        firing(
            "ImagegateDeadRun",
            {'imagegate_runs_dead{product="shop"}': "0x5 1x30"},
            "10m",
            warned | {"product": "shop"},
        ),
        firing(
            "ImagegateBudgetNearlySpent",
            {
                f"imagegate_budget_spent_dollars{{{budget}}}": "95x30",
                f'imagegate_budget_limit_dollars{{{budget},limit="hard"}}': "100x30",
                f'imagegate_budget_limit_dollars{{{budget},limit="soft"}}': "50x30",
            },
            "10m",
            warned | {"scope": "all", "window": "day"},
        ),
    ]
    # Only that it fires, with its labels; the texts are compared nowhere else.
    for test in tests:
        for rule in test["alert_rule_test"]:
            for expected in rule["exp_alerts"]:
                expected["exp_annotations"] = {}
    quiet = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in quiet["groups"]:
        for rule in group["rules"]:
            assert rule.pop("annotations")["summary"]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(quiet), encoding="utf-8")
    file = tmp_path / "tests.yml"
    suite = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(suite), encoding="utf-8")
    promtool("test", "rules", str(file))


def test_provisioning_names_the_dashboard_and_the_source() -> None:
    folder = DEPLOYMENTS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text("utf-8"))[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    scrape = yaml.safe_load((DEPLOYMENTS / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "imagegate.yaml").read_text("utf-8"))[
        "providers"
    ]
    assert provider["type"] == "file"
