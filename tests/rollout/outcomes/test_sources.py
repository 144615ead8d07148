from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.errors import ConfigError
from tasks.rollout.config import RolloutConfig, load_rollout
from tasks.rollout.outcomes.base import ArmOutcomes, InputSource, read_all
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


def test_logs_beacons_tickets_and_pictures_make_one_picture(tmp_path: Path) -> None:
    start = datetime(2020, 2, 29, 12, tzinfo=UTC)
    mix, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "bad.png").write_bytes(b"no picture")
    rows = [
        {
            "time": (start + timedelta(seconds=n)).isoformat(),
            "mix_digest": other if n % 4 == 0 else mix,
            "ok": n % 8 > 0,
            "latency_ms": 900,
            "cost_microusd": 19_000,
            "request_id": f"r{n}",
            "image": "bad.png" if n == 4 else None,
        }
        for n in range(40)
    ]
    beacons = [
        {"time": row["time"], "mix_digest": row["mix_digest"], "latency_ms": 5_000} for row in rows
    ]
    for name, content in (("requests", rows), ("beacons", beacons)):
        text = "".join(json.dumps(row) + "\n" for row in content)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "tickets.csv").write_text("id,created_at,tags,request\n")
    outcomes: list[dict[str, Any]] = [
        {
            "kind": "logs",
            "name": "beacons",
            "files": str(tmp_path / "beacons.jsonl"),
            "measures": ["latency"],
            "lag_s": 5,
            "rows": {"slow_above_ms": 4_000},
        },
        {
            "kind": "logs",
            "name": "requests",
            "files": str(tmp_path / "requests.jsonl"),
            "rows": {"slow_above_ms": 4_000},
        },
        {
            "kind": "tickets_csv",
            "files": str(tmp_path / "tickets.csv"),
            "requests": "requests",
            "request_column": "request",
            "every_s": 0,
        },
        {"kind": "shadow", "share": 1, "folder": str(tmp_path / "out"), "requests": "requests"},
    ]
    now = start + timedelta(seconds=50)
    found = settings(tmp_path, outcomes)
    sources = open_sources(load_rollout(found).outcomes, found, lambda: now)
    first = read_all(sources, "shop", [mix, other], start, now)
    assert first.until == now - timedelta(seconds=30)
    assert first.errors == ()
    assert first.arms[mix] == ArmOutcomes(15, 0, 15, 15, 285_000, 0, 0, 0, 15)
    assert first.arms[other] == ArmOutcomes(5, 3, 5, 5, 95_000, 0, 1, 1, 5)
    with (tmp_path / "tickets.csv").open("a") as file:
        file.write(f"1,{now.isoformat()},,r12\n")
    now += timedelta(seconds=40)
    second = read_all(sources, "shop", [mix, other], first.until, now)
    now += timedelta(seconds=60)
    third = read_all(sources, "shop", [mix, other], second.until, now)
    assert second.arms[mix].images + second.arms[other].images == 20
    assert (third.arms[mix].images, third.arms[mix].timed) == (0, 0)
    tickets = [(o.arms[mix].tickets, o.arms[other].tickets) for o in (second, third)]
    assert tickets == [(0, 0), (0, 1)]
