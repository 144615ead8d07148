"""What is shipped in deployments/ is valid and tells the truth about the embedded server."""

from __future__ import annotations

import pytest

from tasks.mix.catalog import EMBEDDED, load_catalog
from tasks.mix.manifest import load_mix
from tasks.policy import load_policy
from tasks.providers.embedded.models import MODELS
from tasks.settings import DEPLOYMENTS

CATALOG = load_catalog(DEPLOYMENTS / "catalog.yaml")


@pytest.mark.parametrize("model", CATALOG.models, ids=lambda m: m.name)
def test_the_catalog_mirrors_the_embedded_server(model) -> None:
    served = MODELS[model.name]
    assert model.endpoint == EMBEDDED
    assert model.version == served.version
    assert model.price is not None
    assert model.price.usd == served.price_usd
    assert tuple(model.operations) == served.operations


def test_every_embedded_model_is_in_the_catalog() -> None:
    assert set(MODELS) == set(CATALOG.by_name)


def test_the_three_mixes_are_different_and_of_one_product() -> None:
    mixes = [load_mix(path, CATALOG) for path in sorted((DEPLOYMENTS / "mixes").glob("*.yaml"))]
    assert {m.mix.name for m in mixes} == {"production", "candidate", "candidate-broken"}
    assert len({m.digest for m in mixes}) == 3
    assert {m.mix.product for m in mixes} == {"storefront"}


def test_the_default_policy_is_the_two_percent_rule_with_a_budget() -> None:
    policy = load_policy(DEPLOYMENTS / "policies" / "default.yaml")
    assert policy.failure.limit == 0.02
    assert policy.budget.run_usd > 0
    assert {limit.measure for limit in policy.limits} >= {
        "effective_cost_per_1k_usd",
        "undelivered_rate",
        "unmeasured_rate",
    }
