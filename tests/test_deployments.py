"""What is shipped in deployments/ is valid and tells the truth about the embedded server."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from pydantic import SecretStr

from tasks.harness.route import steps
from tasks.mix.catalog import EMBEDDED, load_catalog
from tasks.mix.manifest import load_mix
from tasks.policy import load_policy
from tasks.providers.base import GenerationRequest
from tasks.providers.drive import reservation
from tasks.providers.embedded.models import MODELS
from tasks.providers.registry import provider_for
from tasks.records import Case
from tasks.settings import DEPLOYMENTS

CATALOG = load_catalog(DEPLOYMENTS / "catalog.yaml")


#: Of the mixes of the demonstration.
DIGESTS = {
    "sha256:7cc1e555c6141746bfaf78feabafc83997c6dc7128f3b23ad48762eab64b67ac",
    "sha256:6cd33bcaec4c365bfd2fa7c9b9b962b89142c0f04ac4c2259f26e141d649584c",
    "sha256:9990b11c15e0bc8c6c3de279bae61c0143c66008a433539a5faf43cb1eeaeb3a",
}
OURS = [model for model in CATALOG.models if model.endpoint == EMBEDDED]
THEIRS = [model for model in CATALOG.models if model.endpoint != EMBEDDED]


@pytest.mark.parametrize("model", OURS, ids=lambda m: m.name)
def test_the_catalog_mirrors_the_embedded_server(model) -> None:
    served = MODELS[model.name]
    assert model.version == served.version
    assert model.price is not None
    assert model.price.usd == served.price_usd
    assert tuple(model.operations) == served.operations


def test_every_embedded_model_is_in_the_catalog() -> None:
    assert set(MODELS) == {model.name for model in OURS}


@pytest.mark.parametrize("model", THEIRS, ids=lambda m: m.name)
def test_an_adapter_can_ask_every_hosted_model_for_what_the_catalog_says(model) -> None:
    provider = provider_for(model, model.endpoint, SecretStr("AKIA0123:secret"))
    assert set(model.operations) <= set(provider.capabilities(model).operations)
    assert model.licence is not None
    assert model.price is not None
    # What a request may cost at most must be known before it is sent.
    for operation in model.operations:
        image = None if operation == "generate" else a_picture(1024, 1024)
        request = GenerationRequest(
            model=model,
            operation=operation,
            prompt="a kite",
            width=1024,
            height=1024,
            seed=7,
            stage=0,
            attempt=1,
            idempotency_key="ig-1",
            image=image,
        )
        assert reservation(provider, request) > 0
        assert provider.message(request).method == "POST"
    if model.successor is not None:
        assert CATALOG.by_name[model.successor].retires is None


def a_picture(width: int, height: int) -> bytes:
    found, data = cv2.imencode(".png", np.zeros((height, width, 3), np.uint8))
    assert found
    return data.tobytes()


def test_every_system_is_in_the_library() -> None:
    assert {model.protocol for model in THEIRS} >= {
        "openai",
        "gemini",
        "imagen",
        "stability",
        "automatic1111",
        "comfyui",
        "replicate",
        "fal",
        "bfl",
        "bedrock",
    }
    retired = {model.name for model in THEIRS if model.protocol == "imagen"}
    assert retired == {"imagen-4", "imagen-4-ultra", "imagen-4-fast"}
    assert {str(CATALOG.by_name[name].retires) for name in retired} == {"2026-08-17"}


def test_the_mixes_are_different_and_of_one_product() -> None:
    mixes = [load_mix(path, CATALOG) for path in sorted((DEPLOYMENTS / "mixes").glob("*.yaml"))]
    names = {"production", "candidate", "candidate-broken", "hosted"}
    assert {m.mix.name for m in mixes} == names
    assert len({m.digest for m in mixes}) == len(names)
    assert {m.mix.product for m in mixes} == {"storefront"}


def test_the_demonstration_keeps_its_digests() -> None:
    """Production pointers and cached pictures of installations hang on them."""
    digests = {
        load_mix(DEPLOYMENTS / "mixes" / f"{name}.yaml", CATALOG).digest: name
        for name in ("production", "candidate", "candidate-broken")
    }
    assert set(digests) == DIGESTS


def test_the_hosted_mix_uses_gemini_for_text_and_stability_for_drafts() -> None:
    mix = load_mix(DEPLOYMENTS / "mixes" / "hosted.yaml", CATALOG)
    case = Case(case_id="c", prompt="a kite", subtask="fast", width=4096, height=4096)
    draft, larger = steps(mix, case)
    assert (draft.model.model_id, larger.model.model_id) == ("sd3.5-large-turbo", "fast")
    assert (draft.width, larger.width) == (1024, 4096)
    (text,) = steps(mix, case.model_copy(update={"subtask": "typography"}))
    assert text.model.protocol == "gemini"


def test_the_default_policy_is_the_two_percent_rule_with_a_budget() -> None:
    policy = load_policy(DEPLOYMENTS / "policies" / "default.yaml")
    assert policy.failure.limit == 0.02
    assert policy.budget.run_usd > 0
    assert {limit.measure for limit in policy.limits} >= {
        "effective_cost_per_1k_usd",
        "undelivered_rate",
        "unmeasured_rate",
    }
