from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.mix.catalog import Catalog, Licence, Limits, Model, Price
from tasks.mix.manifest import Mix, ResolvedMix, Stage, load_mix, resolve_mix
from tasks.records import digest_json


@pytest.fixture
def load(
    tmp_path: Path,
    make_model: Callable[..., Model],
    make_manifest: Callable[..., dict[str, Any]],
) -> Callable[..., ResolvedMix]:
    catalog = Catalog(
        models=(
            make_model("folio-1"),
            make_model("folio-2"),
            make_model("sharp-x2", operations=("upscale",)),
        )
    )

    def call(change: Callable[[dict[str, Any]], object] = lambda _m: None) -> ResolvedMix:
        value = make_manifest("winter", "folio-1")
        change(value)
        path = tmp_path / "winter.yaml"
        path.write_text(yaml.safe_dump(value))
        return load_mix(path, catalog)

    return call


def route(*stages: dict[str, Any], weight: float = 1.0) -> dict[str, Any]:
    return {"weight": weight, "stages": list(stages)}


def put(subtask: str, *alternatives: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
    return lambda value: value["routes"].update({subtask: list(alternatives)})


GEN = {"model": "folio-1"}
UP = {"model": "sharp-x2", "operation": "upscale"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            put("creative", route({"model": "imagen-5"})),
            "stage 1 of 'creative' names model 'imagen-5', which is not in the catalog "
            "(known: folio-1, folio-2, sharp-x2)",
        ),
        (
            put("creative", route(GEN, {"model": "folio-1", "operation": "upscale"})),
            "stage 2 of 'creative': model 'folio-1' cannot 'upscale' (known: edit, generate)",
        ),
        (put("creative", route(UP)), "the first stage must be 'generate', got 'upscale'"),
        (put("edit", route(GEN)), "the first stage must be 'edit', got 'generate'"),
        (put("fast", route(GEN, GEN)), "would throw the picture of stage 1 away"),
        (
            put("fast", route(GEN, weight=0.5), route(GEN, weight=0.4)),
            "weights of 'fast' sum to 0.9, they must sum to 1",
        ),
        (put("fast", route(GEN, weight=1.5)), "field 'routes.fast.0.weight'"),
        (put("fast", route(GEN, weight=-1), route(GEN)), "field 'routes.fast.0.weight'"),
        (put("fast", route(GEN, weight=0), route(GEN)), "field 'routes.fast.0.weight'"),
        (put("fast"), "field 'routes.fast'"),
        (put("fast", route()), "field 'routes.fast.0.stages'"),
        (put("fast", route(*[GEN] * 9)), "field 'routes.fast.0.stages'"),
        (put("paint", route(GEN)), "paint"),
        (put("fast", route(GEN | {"prompt_template": "no place"})), "must contain {prompt}"),
        (put("fast", route(GEN | {"safety": "maybe"})), "field 'routes.fast.0.stages.0.safety'"),
        (put("fast", route(GEN | {"stpes": 20})), "stages.0.stpes': unknown field"),
        (lambda value: value["routes"].pop("edit"), "routes lacks subtask 'edit'"),
        (lambda value: value.update(name=""), "field 'name'"),
        (lambda value: value.update(name="<!channel>"), "field 'name'"),
        (lambda value: value.update(product="../x"), "field 'product'"),
        (lambda value: value.update(use="resale"), "field 'use'"),
        (lambda value: value.update(schema_version=3), "field 'schema_version'"),
    ],
)
def test_a_wrong_mix_says_file_place_and_what_is_allowed(
    load: Callable[..., ResolvedMix], change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(change)
    assert "winter.yaml" in str(caught.value)
    assert problem in str(caught.value)


def test_an_empty_mix_is_refused(tmp_path: Path, make_model: Callable[..., Model]) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("# nothing")
    with pytest.raises(ConfigError, match="needs name, product and routes"):
        load_mix(path, Catalog(models=(make_model(),)))


def test_a_mix_brings_the_catalog_entries_it_uses_and_no_others(
    load: Callable[..., ResolvedMix],
) -> None:
    mix = load(put("upscale", route(GEN, UP)))
    assert [model.name for model in mix.models] == ["folio-1", "sharp-x2"]
    assert mix.mix.model_names == ("folio-1", "sharp-x2")


IMAGE_CHANGES: list[Callable[[dict[str, Any]], object]] = [
    put("fast", route({"model": "folio-2"})),
    put("fast", route(GEN | {"params": {"steps": 20}})),
    put("fast", route(GEN | {"params": {"steps": "20"}})),
    put("fast", route(GEN | {"prompt_template": "photo of {prompt}"})),
    put("fast", route(GEN | {"safety": "off"})),
    put("fast", route(GEN, {"model": "folio-1", "operation": "edit"})),
    put("fast", route(GEN, UP)),
    put("fast", route(GEN, UP, {"model": "folio-1", "operation": "edit"})),
    put("fast", route(GEN, {"model": "folio-1", "operation": "edit"}, UP)),
    put("fast", route(GEN, weight=0.5), route({"model": "folio-2"}, weight=0.5)),
    put("fast", route({"model": "folio-2"}, weight=0.5), route(GEN, weight=0.5)),
]


def test_whatever_can_change_an_image_changes_the_digest(
    load: Callable[..., ResolvedMix],
) -> None:
    digests = [load().digest, *(load(change).digest for change in IMAGE_CHANGES)]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize(
    "field", [{"version": "folio-1-2026-09-01"}, {"endpoint": "https://models.example"}]
)
def test_another_version_or_endpoint_of_a_model_changes_the_digest(
    winter: ResolvedMix, make_model: Callable[..., Model], field: dict[str, Any]
) -> None:
    other = winter.model_copy(update={"models": (make_model("folio-1", **field),)})
    assert other.digest != winter.digest


def test_what_cannot_change_an_image_leaves_the_digest(
    winter: ResolvedMix, make_model: Callable[..., Model], make_mix: Callable[..., ResolvedMix]
) -> None:
    assert make_mix("another name").digest == winter.digest
    assert make_mix("winter", use="internal").digest == winter.digest
    for field in (
        {"price": Price.model_validate({"usd": 9, "source": "s", "date": "2026-01-01"})},
        {"licence": Licence(id="other", uses=())},
        {"limits": Limits(concurrency=1)},
        {"key_env": "FOLIO_KEY"},
    ):
        other = winter.model_copy(update={"models": (make_model("folio-1", **field),)})
        assert other.digest == winter.digest


def test_digests_of_the_first_release_stay(winter: ResolvedMix) -> None:
    """Production is remembered by its digest, and evidence by that of the whole plan."""
    assert winter.digest == (
        "sha256:e99fa049b7f3cd26f4f5f467f9afbf4c15717099788346a23e93326528261d5a"
    )
    assert digest_json(winter.model_dump(mode="json")) == (
        "sha256:90c88187176dd92e0bbc2c87ff903d9fa57dbf6d335f65b04cb5025b17fce060"
    )


@pytest.mark.parametrize("field", [{"id": "owner/other"}, {"options": {"sampler": "euler"}}])
def test_what_the_adapter_is_told_of_a_model_changes_the_digest(
    winter: ResolvedMix, make_model: Callable[..., Model], field: dict[str, Any]
) -> None:
    other = winter.model_copy(update={"models": (make_model("folio-1", **field),)})
    assert other.digest != winter.digest
    again = ResolvedMix.model_validate_json(other.model_dump_json())
    assert (again, again.digest) == (other, other.digest)


def test_where_pictures_may_lie_leaves_the_digest(
    winter: ResolvedMix, make_model: Callable[..., Model]
) -> None:
    model = make_model("folio-1", asset_hosts=("cdn.example.com", ".example.net"))
    assert winter.model_copy(update={"models": (model,)}).digest == winter.digest


def test_a_digest_survives_json(load: Callable[..., ResolvedMix]) -> None:
    for change in IMAGE_CHANGES:
        mix = load(change)
        again = ResolvedMix.model_validate_json(mix.model_dump_json())
        assert again == mix
        assert again.digest == mix.digest


@given(st.text())
def test_a_template_replaces_the_prompt_and_nothing_else(prompt: str) -> None:
    stage = Stage(model="m", prompt_template="a {prompt} in {style} {{x}}")
    assert stage.prompt(prompt) == f"a {prompt} in {{style}} {{{{x}}}}"


def test_traffic_follows_the_weights_and_a_case_keeps_its_way(
    load: Callable[..., ResolvedMix],
) -> None:
    mix = load(put("fast", route(GEN, weight=0.9), route({"model": "folio-2"}, weight=0.1)))
    digests = [digest_json(n) for n in range(4000)]
    first = [mix.alternative("fast", digest).stages[0].model for digest in digests]
    assert first == [mix.alternative("fast", digest).stages[0].model for digest in digests]
    share = Counter(first)["folio-2"] / len(first)
    assert 0.08 < share < 0.12


def test_rounding_of_weights_leaves_no_case_without_a_way(
    load: Callable[..., ResolvedMix],
) -> None:
    thirds = [route(GEN, weight=w) for w in (0.3333333333, 0.3333333333, 0.3333333334)]
    mix = load(put("fast", *thirds))
    assert all(mix.alternative("fast", digest_json(n)).stages for n in range(500))


def test_the_shape_of_a_mix_is_checked_without_a_catalog_too(
    make_manifest: Callable[..., dict[str, Any]], make_model: Callable[..., Model]
) -> None:
    mix = Mix.model_validate(make_manifest("winter", "nowhere"))
    with pytest.raises(ConfigError, match="in memory: stage 1 of"):
        resolve_mix(mix, Catalog(models=(make_model(),)), "in memory")


@pytest.mark.parametrize("scale", [0, -2, "2", None, True, 1e9, [2], float("nan"), float("inf")])
def test_an_unusable_scale_is_refused_before_anything_is_spent(scale: object) -> None:
    with pytest.raises(ValueError, match=r"scale"):
        Stage.model_validate({"model": "up", "operation": "upscale", "params": {"scale": scale}})


def test_only_an_upscaling_stage_enlarges() -> None:
    assert Stage(model="m", params={"scale": 4}).scale == 1
    assert Stage(model="m", operation="upscale").scale == 2
    assert Stage(model="m", operation="upscale", params={"scale": 4}).scale == 4
