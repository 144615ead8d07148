"""Bad input: a clear sentence, exit code 2, nothing spent, nothing frozen."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, Command

MIX = ROOT / "deployments" / "mixes" / "candidate.yaml"
CATALOG = ROOT / "deployments" / "catalog.yaml"
POLICY = ROOT / "deployments" / "policies" / "default.yaml"


def edited(source: Path, target: Path, change: Any) -> str:
    value = yaml.safe_load(source.read_text(encoding="utf-8"))
    change(value)
    target.write_text(yaml.safe_dump(value), encoding="utf-8")
    return str(target)


def set_at(*path: Any, to: Any) -> Any:
    def change(value: Any) -> None:
        for key in path[:-1]:
            value = value[key]
        value[path[-1]] = to

    return change


CASES = {
    "unknown model": (
        "--candidate",
        MIX,
        set_at("routes", "fast", 0, "stages", 0, "model", to="dash-9"),
        ["dash-9", "not in the catalog", "dash-2", "'fast'"],
    ),
    "unknown stage field": (
        "--candidate",
        MIX,
        set_at("routes", "fast", 0, "stages", 0, "modle", to="x"),
        ["routes.fast.0.stages.0.modle", "unknown field"],
    ),
    "unknown subtask": (
        "--candidate",
        MIX,
        set_at("routes", "video", to=[]),
        ["routes.video"],
    ),
    "weights that do not sum": (
        "--candidate",
        MIX,
        set_at("routes", "fast", 0, "weight", to=0.4),
        ["weights of 'fast' sum to 0.4", "must sum to 1"],
    ),
    "negative price": (
        "--catalog",
        CATALOG,
        set_at("models", 0, "price", "usd", to=-0.01),
        ["models.0.price.usd", "-0.01"],
    ),
    "a limit that nothing measures": (
        "--policy",
        POLICY,
        set_at("limits", 0, "measure", to="beauty"),
        ["'beauty'", "not measured", "failure_rate"],
    ),
    "a limit that is not a number": (
        "--policy",
        POLICY,
        set_at("failure", "limit", to=float("nan")),
        ["failure.limit"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_file_is_named_with_its_field(
    name: str, light_imagegate: Command, tmp_path: Path
) -> None:
    flag, source, change, words = CASES[name]
    file = edited(source, tmp_path / "changed.yaml", change)
    done = light_imagegate("run", flag, file)
    flat = " ".join(done.err.split())
    assert done.code == 2, done.err
    assert "changed.yaml" in flat.replace(" ", "")
    for word in words:
        assert word in flat, done.err
    assert "Traceback" not in done.err
    assert not (light_imagegate.home / "prefect").exists(), "Prefect was started for a bad file"
    assert not list(light_imagegate.home.glob("runs/*"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["run", "--candidate", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["run", "--inputs", "nowhere.csv"], "nowhere.csv"),
        (["run", "--resume", "never"], "no such run"),
        (["run", "--budget-usd", "-1"], "--budget-usd"),
        (["run", "--resume", "x", "--seed", "4"], "leave out --seed"),
        (["run", "--cases", "0"], "--cases"),
        (["run", "--no-such-flag"], "--no-such-flag"),
        (["alerts", "shout"], "'shout'"),
        (["report", "never"], "never"),
    ],
)
def test_a_wrong_flag_is_a_sentence(
    arguments: list[str], word: str, light_imagegate: Command
) -> None:
    done = light_imagegate(*arguments)
    assert done.code == 2, done.err
    assert word in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_errors_are_json_too(light_imagegate: Command) -> None:
    done = light_imagegate("run", "--candidate", "nowhere.yaml", "--json")
    assert done.code == 2
    assert json.loads(done.out)["exit_code"] == 2


def test_a_corrupt_state_database_is_the_gates_own_failure(light_imagegate: Command) -> None:
    light_imagegate.home.mkdir(parents=True)
    (light_imagegate.home / "state.db").write_bytes(b"this is no database " * 300)
    done = light_imagegate("run")
    assert done.code == 4, done.err
    assert "state database" in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_state_database_of_another_version_is_refused(light_imagegate: Command) -> None:
    light_imagegate("status")
    with sqlite3.connect(light_imagegate.home / "state.db") as database:
        database.execute("UPDATE meta SET value = '99' WHERE key = 'state_version'")
    done = light_imagegate("status")
    assert done.code == 4
    assert "state version 99" in " ".join(done.err.split())


def test_dry_run_spends_and_changes_nothing(light_imagegate: Command) -> None:
    done = light_imagegate("run", "--dry-run", "--json", "--cases", "50")
    assert done.code == 0, done.err
    preview = done.json
    assert preview["cases"] == 50
    assert 0 < preview["cost_usd"]["candidate"] < preview["cost_usd"]["baseline"]
    assert not list(light_imagegate.home.glob("runs/*"))
    status = light_imagegate("status", "--json").json
    assert status["production"] is None
    assert status["freezes"] == []


def test_help_is_quick_and_has_examples(light_imagegate: Command) -> None:
    done = light_imagegate("--help")
    assert done.code == 0
    for word in ("run", "check", "freeze", "thaw", "status", "rollback", "history", "report"):
        assert word in done.out
    assert "imagegate run --resume RUN" in " ".join(light_imagegate("run", "--help").out.split())
