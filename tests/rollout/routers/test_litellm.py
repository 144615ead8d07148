"""The LiteLLM router against an admin API by the rules of LiteLLM 1.110's own source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.config import open_router
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.config import LitellmRouterConfig
from tasks.rollout.routers.litellm import LitellmRouter
from tasks.settings import load_settings
from tests.rollout.routers.web import Asked, Said, Web

KEY = "sk-very-secret"


class Proxy(Web):
    """Deployments in a database, loaded into the proxy's router after every change."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[str, dict[str, Any]] = {}
        self.loaded: dict[str, dict[str, Any]] = {}
        #: Looks until the proxy has loaded what is stored.
        self.lag = 0
        #: An old LiteLLM that does not know the word.
        self.knows_blocked = True
        self.lies = False
        #: Who could get a request after each change: weight above 0 and not blocked.
        self.open_after: list[set[str]] = []

    def add(self, name: str, serves: str | None, weight: int = 1) -> None:
        info: dict[str, Any] = {"id": name, "db_model": True}
        if serves is not None:
            info["imagegate_serves"] = serves
        self.stored[name] = {
            "model_name": "images",
            "litellm_params": {"model": f"openai/{name}", "weight": weight},
            "model_info": info,
            "blocked": False,
        }
        self._load()

    def _load(self) -> None:
        for name, row in self.stored.items():
            info = dict(row["model_info"])
            if self.knows_blocked:
                info["blocked"] = row["blocked"]
            self.loaded[name] = {
                "model_name": row["model_name"],
                "litellm_params": dict(row["litellm_params"]),
                "model_info": info,
            }

    def handle(self, asked: Asked) -> Said:
        if asked.headers.get("authorization") != f"Bearer {KEY}":
            return Said(401, {"error": f"Invalid key {asked.headers.get('authorization')}"})
        if asked.path == "/v1/model/info":
            if self.lag > 0:
                self.lag -= 1
            else:
                self._load()
            return Said(200, {"data": list(self.loaded.values())})
        parts = asked.path.strip("/").split("/")
        assert asked.method == "PATCH"
        assert (parts[0], parts[2]) == ("model", "update")
        row = self.stored.get(parts[1])
        if row is None:
            return Said(404, {"error": "Model not found on proxy"})
        if self.lies:
            return Said(200, {})
        change = asked.json
        # A model_info without an id gets a new one: LiteLLM's ModelInfo makes it up.
        assert change["model_info"]["id"] == parts[1]
        row["litellm_params"] |= change["litellm_params"]
        row["model_info"] |= change["model_info"]
        row["blocked"] = change["blocked"] if self.knows_blocked else False
        self.open_after.append(
            {
                name
                for name, one in self.stored.items()
                if one["litellm_params"]["weight"] > 0 and not one["blocked"]
            }
        )
        return Said(200, row)


@pytest.fixture
def proxy(winter: ResolvedMix, summer: ResolvedMix) -> Iterator[Proxy]:
    with Proxy() as server:
        server.add("blue", winter.digest)
        server.add("green", summer.digest)
        yield server


def opened(proxy: Proxy, *, key: str = KEY, settle_s: float = 60) -> LitellmRouter:
    config = LitellmRouterConfig.model_validate(
        {
            "kind": "litellm",
            "url": proxy.url,
            "key_env": "LITELLM_KEY",
            "products": {"shop": {"backends": [{"name": "blue"}, {"name": "green"}]}},
            "timeout_s": 20,
            "settle_s": settle_s,
        }
    )
    return LitellmRouter(config, SecretStr(key))


@pytest.fixture
def lite(proxy: Proxy) -> LitellmRouter:
    return opened(proxy)


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


def split(winter: ResolvedMix, summer: ResolvedMix, weight: float, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(winter, 1 - weight), Share(summer, weight)))


def weights(proxy: Proxy) -> dict[str, int]:
    return {name: row["litellm_params"]["weight"] for name, row in proxy.stored.items()}


