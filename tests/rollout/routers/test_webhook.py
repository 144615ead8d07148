from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tasks.errors import ConfigError, FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.config import open_router
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.config import WebhookRouterConfig
from tasks.rollout.routers.http import LostError
from tasks.rollout.routers.webhook import WebhookRouter, sign, signature_holds
from tasks.settings import load_settings
from tests.rollout.routers.web import Asked, Said, Web

KEY = "whk-very-secret"
NOW = 1_790_000_000.0


class Service(Web):
    """Keeps a routing by the rules of the docstring of the webhook router."""

    def __init__(self) -> None:
        super().__init__()
        self.routings: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, int] = {}
        #: Takes changes and goes on as before.
        self.lies = False
        #: Reads that still show the old routing after a change.
        self.lag = 0
        self._old: dict[str, Any] | None = None

    def handle(self, asked: Asked) -> Said:
        if not signature_holds(KEY, asked.method, asked.target, asked.headers, asked.body, now=NOW):
            return Said(401, {"error": "bad signature"})
        product = asked.path.removeprefix("/routing").strip("/")
        if not product:
            return Said(200, {"ready": True})
        if asked.method == "GET":
            return self._get(product)
        etag = self._etag(product)
        first = asked.headers.get("if-none-match") == "*"
        if (etag is None) != first or (etag and asked.headers.get("if-match") != etag):
            return Said(412, {"error": "another routing is in force"})
        if not self.lies:
            self._old = self.routings.get(product)
            self.routings[product] = asked.json
            self.versions[product] = self.versions.get(product, 0) + 1
        return Said(202, {"accepted": True})

    def _etag(self, product: str) -> str | None:
        return f'"{self.versions[product]}"' if product in self.versions else None

    def _get(self, product: str) -> Said:
        routing = self.routings.get(product)
        if self.lag > 0 and self._old is not None:
            self.lag -= 1
            routing = self._old
        etag = self._etag(product)
        if routing is None or etag is None:
            return Said(404, {"error": "unknown"})
        return Said(200, {k: v for k, v in routing.items() if k != "mixes"}, {"ETag": etag})


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as server:
        yield server


def opened(service: Service, *, key: str = KEY, settle_s: float = 60) -> WebhookRouter:
    config = WebhookRouterConfig(
        kind="webhook",
        url=f"{service.url}/routing",
        key_env="HOOK_KEY",
        timeout_s=20,
        settle_s=settle_s,
    )
    return WebhookRouter(config, SecretStr(key), clock=lambda: NOW)


@pytest.fixture
def hook(service: Service) -> WebhookRouter:
    return opened(service)


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


