"""The Gateway API router against an API server with Kubernetes' rules of server-side apply."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.errors import FencedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.rollout.config import open_router
from tasks.rollout.routers.base import Desired, RouterState, Share
from tasks.rollout.routers.config import GatewayRouterConfig
from tasks.rollout.routers.gateway_api import ANNOTATION, GatewayRouter
from tasks.settings import load_settings
from tests.rollout.routers.web import Asked, Said, Web

TOKEN = "sa-very-secret"
ROUTE = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/images"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"


def status(code: int, message: str, **details: Any) -> Said:
    value = {"kind": "Status", "code": code, "message": message, "details": details}
    return Said(code, value)


class ApiServer(Web):
    """One HTTPRoute: versions, generations, owners of fields, dry runs, and a controller."""

    def __init__(self) -> None:
        super().__init__()
        self.version, self.generation = 41, 1
        self.annotations: dict[str, str] = {"team": "images"}
        self.rules: list[dict[str, Any]] = [
            {
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "backendRefs": [{"name": "shop-blue", "port": 8080, "weight": 1}],
            },
            {"backendRefs": [{"name": "admin", "port": 80}]},
        ]
        #: Who owns ``spec.rules``; another one conflicts unless it forces.
        self.owner = "imagegate"
        #: Generations that the controller has looked at; ``None``: all at once.
        self.observed: int | None = None
        self.refuses: str | None = None
        #: Looks that the controller needs until it has accepted a change.
        self.lag = 0
        self.ready = {"shop-blue", "shop-green"}
        self.patches: list[Asked] = []

    def handle(self, asked: Asked) -> Said:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return status(401, "Unauthorized")
        if asked.path == SLICES:
            name = asked.query["labelSelector"].partition("=")[2]
            endpoints = [{"conditions": {"ready": name in self.ready}}]
            return Said(200, {"items": [{"endpoints": endpoints}]})
        if asked.path != ROUTE:
            return status(404, "not found")
        if asked.method == "GET":
            return Said(200, self.route())
        return self._apply(asked)

    def route(self) -> dict[str, Any]:
        observed = self.generation if self.observed is None else self.observed
        if self.lag > 0:
            self.lag -= 1
            observed = self.generation - 1
        accepted = {
            "type": "Accepted",
            "status": "False" if self.refuses else "True",
            "reason": self.refuses or "Accepted",
            "message": "looked at",
            "observedGeneration": observed,
        }
        resolved = accepted | {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs"}
        # The server fills in what was left out.
        rules = copy.deepcopy(self.rules)
        for rule in rules:
            for reference in rule["backendRefs"]:
                reference |= {"group": "", "kind": "Service"}
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {
                "name": "images",
                "namespace": "shop",
                "resourceVersion": str(self.version),
                "generation": self.generation,
                "annotations": dict(self.annotations),
            },
            "spec": {"parentRefs": [{"name": "edge"}], "rules": rules},
            "status": {"parents": [{"conditions": [accepted, resolved]}]},
        }

    def _apply(self, asked: Asked) -> Said:
        assert asked.method == "PATCH"
        assert asked.headers["content-type"] == "application/apply-patch+yaml"
        manager, force = asked.query["fieldManager"], asked.query["force"] == "true"
        value = asked.json
        assert value["kind"] == "HTTPRoute"
        assert value["apiVersion"] == "gateway.networking.k8s.io/v1"
        version = value["metadata"].get("resourceVersion")
        if version is not None and version != str(self.version):
            return status(409, "the object has been modified; please apply your changes")
        rules = value["spec"]["rules"]
        before = self.route()["spec"]["rules"]
        if self.owner != manager and not force and rules != before:
            cause = {
                "reason": "FieldManagerConflict",
                "message": f'conflict with "{self.owner}"',
                "field": ".spec.rules",
            }
            return status(409, "Apply failed with 1 conflict", causes=[cause])
        if asked.query.get("dryRun") == "All":
            return Said(200, self.route())
        self.patches.append(asked)
        self.owner = manager
        self.generation += rules != before
        self.version += 1
        self.rules = rules
        self.annotations |= value["metadata"].get("annotations", {})
        return Said(200, self.route())


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n", encoding="utf-8")
    return path


def config(api: ApiServer, token: Path, **changes: Any) -> GatewayRouterConfig:
    backends = [{"name": "shop-blue", "port": 8080}, {"name": "shop-green", "port": 8080}]
    value = {
        "kind": "gateway-api",
        "namespace": "shop",
        "server": api.url,
        "token_file": str(token),
        "ca_file": None,
        "products": {"shop": {"route": "images", "backends": backends}},
        "timeout_s": 20,
        "settle_s": 60,
    }
    return GatewayRouterConfig.model_validate(value | changes)


@pytest.fixture
def gateway(api: ApiServer, token: Path) -> GatewayRouter:
    return GatewayRouter(config(api, token))


def whole(mix: ResolvedMix, epoch: int) -> Desired:
    return Desired("shop", epoch, (Share(mix, 1.0),))


def weights(api: ApiServer) -> dict[str, int]:
    return {one["name"]: one["weight"] for one in api.rules[0]["backendRefs"]}


def test_a_canary_walks_by_weights(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    gateway.probe()
    assert api.patches == []
    assert gateway.read("shop") is None
    gateway.apply(whole(winter, 1))
    assert gateway.read("shop") == RouterState("shop", winter.digest, 1, {winter.digest: 1.0})
    wanted = Desired("shop", 2, (Share(winter, 0.95), Share(summer, 0.05)))
    gateway.apply(wanted)
    assert weights(api) == {"shop-blue": 950_000, "shop-green": 50_000}
    shown = gateway.read("shop")
    assert shown is not None
    assert shown.shows(wanted)
    # The rest of the route is as it was, and each backend hears which mix it serves.
    assert api.rules[0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert api.rules[1]["backendRefs"][0]["name"] == "admin"
    assert api.annotations["team"] == "images"
    header = api.rules[0]["backendRefs"][1]["filters"][0]["requestHeaderModifier"]["set"][0]
    assert header == {"name": "X-Imagegate-Mix", "value": summer.digest}
    count = len(api.patches)
    gateway.apply(wanted)
    assert len(api.patches) == count
    gateway.apply(whole(summer, 3))
    assert weights(api) == {"shop-green": 1_000_000}
    gateway.apply(whole(winter, 4))
    assert weights(api) == {"shop-blue": 1_000_000}


def test_it_serves_when_the_controller_has_looked(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix, token: Path
) -> None:
    gateway.apply(whole(winter, 1))
    api.lag = 3
    gateway.apply(whole(summer, 2))
    assert api.lag == 0
    api.observed = api.generation
    hasty = GatewayRouter(config(api, token, settle_s=0.05))
    with pytest.raises(RolloutError, match="do not serve by it"):
        hasty.apply(whole(winter, 3))
    shown = hasty.read("shop")
    assert shown is not None
    assert (shown.epoch, dict(shown.weights)) == (3, {})
    api.observed = None
    gateway.apply(whole(winter, 3))
    api.refuses = "UnsupportedValue"
    with pytest.raises(RolloutError, match=r"controller refuses.*UnsupportedValue"):
        gateway.read("shop")


def test_a_route_that_changed_meanwhile_is_looked_at_again(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    gateway.apply(whole(winter, 1))
    touched = []

    def status_written(asked: Asked) -> Said | None:
        if asked.method == "PATCH" and len(touched) < 2:
            touched.append(True)
            api.version += 1  # A controller wrote the status between look and change.
        return None

    api.bend = status_written
    gateway.apply(whole(summer, 2))
    assert len(touched) == 2
    assert weights(api) == {"shop-green": 1_000_000}

    def always(asked: Asked) -> Said | None:
        api.version += asked.method == "PATCH"
        return None

    api.bend = always
    with pytest.raises(RolloutError, match="somebody else writes it all the time"):
        gateway.apply(whole(winter, 3))


def test_another_controller_of_ours_is_not_overwritten(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix, token: Path
) -> None:
    gateway.apply(whole(winter, 1))
    rival, done = GatewayRouter(config(api, token)), []

    def rival_first(asked: Asked) -> Said | None:
        if asked.method == "PATCH" and not done:
            done.append(True)
            value = api.annotations[ANNOTATION].split("|")
            api.annotations[ANNOTATION] = "|".join([*value[:6], "2", *value[7:]])
            api.version += 1
        return None

    api.bend = rival_first
    with pytest.raises(FencedError, match="comes too late"):
        gateway.apply(whole(summer, 2))
    shown = rival.read("shop")
    assert shown is not None
    assert (shown.mix_digest, shown.epoch) == (winter.digest, 2)


def test_rules_of_another_manager_are_taken_over_only_on_demand(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, token: Path
) -> None:
    api.owner = "argocd"
    with pytest.raises(RolloutError, match=r"argocd.*router.take_over"):
        gateway.apply(whole(winter, 1))
    assert api.patches == []
    GatewayRouter(config(api, token, take_over=True)).apply(whole(winter, 1))
    assert api.owner == "imagegate"


def test_an_answer_that_got_lost_is_looked_up(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    gateway.apply(whole(winter, 1))
    lost = []

    def lose_one(asked: Asked) -> Said | None:
        if asked.method == "PATCH" and not lost:
            lost.append(api.handle(asked))
            return Said(lost=True)
        return None

    api.bend = lose_one
    gateway.apply(whole(summer, 2))
    assert lost[0].status == 200
    assert len(api.patches) == 2


def test_a_change_by_hand_is_seen_and_put_right(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    wanted = Desired("shop", 2, (Share(winter, 0.75), Share(summer, 0.25)))
    gateway.apply(whole(winter, 1))
    gateway.apply(wanted)
    api.rules[0]["backendRefs"][1]["weight"] = 900_000
    api.generation += 1
    shown = gateway.read("shop")
    assert shown is not None
    assert not shown.shows(wanted)
    gateway.apply(wanted)
    assert weights(api) == {"shop-blue": 750_000, "shop-green": 250_000}
    api.annotations[ANNOTATION] = "hello"
    with pytest.raises(RolloutError, match="somebody else wrote it"):
        gateway.read("shop")
    gateway.apply(whole(winter, 3))
    shown = gateway.read("shop")
    assert shown is not None
    assert shown.shows(whole(winter, 3))


def test_a_service_that_is_not_ready_gets_no_first_request_but_a_rollback_goes(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    gateway.apply(whole(winter, 1))
    api.ready = {"shop-blue"}
    step = Desired("shop", 2, (Share(winter, 0.5), Share(summer, 0.5)))
    with pytest.raises(RolloutError, match=r"'shop-green'.*no endpoint"):
        gateway.apply(step)
    api.ready = {"shop-blue", "shop-green"}
    gateway.apply(step)
    api.ready = set()
    gateway.apply(whole(winter, 3))
    assert weights(api) == {"shop-blue": 1_000_000}


def test_an_older_epoch_never_comes_back(
    gateway: GatewayRouter, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    gateway.apply(whole(winter, 5))
    for late in (whole(summer, 5), whole(winter, 4)):
        with pytest.raises(FencedError, match="epoch 5"):
            gateway.apply(late)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (status(403, "forbidden"), "get and patch on httproutes"),
        (status(404, "not found"), "is the Gateway API installed"),
        (status(500, "etcd is away"), "etcd is away"),
        (Said(200, [1]), "no HTTPRoute"),
        (Said(200, {"metadata": {}, "spec": {"rules": []}}), "has 0 rules"),
        (Said(200, raw=b"<html>"), "no JSON"),
    ],
)
def test_what_the_api_server_refuses_is_said(
    gateway: GatewayRouter, api: ApiServer, winter: ResolvedMix, said: Said, match: str
) -> None:
    api.bend = lambda asked: said if asked.method == "GET" else None
    for step in (gateway.probe, lambda: gateway.apply(whole(winter, 1))):
        with pytest.raises(RolloutError, match=match) as caught:
            step()
        assert TOKEN not in str(caught.value)
    assert api.patches == []


def test_a_token_that_changed_is_read_anew(
    gateway: GatewayRouter, api: ApiServer, token: Path
) -> None:
    gateway.probe()
    token.write_text("old", encoding="utf-8")
    with pytest.raises(RolloutError, match="the token is not valid"):
        gateway.probe()
    token.write_text(TOKEN, encoding="utf-8")
    gateway.probe()
    token.unlink()
    with pytest.raises(RolloutError, match="token for Kubernetes cannot be read"):
        gateway.probe()


def test_the_rollout_file_opens_it_and_names_are_kubernetes_names(
    api: ApiServer, token: Path, tmp_path: Path
) -> None:
    import yaml

    value = config(api, token).model_dump(mode="json")
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump({"router": value}), encoding="utf-8")
    router = open_router(load_settings({"IMAGEGATE_ROLLOUT_FILE": str(path)}, home=tmp_path))
    assert isinstance(router, GatewayRouter)
    for name in ("a/../../secrets", "A", "a?b", ""):
        with pytest.raises(ValidationError):
            config(api, token, namespace=name)
