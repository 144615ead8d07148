from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tasks.errors import ConfigError
from tasks.mix.catalog import EMBEDDED, Model, Price, load_catalog
from tasks.mix.manifest import ResolvedMix, load_mix
from tasks.mix.preflight import preflight
from tasks.settings import DEPLOYMENTS

ENTRY: dict[str, Any] = {
    "name": "folio-1",
    "protocol": "raw",
    "endpoint": "embedded",
    "version": "folio-1-2026-01-01",
    "pin": "dated",
    "operations": ["generate"],
    "licence": {"id": "MIT", "uses": ["commercial"]},
    "price": {"usd": 0.02, "source": "price list", "date": "2026-01-01"},
}


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    def call(*entries: dict[str, Any], **more: Any) -> Any:
        path = tmp_path / "catalog.yaml"
        path.write_text(yaml.safe_dump({"models": list(entries)} | more))
        return load_catalog(path)

    return call


def test_the_shipped_catalog_loads_and_its_mixes_pass_preflight_once_served() -> None:
    catalog = load_catalog(DEPLOYMENTS / "catalog.yaml")
    files = sorted((DEPLOYMENTS / "mixes").glob("*.yaml"))
    mixes = [load_mix(path, catalog) for path in files]
    assert {mix.mix.name for mix in mixes} >= {"production", "candidate", "candidate-broken"}
    assert len({mix.digest for mix in mixes}) == len(mixes)

    class Serves:
        def __init__(self, model: Model) -> None:
            self.version, self.safety = model.version, "on"
            self.price_usd, self.retires = None, None

    def problems(mixes: list[ResolvedMix], *, keys: bool) -> list[str]:
        return preflight(
            mixes,
            served={model.name: Serves(model) for model in catalog.models},
            has_key=lambda _name: keys,
            today=date(2026, 11, 29),
            frozen_until=date(2026, 12, 13),
        )

    ours = [mix for mix in mixes if mix.mix.name != "hosted"]
    assert problems(ours, keys=False) == [], "the embedded default must start without a key"
    (hosted,) = (mix for mix in mixes if mix.mix.name == "hosted")
    assert problems([hosted], keys=True) == []
    missing = problems([hosted], keys=False)
    assert {text.rpartition(" ")[2] for text in missing} == {
        "GEMINI_API_KEY",
        "OPENAI_API_KEY",
        "STABILITY_API_KEY",
    }