def test_what_was_put_is_read_back(
    hook: WebhookRouter, service: Service, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    hook.probe()
    assert hook.read("shop") is None
    hook.apply(whole(winter, 1))
    assert hook.read("shop") == RouterState("shop", winter.digest, 1, {winter.digest: 1.0})
    wanted = Desired("shop", 2, (Share(winter, 0.95), Share(summer, 0.05)))
    hook.apply(wanted)
    shown = hook.read("shop")
    assert shown is not None
    assert shown.shows(wanted)
    # The service can serve by the manifest alone.
    manifest = ResolvedMix.model_validate(service.routings["shop"]["mixes"][summer.digest])
    assert manifest.digest == summer.digest
    count = sum(asked.method == "PUT" for asked in service.asked)
    hook.apply(wanted)
    assert sum(asked.method == "PUT" for asked in service.asked) == count


def test_a_service_that_takes_a_while_is_waited_for(
    hook: WebhookRouter, service: Service, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    hook.apply(whole(winter, 1))
    service.lag = 4  # The look before the change, and three after it.
    hook.apply(whole(summer, 2))
    shown = hook.read("shop")
    assert shown is not None
    assert shown.shows(whole(summer, 2))


def test_a_service_that_says_yes_and_does_nothing_is_found_out(
    service: Service, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    hook = opened(service, settle_s=0.05)
    hook.apply(whole(winter, 1))
    service.lies = True
    with pytest.raises(RolloutError, match="does not serve it"):
        hook.apply(whole(summer, 2))


def test_an_answer_that_got_lost_is_looked_up_and_the_change_not_made_twice(
    hook: WebhookRouter, service: Service, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    hook.apply(whole(winter, 1))
    lost = []

    def lose_one(asked: Asked) -> Said | None:
        if asked.method == "PUT" and not lost:
            lost.append(service.handle(asked))
            return Said(lost=True)
        return None

    service.bend = lose_one
    hook.apply(whole(summer, 2))
    assert lost[0].status == 202
    assert service.versions["shop"] == 2
    service.bend = lambda asked: Said(lost=True)
    with pytest.raises(LostError, match="no answer"):
        hook.apply(whole(winter, 3))


def test_whoever_was_faster_wins(
    hook: WebhookRouter, service: Service, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    hook.apply(whole(winter, 1))
    rival = opened(service)
    done = []

    def rival_first(asked: Asked) -> Said | None:
        if asked.method == "PUT" and not done:
            done.append(True)
            # Between our look and our request somebody else made a change.
            service.routings["shop"] = service.routings["shop"] | {"epoch": 2, "by": "rival"}
            service.versions["shop"] += 1
        return None

    service.bend = rival_first
    with pytest.raises(FencedError, match="comes too late"):
        hook.apply(whole(summer, 2))
    shown = rival.read("shop")
    assert shown is not None
    assert (shown.mix_digest, shown.epoch) == (winter.digest, 2)


def test_an_older_epoch_never_comes_back(
    hook: WebhookRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    hook.apply(whole(summer, 5))
    for late in (whole(winter, 4), whole(winter, 5)):
        with pytest.raises(FencedError, match="epoch 5"):
            hook.apply(late)


def test_a_wrong_key_is_said_before_anything_changes(service: Service, winter: ResolvedMix) -> None:
    hook = opened(service, key="another")
    for step in (hook.probe, lambda: hook.read("shop"), lambda: hook.apply(whole(winter, 1))):
        with pytest.raises(RolloutError, match=r"401.*is the key the same") as caught:
            step()
        assert "another" not in str(caught.value)
    assert service.routings == {}


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            Said(200, {"product": "shop", "epoch": 1, "mix_digest": "a", "weights": {"a": 1}}),
            "ETag",
        ),
        (
            Said(
                200,
                {"product": "shop", "epoch": 1, "mix_digest": "a", "weights": {"a": 1}},
                {"ETag": 'W/"1"'},
            ),
            "no strong ETag",
        ),
        (Said(200, {"product": "cards"}, {"ETag": '"1"'}), "no routing of 'shop'"),
        (Said(200, [], {"ETag": '"1"'}), "no routing of 'shop'"),
        (
            Said(200, {"product": "shop", "epoch": True, "mix_digest": "a", "weights": {}}),
            "no routing",
        ),
        (
            Said(200, {"product": "shop", "epoch": 1, "mix_digest": "a", "weights": {"a": "1"}}),
            "no routing",
        ),
        (
            Said(200, {"product": "shop", "epoch": 1, "mix_digest": "a", "weights": {"a": 7}}),
            "no routing",
        ),
        (Said(200, raw=b"<html>login</html>"), "no JSON"),
        (Said(302, None, {"Location": "http://elsewhere/"}), "HTTP 302"),
        (Said(503, {"error": "down"}), "HTTP 503"),
    ],
)
def test_a_service_that_does_not_keep_to_the_rules_changes_nothing(
    hook: WebhookRouter, service: Service, winter: ResolvedMix, said: Said, match: str
) -> None:
    service.bend = lambda asked: said if asked.method == "GET" else None
    with pytest.raises(RolloutError, match=match):
        hook.apply(whole(winter, 2))
    assert service.routings == {}


def test_a_signature_holds_for_one_request_and_for_a_while() -> None:
    body = b'{"epoch":1}'
    headers = {
        "x-imagegate-timestamp": str(int(NOW)),
        "x-imagegate-signature": sign(KEY, "PUT", "/routing/shop", int(NOW), body),
    }

    def holds(**changes: Any) -> bool:
        given: dict[str, Any] = {
            "key": KEY,
            "method": "PUT",
            "path": "/routing/shop",
            "headers": headers,
            "body": body,
            "now": NOW,
        }
        return signature_holds(**(given | changes))

    assert holds()
    assert holds(now=NOW + 299)
    assert not holds(now=NOW + 301)
    assert not holds(now=NOW - 301)
    assert not holds(method="GET")
    assert not holds(path="/routing/cards")
    assert not holds(body=body + b" ")
    assert not holds(key="other")
    assert not holds(headers={})
    assert not holds(headers=headers | {"x-imagegate-timestamp": str(int(NOW) + 1)})
    assert not holds(headers=headers | {"x-imagegate-timestamp": "²"})
    assert not holds(headers=headers | {"x-imagegate-signature": "v1=ü"})


def test_the_key_comes_from_the_environment_and_is_never_shown(
    service: Service, tmp_path: Path
) -> None:
    path = tmp_path / "rollout.yaml"
    path.write_text(
        f"router: {{kind: webhook, url: {service.url}/routing, key_env: HOOK_KEY}}\n",
        encoding="utf-8",
    )
    env = {"IMAGEGATE_ROLLOUT_FILE": str(path)}
    with pytest.raises(ConfigError, match=r"'HOOK_KEY'.*not set"):
        open_router(load_settings(env, home=tmp_path))
    router = open_router(load_settings(env | {"HOOK_KEY": KEY}, home=tmp_path))
    assert isinstance(router, WebhookRouter)
    assert KEY not in repr(vars(router))
    # A key that was pasted where its variable's name belongs is not repeated.
    path.write_text(
        f"router: {{kind: webhook, url: {service.url}, key_env: {KEY}}}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigError) as caught:
        open_router(load_settings(env, home=tmp_path))
    assert KEY not in str(caught.value)


def test_traffic_is_tried_with_a_real_request(service: Service) -> None:
    config = WebhookRouterConfig(
        kind="webhook",
        url=f"{service.url}/routing",
        key_env="HOOK_KEY",
        probe_url="http://127.0.0.1:9/",
        timeout_s=20,
    )
    with pytest.raises(RolloutError, match=r"no answer from http://127\.0\.0\.1:9/"):
        WebhookRouter(config, SecretStr(KEY), clock=lambda: NOW).probe()