def test_a_canary_walks_by_weights_and_somebody_always_serves(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite.probe()
    assert lite.read("shop") is None
    lite.apply(whole(winter, 1))
    assert lite.read("shop") == RouterState("shop", winter.digest, 1, {winter.digest: 1.0})
    assert proxy.stored["green"]["blocked"]
    for epoch, weight in enumerate((0.01, 0.05, 0.25, 0.5), start=2):
        wanted = split(winter, summer, weight, epoch)
        lite.apply(wanted)
        assert weights(proxy)["green"] == round(weight * 1_000_000)
        shown = lite.read("shop")
        assert shown is not None
        assert shown.shows(wanted)
    lite.apply(whole(summer, 6))
    assert proxy.stored["blue"]["blocked"]
    lite.apply(whole(winter, 7))
    assert weights(proxy) == {"blue": 1_000_000, "green": 0}
    assert all(proxy.open_after)
    # What the deployments had besides is theirs.
    assert proxy.stored["blue"]["litellm_params"]["model"] == "openai/blue"
    count = len(proxy.open_after)
    lite.apply(whole(winter, 7))
    assert len(proxy.open_after) == count


def test_a_rollback_closes_the_candidate_with_its_first_request(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite.apply(whole(winter, 1))
    lite.apply(split(winter, summer, 0.5, 2))
    proxy.open_after.clear()
    lite.apply(whole(winter, 3))
    assert proxy.open_after[0] == {"blue"}


def test_what_was_changed_by_half_is_not_shown_and_finished_by_the_next(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite.apply(whole(winter, 1))
    wanted = split(winter, summer, 0.25, 2)
    seen = []

    def dies(asked: Asked) -> Said | None:
        if asked.method == "PATCH":
            seen.append(asked)
            if len(seen) > 1:
                return Said(500, {"error": "gone"})
        return None

    proxy.bend = dies
    with pytest.raises(RolloutError, match="HTTP 500"):
        lite.apply(wanted)
    shown = lite.read("shop")
    assert shown is not None
    assert (shown.epoch, dict(shown.weights)) == (2, {})
    proxy.bend = lambda asked: None
    lite.apply(wanted)
    shown = lite.read("shop")
    assert shown is not None
    assert shown.shows(wanted)


def test_a_proxy_that_loads_later_is_waited_for(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite.apply(whole(winter, 1))
    proxy.lag = 4
    lite.apply(whole(summer, 2))
    assert proxy.lag == 0


def test_a_proxy_that_says_yes_and_does_nothing_is_found_out(
    proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite = opened(proxy, settle_s=0.05)
    lite.apply(whole(winter, 1))
    proxy.lies = True
    with pytest.raises(RolloutError, match="does not run it"):
        lite.apply(whole(summer, 2))


def test_a_litellm_that_cannot_block_cannot_be_trusted_with_no_share(
    proxy: Proxy, winter: ResolvedMix
) -> None:
    proxy.knows_blocked = False
    proxy._load()
    with pytest.raises(RolloutError, match="does not run it"):
        opened(proxy, settle_s=0.05).apply(whole(winter, 1))


def test_a_change_by_hand_is_seen_and_put_right(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite.apply(whole(winter, 1))
    wanted = split(winter, summer, 0.25, 2)
    lite.apply(wanted)
    for change in (
        {"litellm_params": {"weight": 5}},
        {"blocked": True},
        {"model_info": {"imagegate_routing": "hello"}},
    ):
        row = proxy.stored["green"]
        proxy.stored["green"] = row | {
            name: (row[name] | value if isinstance(value, dict) else value)
            for name, value in change.items()
        }
        shown = lite.read("shop")
        assert shown is not None
        assert not shown.shows(wanted)
        lite.apply(wanted)
        shown = lite.read("shop")
        assert shown is not None
        assert shown.shows(wanted)
    for row in proxy.stored.values():
        row["model_info"]["imagegate_routing"] = "hello"
    with pytest.raises(RolloutError, match="somebody else wrote it"):
        lite.read("shop")
    lite.apply(whole(winter, 3))


def test_a_mix_goes_only_where_it_is_served(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    lite.apply(whole(winter, 1))
    with pytest.raises(RolloutError, match=rf"no deployment.*{autumn.digest}.*imagegate_serves"):
        lite.apply(whole(autumn, 2))
    proxy.stored["green"]["model_info"]["imagegate_serves"] = autumn.digest
    lite.apply(whole(autumn, 2))
    assert weights(proxy) == {"blue": 0, "green": 1_000_000}
    # Its place was given to another mix: a rollback does not go there.
    proxy.stored["blue"]["model_info"]["imagegate_serves"] = summer.digest
    with pytest.raises(RolloutError, match="no deployment"):
        lite.apply(whole(winter, 3))


def test_an_older_epoch_never_comes_back(
    lite: LitellmRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    lite.apply(whole(winter, 5))
    for late in (whole(summer, 5), whole(winter, 4)):
        with pytest.raises(FencedError, match="epoch 5"):
            lite.apply(late)


def test_an_answer_that_got_lost_is_asked_for_again(
    lite: LitellmRouter, proxy: Proxy, winter: ResolvedMix
) -> None:
    lost = []

    def lose_one(asked: Asked) -> Said | None:
        if asked.method == "PATCH" and not lost:
            lost.append(proxy.handle(asked))
            return Said(lost=True)
        return None

    proxy.bend = lose_one
    lite.apply(whole(winter, 1))
    assert lost


def test_a_wrong_key_is_said_and_not_repeated(proxy: Proxy, winter: ResolvedMix) -> None:
    lite = opened(proxy, key="sk-other-secret")
    for step in (lite.probe, lambda: lite.read("shop"), lambda: lite.apply(whole(winter, 1))):
        with pytest.raises(RolloutError, match="key of a proxy admin") as caught:
            step()
        assert "sk-other-secret" not in str(caught.value)


def test_deployments_that_cannot_be_split_are_named_before_a_change(
    lite: LitellmRouter, proxy: Proxy
) -> None:
    proxy.stored["green"]["model_name"] = "other"
    with pytest.raises(RolloutError, match=r"different model groups.*images, other"):
        lite.probe()
    proxy.stored["green"]["model_name"] = "images"
    proxy.stored["green"]["model_info"]["db_model"] = False
    with pytest.raises(RolloutError, match="config file"):
        lite.probe()
    del proxy.stored["green"], proxy.loaded["green"]
    with pytest.raises(RolloutError, match=r"no deployment with the id 'green' \(known: blue\)"):
        lite.probe()


@pytest.mark.parametrize("value", [[], {"data": {}}, "x", {"data": [1, {"model_info": 3}]}])
def test_nonsense_is_an_error(lite: LitellmRouter, proxy: Proxy, value: Any) -> None:
    proxy.bend = lambda asked: Said(200, value)
    with pytest.raises(RolloutError):
        lite.read("shop")


def test_the_rollout_file_opens_it(proxy: Proxy, tmp_path: Path) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text(
        f"router:\n  kind: litellm\n  url: {proxy.url}\n  key_env: LITELLM_KEY\n"
        "  products: {shop: {backends: [{name: blue}, {name: green}]}}\n",
        encoding="utf-8",
    )
    env = {"IMAGEGATE_ROLLOUT_FILE": str(path), "LITELLM_KEY": KEY}
    router = open_router(load_settings(env, home=tmp_path))
    router.probe()
    assert KEY not in repr(vars(router))