def test_a_catalog_entry_knows_its_defaults(load: Callable[..., Any]) -> None:
    model = load(ENTRY).by_name["folio-1"]
    assert model.endpoint == EMBEDDED
    assert (model.safety, model.key_env, model.retires) == ("on", None, None)
    assert (model.limits.attempts, model.limits.timeout_s) == (3, 60.0)
    assert model.price.microusd == 20_000
    assert (model.model_id, model.options, model.asset_hosts) == ("folio-1-2026-01-01", {}, ())
    assert set(model.model_dump()).isdisjoint({"id", "options", "asset_hosts"})
    named = load(ENTRY | {"id": "owner/folio"}).by_name["folio-1"]
    assert named.model_id == "owner/folio"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"endpoint": "http://models.example"}, "must be 'embedded', an https:// address"),
        ({"endpoint": "ftp://x"}, "field 'models.0.endpoint'"),
        ({"endpoint": "file:///etc/passwd"}, "field 'models.0.endpoint'"),
        ({"endpoint": "http://127.0.0.1.evil.example/"}, "field 'models.0.endpoint'"),
        ({"endpoint": "http://localhost.evil.example/"}, "field 'models.0.endpoint'"),
        ({"endpoint": "http://127.0.0.1@evil.example/"}, "field 'models.0.endpoint'"),
        ({"endpoint": "https://x:port"}, "field 'models.0.endpoint'"),
        ({"endpoint": "https://[x"}, "field 'models.0.endpoint'"),
        ({"endpoint": "https://"}, "field 'models.0.endpoint'"),
        ({"endpoint": "https://user:secret@models.example/"}, "field 'models.0.endpoint'"),
        ({"name": "Folio 1"}, "field 'models.0.name'"),
        ({"name": "../../x"}, "field 'models.0.name'"),
        ({"name": ""}, "field 'models.0.name'"),
        ({"version": ""}, "field 'models.0.version'"),
        ({"pin": "loose"}, "field 'models.0.pin'"),
        ({"operations": []}, "field 'models.0.operations'"),
        ({"operations": ["paint"]}, "field 'models.0.operations.0'"),
        ({"price": ENTRY["price"] | {"usd": -0.01}}, "greater than or equal to 0, got -0.01"),
        ({"price": ENTRY["price"] | {"usd": float("nan")}}, "field 'models.0.price.usd'"),
        ({"price": ENTRY["price"] | {"source": ""}}, "field 'models.0.price.source'"),
        ({"price": {"usd": 1, "source": "s"}}, "field 'models.0.price.date'"),
        ({"licence": {"id": "MIT", "uses": ["war"]}}, "field 'models.0.licence.uses.0'"),
        ({"key_env": "sk-live-very-secret"}, "field 'models.0.key_env'"),
        ({"retires": "soon"}, "field 'models.0.retires'"),
        ({"limits": {"attempts": 0}}, "field 'models.0.limits.attempts'"),
        ({"limits": {"timeout_s": 0}}, "field 'models.0.limits.timeout_s'"),
        ({"colour": "red"}, "field 'models.0.colour': unknown field"),
        ({"protocol": "carrier-pigeon"}, "field 'models.0.protocol'"),
        ({"id": ""}, "field 'models.0.id'"),
        ({"asset_hosts": ["https://cdn.example.com"]}, "field 'models.0.asset_hosts.0'"),
        ({"asset_hosts": ["10.0.0.1"]}, "field 'models.0.asset_hosts.0'"),
        ({"asset_hosts": ["localhost"]}, "field 'models.0.asset_hosts.0'"),
        ({"asset_hosts": [".com"]}, "field 'models.0.asset_hosts.0'"),
        ({"price": ENTRY["price"] | {"per": "token"}}, "'tokens' belongs to per: token"),
        ({"price": ENTRY["price"] | {"per": "pound"}}, "field 'models.0.price.per'"),
    ],
)
def test_a_wrong_entry_says_file_and_field(
    load: Callable[..., Any], change: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ENTRY | change)
    assert "catalog.yaml" in str(caught.value)
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value), "a pasted key is repeated"


@pytest.mark.parametrize(
    "endpoint",
    [
        "embedded",
        "https://models.example/v1",
        "http://127.0.0.1:8188",
        "http://localhost:8188/api",
        "http://localhost",
        "http://[::1]:8188",
    ],
)
def test_good_endpoints_are_taken_as_they_are(load: Callable[..., Any], endpoint: str) -> None:
    assert load(ENTRY | {"endpoint": endpoint}).models[0].endpoint == endpoint


def test_a_model_stands_in_the_catalog_once(load: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="'folio-1' stands in the catalog twice"):
        load(ENTRY, ENTRY)


def test_an_empty_catalog_is_refused(tmp_path: Path, load: Callable[..., Any]) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match="needs 'models'"):
        load_catalog(path)
    with pytest.raises(ConfigError, match="field 'models'"):
        load()
    with pytest.raises(ConfigError, match="field 'schema_version'"):
        load(ENTRY, schema_version=2)


def test_a_price_is_rounded_up_to_whole_micro_dollars() -> None:
    price = Price(usd=0.0000001, source="s", date=date(2026, 1, 1))
    assert price.microusd == 1


def test_entries_do_not_change_after_they_were_read(load: Callable[..., Any]) -> None:
    with pytest.raises(ValidationError):
        load(ENTRY).models[0].version = "other"
