"""The form is what Prefect's server checks too: it is tried with Prefect's own validator."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from flows.form import GATE_FIELDS, gate_choices, gate_form
from flows.release_gate import release_gate
from flows.request import GateRequest


@pytest.fixture(scope="module")
def form() -> dict[str, Any]:
    schema = parameter_schema(release_gate).model_dump(exclude_unset=True)
    return gate_form(schema, "storefront", {"policy": "elsewhere/strict.yaml"})


def fields(form: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = form["definitions"]["GateRequest"]["properties"]
    return properties


def refused(form: dict[str, Any], **request: Any) -> str | None:
    try:
        validate({"request": request}, form, raise_on_error=True)
    except ValidationError as error:
        return str(error)
    return None


def test_every_field_of_the_request_is_in_the_form_with_title_and_description(
    form: dict[str, Any],
) -> None:
    assert set(fields(form)) == set(GateRequest.model_fields)
    assert set(GATE_FIELDS) <= set(GateRequest.model_fields)
    for name, field in fields(form).items():
        assert len(field["title"]) > 3, name
        assert len(field["description"]) > 10, name
        assert "anyOf" not in field, f"{name} shows a choice of types instead of an input"
    ordered = sorted(fields(form), key=lambda name: fields(form)[name]["position"])
    assert ordered[:3] == ["candidate", "owner", "policy"]


def test_choices_are_the_files_of_the_product(form: dict[str, Any]) -> None:
    assert "deployments/mixes/candidate.yaml" in fields(form)["candidate"]["enum"]
    assert fields(form)["baseline"]["enum"] == fields(form)["candidate"]["enum"]
    # What the schedule names is a choice too, wherever it lies.
    assert "elsewhere/strict.yaml" in fields(form)["policy"]["enum"]
    assert gate_choices("no-such-product")["candidate"] == ()
    assert "enum" not in fields(form)["resume"]


def test_the_server_takes_what_is_right(form: dict[str, Any]) -> None:
    assert refused(form, owner="kim") is None
    full = {
        "candidate": "deployments/mixes/candidate-broken.yaml",
        "baseline": "deployments/mixes/production.yaml",
        "cases": 12,
        "budget_usd": 0.5,
        "seed": 0,
        "inputs": "log.csv",
    }
    assert refused(form, owner="kim", **full) is None


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"cases": 0}, "cases"),
        ({"cases": 100_001}, "cases"),
        ({"cases": "many"}, "cases"),
        ({"budget_usd": 0}, "budget_usd"),
        ({"budget_usd": -1}, "budget_usd"),
        ({"seed": -1}, "seed"),
        ({"candidate": "deployments/mixes/nothing.yaml"}, "candidate"),
        ({"policy": "deployments/mixes/candidate.yaml"}, "policy"),
        ({"owner": ""}, "owner"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_the_server_refuses_what_is_wrong(
    form: dict[str, Any], wrong: dict[str, Any], word: str
) -> None:
    message = refused(form, **({"owner": "kim"} | wrong))
    assert message is not None
    assert word in message


def test_a_person_has_to_say_who_asks(form: dict[str, Any]) -> None:
    assert "owner" in (refused(form, cases=3) or "")
