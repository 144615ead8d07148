from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prefect import Flow
from prefect.utilities.schema_tools.validation import validate

from deployments import registry
from deployments.registry import build_deployments, code_version
from deployments.schedule_file import ScheduleFile
from flows.canary import CanaryRequest
from flows.request import GateRequest

FILE = ScheduleFile.model_validate(
    {
        "timezone": "Europe/Berlin",
        "products": {
            "storefront": {
                "owner": "team",
                "gate": {"cron": "0 2 * * *"},
                "parameters": {"cases": 12},
            },
            "other": {"collision": "refuse"},
            "fast": {"gate": {"every_seconds": 20}},
        },
    }
)


@pytest.fixture(scope="module")
def planned() -> dict[str, Any]:
    return {d.full_name: d for d in build_deployments(FILE, version="abc")}


def test_the_names_are_those_of_the_contract(planned: dict[str, Any]) -> None:
    assert set(planned) == {
        "release-gate/storefront",
        "release-gate/other",
        "release-gate/fast",
        "canary/storefront",
        "canary/other",
        "canary/fast",
        "production-watch/imagegate",
        "budget-alarm/imagegate",
        "freeze-reminder/imagegate",
        "live-watch/imagegate",
        "rollback-drill/imagegate",
    }


def test_every_deployment_runs_wherever_imagegate_is_installed(planned: dict[str, Any]) -> None:
    for name, deployment in planned.items():
        module, _, function = deployment.entrypoint.rpartition(".")
        assert isinstance(getattr(importlib.import_module(module), function), Flow), name
        assert deployment._path is None
        assert deployment.enforce_parameter_schema is True
        assert deployment.version == "abc"
        assert "imagegate" in deployment.tags
        assert len(deployment.description) > 40


def test_what_a_deployment_starts_with_passes_its_own_form(planned: dict[str, Any]) -> None:
    for name, deployment in planned.items():
        schema = deployment._parameter_openapi_schema.model_dump(exclude_unset=True)
        assert set(schema["properties"]) == {"request"}, name
        validate(deployment.parameters, schema, raise_on_error=True, ignore_required=True)
        for schedule in deployment.schedules:
            parameters = {**deployment.parameters, **schedule.parameters}
            validate(parameters, schema, raise_on_error=True)


def test_a_scheduled_run_says_who_asks_and_a_person_has_to(planned: dict[str, Any]) -> None:
    gate = planned["release-gate/storefront"]
    assert gate.parameters == {
        "request": {
            "candidate": "deployments/mixes/candidate.yaml",
            "policy": "deployments/policies/default.yaml",
            "catalog": "deployments/catalog.yaml",
            "cases": 12,
        }
    }
    request = GateRequest.model_validate(gate.schedules[0].parameters["request"])
    assert request.owner == "schedule (team)"
    assert request.cases == 12


def test_a_canary_is_for_its_product_and_somebody_says_who_asks(planned: dict[str, Any]) -> None:
    canary = planned["canary/storefront"]
    assert canary.parameters["request"]["product"] == "storefront"
    assert canary.schedules == []
    # A pause must reach a walk that is under way.
    assert canary.concurrency_limit is None
    schema = canary._parameter_openapi_schema.model_dump(exclude_unset=True)
    form = schema["definitions"]["CanaryRequest"]
    assert form["properties"]["product"]["enum"] == ["storefront"]
    assert form["properties"]["action"]["enum"] == ["walk", "pause", "resume", "skip", "abort"]
    assert "owner" in form["required"]
    asked = canary.parameters["request"] | {"owner": "kim", "action": "pause"}
    assert CanaryRequest.model_validate(asked).action == "pause"


def test_one_gate_of_a_product_at_a_time(planned: dict[str, Any]) -> None:
    waits, refuses = planned["release-gate/storefront"], planned["release-gate/other"]
    assert waits.concurrency_limit == refuses.concurrency_limit == 1
    assert waits.concurrency_options.collision_strategy == "ENQUEUE"
    assert refuses.concurrency_options.collision_strategy == "CANCEL_NEW"
    assert "waits" in waits.description
    assert "is cancelled" in refuses.description


def test_schedules_carry_their_time_zone_and_leave_a_pause_alone(planned: dict[str, Any]) -> None:
    (nightly,) = planned["release-gate/storefront"].schedules
    assert nightly.schedule.cron == "0 2 * * *"
    assert nightly.schedule.timezone == "Europe/Berlin"
    assert nightly.slug == "file"
    # Sent as set, it would switch on again what a person paused in the UI.
    assert "active" not in nightly.model_fields_set
    (fast,) = planned["release-gate/fast"].schedules
    assert fast.schedule.interval.total_seconds() == 20
    assert planned["release-gate/other"].schedules == []


def test_the_version_is_the_commit_and_says_when_it_is_not_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    monkeypatch.setattr(registry, "PROJECT_ROOT", tmp_path)
    package = code_version()
    assert package[0].isdigit()
    git("init", "--quiet")
    (tmp_path / "a.txt").write_text("1", encoding="utf-8")
    git("add", "a.txt")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert code_version() == commit
    (tmp_path / "a.txt").write_text("2", encoding="utf-8")
    assert code_version() == f"{commit}+dirty"
    inside = tmp_path / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(registry, "PROJECT_ROOT", inside)
    assert code_version() == package
