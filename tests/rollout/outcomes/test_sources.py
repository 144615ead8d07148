from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.errors import ConfigError
from tasks.rollout.config import RolloutConfig, load_rollout
from tasks.rollout.outcomes.base import InputSource
from tasks.rollout.outcomes.sources import open_sources
from tasks.settings import DEPLOYMENTS, Settings, load_settings

EVERY_KIND: list[dict[str, Any]] = [
    {"kind": "haproxy"},
    {
        "kind": "logs",
        "name": "requests",
        "files": "/var/log/shop/*.jsonl*",
        "rows": {"slow_above_ms": 8000, "left_out": ["cancelled"], "names": {"mix": "route.mix"}},
    },
    {
        "kind": "logs",
        "name": "clients",
        "files": "/var/log/shop/beacons-*.jsonl",
        "measures": ["latency"],
        "rows": {"slow_above_ms": 10000},
    },
    {
        "kind": "prometheus",
        "url": "https://prometheus.example",
        "token_env": "PROM_TOKEN",
        "images": 'image_requests_total{product="$product"}',
        "failures": 'image_requests_total{product="$product",outcome!="ok"}',
        "inputs": "image_inputs_total",
    },
    {
        "kind": "sql",
        "url_env": "SHOP_DB",
        "query": "SELECT mix, sum(n) AS images FROM r WHERE t >= :since AND t < :until GROUP BY 1",
    },
    {"kind": "tickets_csv", "files": "/exports/*.csv", "requests": "requests"},
    {
        "kind": "tickets_api",
        "url": "https://shop.zendesk.example",
        "user": "bot@shop.example",
        "token_env": "DESK_TOKEN",
    },
    {"kind": "shadow", "requests": "requests", "folder": "/var/images", "images": 10},
]
ROUTER = {
    "kind": "haproxy",
    "instances": [{"socket": "/run/h.sock", "map_file": "/etc/haproxy/imagegate.map"}],
    "products": {"shop": {"backends": [{"name": "blue"}, {"name": "green"}]}},
}
SECRETS = {
    "PROM_TOKEN": "tok-prometheus",
    "SHOP_DB": "postgresql+psycopg://reader:tok-db@db.example/shop",
    "DESK_TOKEN": "tok-desk",
}


def settings(tmp_path: Path, outcomes: list[dict[str, Any]], **env: str) -> Settings:
    file = tmp_path / "rollout.yaml"
    file.write_text(yaml.safe_dump({"router": ROUTER, "outcomes": outcomes}))
    return load_settings({"IMAGEGATE_ROLLOUT_FILE": str(file), **env}, tmp_path / "home")


def test_every_kind_opens_without_touching_anything(tmp_path: Path) -> None:
    found = settings(tmp_path, EVERY_KIND, **SECRETS)
    sources = open_sources(load_rollout(found).outcomes, found)
    names = [source.name for source in sources]
    assert names == [
        "haproxy",
        "requests",
        "clients",
        "prometheus",
        "sql",
        "tickets_csv",
        "tickets_api",
        "shadow",
    ]
    assert [isinstance(source, InputSource) for source in sources[:5]] == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert not (tmp_path / "home").exists()
    assert "tok-" not in repr(sources) + str(load_rollout(found))


@pytest.mark.parametrize("missing", SECRETS)
def test_a_secret_that_is_not_set_is_named(tmp_path: Path, missing: str) -> None:
    there = {name: value for name, value in SECRETS.items() if name != missing}
    found = settings(tmp_path, EVERY_KIND, **there)
    with pytest.raises(ConfigError, match=missing):
        open_sources(load_rollout(found).outcomes, found)


def test_haproxys_counters_need_haproxy_as_the_router(tmp_path: Path) -> None:
    file = tmp_path / "rollout.yaml"
    file.write_text(yaml.safe_dump({"outcomes": [{"kind": "haproxy"}]}))
    found = load_settings({"IMAGEGATE_ROLLOUT_FILE": str(file)}, tmp_path)
    with pytest.raises(ConfigError, match="got 'file'"):
        open_sources(load_rollout(found).outcomes, found)


@pytest.mark.parametrize("kind", ["tickets_csv", "shadow"])
def test_a_log_that_is_not_there_is_named(tmp_path: Path, kind: str) -> None:
    section = {"kind": kind, "requests": "nothing"}
    if kind == "tickets_csv":
        section["files"] = "x"
    found = settings(tmp_path, [EVERY_KIND[1], section])
    with pytest.raises(ConfigError, match=r"'nothing'.*known: requests"):
        open_sources(load_rollout(found).outcomes, found)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    found = settings(tmp_path, [EVERY_KIND[1], EVERY_KIND[1]])
    with pytest.raises(ConfigError, match="'requests' stands twice"):
        open_sources(load_rollout(found).outcomes, found)


def test_the_examples_in_the_rollout_file_can_be_used_as_they_stand() -> None:
    text = (DEPLOYMENTS / "rollout.example.yaml").read_text(encoding="utf-8")
    section = text[text.index("\noutcomes:") :].partition("\n# Instead")[0]
    whole = yaml.safe_load(re.sub(r"(?m)^  # ", "  ", section))
    kinds = [one.kind for one in RolloutConfig.model_validate(whole).outcomes]
    assert kinds == ["haproxy", "logs", "prometheus", "sql", "tickets_api", "shadow"]
