"""LiteLLM: the routing is the weights of the deployments of one model group, by its admin API.

Each mix is a deployment that says in ``model_info.imagegate_serves`` which digest it serves. A
change is a ``PATCH`` of every deployment: its weight, whether it is blocked, and the routing in one
line. They cannot be changed at once, so the order is: first open who shall get traffic and has
none, then close who shall get none, then the rest; between them both mixes serve, never neither.
While the deployments say different things, :meth:`LitellmRouter.read` shows a routing without
weights, which no wanted routing equals.

A deployment without a share is blocked, not only of weight 0: when all others cool down after
errors, LiteLLM draws among what is left whatever its weight (`simple_shuffle`, 1.110). It splits at
random, not by a request's key. Several proxies over one database each take a change over by
themselves; what is read back is the one at ``url``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import SecretStr

from tasks.errors import RolloutError, known
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.config import LitellmProduct, LitellmRouterConfig
from tasks.rollout.routers.entry import (
    POINTS,
    Entry,
    assert_not_late,
    assign,
    entry_for,
    parse_entry,
)
from tasks.rollout.routers.http import Link, LostError
from tasks.rollout.routers.probing import Prober
from tasks.rollout.routers.waiting import until

ROUTING = "imagegate_routing"
SERVES = "imagegate_serves"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment as the proxy has it loaded."""

    id: str
    group: str
    weight: int | None
    #: ``None`` where LiteLLM does not know the word, which it needs to.
    blocked: bool | None
    serves: str | None
    routing: str | None
    #: Only what is in the database can be changed.
    stored: bool

    @property
    def open(self) -> bool:
        """Whether it can get requests."""
        return not self.blocked and self.weight != 0


class LitellmRouter:
    """One LiteLLM proxy.

    Args:
        config: The section ``router`` of the rollout file.
        key: A key of a proxy admin.
    """

    def __init__(self, config: LitellmRouterConfig, key: SecretStr) -> None:
        self.config, self._key = config, key

    def read(self, product: str) -> RouterState | None:
        """Return what the deployments say, with weights where all say the same and have it.

        Raises:
            RolloutError: LiteLLM does not answer, or a deployment is missing.
        """
        found = self._deployments(product)
        given = [one.routing for one in found.values() if one.routing is not None]
        if not given:
            return None
        entries = [entry for text in given if (entry := parse_entry(text)) is not None]
        if not entries:
            raise RolloutError(
                f"LiteLLM's deployments of {product!r} have no routing but {given[0][:200]!r}: "
                "somebody else wrote it; `imagegate rollback` or the next look of the watchdog "
                "puts it right"
            )
        newest = max(entries, key=lambda entry: entry.epoch)
        if all(_has(one, newest) for one in found.values()):
            return newest.state(product)
        return RouterState(product, newest.production.digest, newest.epoch, {})

    def apply(self, desired: Desired) -> None:
        """Change the deployments one after the other, and wait until the proxy runs them.

        Raises:
            FencedError: A deployment has a later epoch, or something else under this one.
            RolloutError: No deployment serves a mix, or the proxy does not change one.
        """
        product = self._product(desired.product)
        found = self._deployments(desired.product)
        texts = [one.routing for one in found.values() if one.routing is not None]
        entries = [entry for text in texts if (entry := parse_entry(text)) is not None]
        assert_not_late("LiteLLM", desired, entries)
        before = max(entries, key=lambda entry: entry.epoch, default=None)
        wanted = self._wanted(desired, product, before, found)
        for one in sorted(found.values(), key=lambda one: _turn(one, wanted)):
            if not _has(one, wanted):
                self._change(one, wanted)
        until(
            lambda: _shows(self.read(desired.product), desired),
            within_s=self.config.settle_s,
            failure=f"LiteLLM took the routing of {desired.product!r} at epoch {desired.epoch} "
            "and does not run it",
        )

    def probe(self) -> None:
        """Pass when every deployment is there and can be changed.

        LiteLLM has no dry run: that the key may change deployments is seen at the change.

        Raises:
            RolloutError: One is not.
        """
        for name, product in self.config.products.items():
            found = self._deployments(name)
            for one in found.values():
                if not one.stored:
                    raise RolloutError(
                        f"LiteLLM's deployment {one.id!r} of {name!r} comes from its config file, "
                        "which its admin API cannot change; create it with /model/new"
                    )
            groups = {one.group for one in found.values()}
            if len(groups) > 1:
                raise RolloutError(
                    f"the deployments of {name!r} are of different model groups "
                    f"{known(groups)}; requests to one never reach the other"
                )
            if product.probe_url is not None:
                Prober("X-Request-Key", self.config.timeout_s).serves(product.probe_url)

    def _product(self, name: str) -> LitellmProduct:
        try:
            return self.config.products[name]
        except KeyError:
            raise RolloutError(
                f"the rollout file names no deployments of LiteLLM for product {name!r} "
                f"{known(self.config.products)}; add it under router.products"
            ) from None

    def _deployments(self, product: str) -> Mapping[str, Deployment]:
        """Return the product's deployments by id, as the proxy has them loaded."""
        value = self._ask("GET", "/v1/model/info")
        data = value.get("data") if isinstance(value, dict) else None
        if not isinstance(data, list):
            raise RolloutError(f"{self.config.url} answers /v1/model/info with no list of models")
        there = {one.id: one for item in data if (one := _deployment(item)) is not None}
        wanted = [backend.name for backend in self._product(product).backends]
        for name in wanted:
            if name not in there:
                raise RolloutError(
                    f"LiteLLM has no deployment with the id {name!r} {known(there)}; mend the "
                    "rollout file or create it with /model/new"
                )
        return {name: there[name] for name in wanted}

    def _wanted(
        self,
        desired: Desired,
        product: LitellmProduct,
        before: Entry | None,
        found: Mapping[str, Deployment],
    ) -> Entry:
        digests = [share.mix.digest for share in desired.shares]
        names = [backend.name for backend in product.backends]
        serves = {name: found[name].serves or "" for name in names}
        # A deployment that was given another mix since does not serve this one any more.
        arms = before.arms if before is not None else ()
        stands = all(serves.get(arm.backend) in ("", arm.digest) for arm in arms)
        kept = before if stands else None
        placed = {d: b for d, b in assign(digests, kept, names, serves).items() if b is not None}
        for digest in digests:
            if digest not in placed:
                said = [f"{name} serves {mix or 'nothing known'}" for name, mix in serves.items()]
                raise RolloutError(
                    f"no deployment of LiteLLM serves mix {digest} of {desired.product!r}: "
                    f"{', '.join(said)}; set model_info.{SERVES} of the one that does"
                )
        try:
            return entry_for(desired, placed)
        except ValueError as error:
            raise RolloutError(f"LiteLLM cannot route {desired.product!r} so: {error}") from None

    def _change(self, one: Deployment, wanted: Entry) -> None:
        share = _share(one.id, wanted)
        body = {
            "litellm_params": {"weight": share},
            # Without its id LiteLLM would give the deployment a new one.
            "model_info": {"id": one.id, ROUTING: wanted.value},
            "blocked": share == 0,
        }
        path = f"/model/{quote(one.id, safe='')}/update"
        try:
            self._ask("PATCH", path, body)
        except LostError:
            # Setting the same once more does no harm.
            self._ask("PATCH", path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._key.get_secret_value()}"}
        link = Link(self.config.timeout_s, headers, self.config.ca_file)
        answer = link.send(
            method,
            f"{self.config.url.rstrip('/')}{path}",
            headers={"Content-Type": "application/json"} if body is not None else None,
            content=json.dumps(body).encode() if body is not None else None,
        )
        if not answer.ok:
            hint = (
                "; router.key_env must hold a key of a proxy admin"
                if answer.status in (401, 403)
                else ""
            )
            said = answer.shown.replace(self._key.get_secret_value(), "…")
            raise RolloutError(f"{answer.where} answers HTTP {answer.status}: {said}{hint}")
        return answer.json()


def _deployment(item: Any) -> Deployment | None:
    if not isinstance(item, dict):
        return None
    info, params = item.get("model_info"), item.get("litellm_params")
    if not isinstance(info, dict) or not isinstance(params, dict):
        return None
    weight, blocked = params.get("weight"), info.get("blocked")
    serves, routing = info.get(SERVES), info.get(ROUTING)
    if not isinstance(weight, int) or isinstance(weight, bool):
        weight = None
    return Deployment(
        id=str(info.get("id")),
        group=str(item.get("model_name")),
        weight=weight,
        blocked=blocked if isinstance(blocked, bool) else None,
        serves=str(serves) if serves is not None else None,
        routing=str(routing) if routing is not None else None,
        stored=info.get("db_model") is True,
    )


def _share(backend: str, entry: Entry) -> int:
    """Return a deployment's part of :data:`POINTS`."""
    if entry.candidate is not None and backend == entry.candidate.backend:
        return entry.cut
    return POINTS - entry.cut if backend == entry.production.backend else 0


def _has(one: Deployment, entry: Entry) -> bool:
    """Tell whether a deployment is as a routing wants it."""
    share = _share(one.id, entry)
    return (
        one.routing == entry.value
        and one.weight == share
        # Where LiteLLM does not say that it is blocked, it may get requests.
        and (one.blocked is True if share == 0 else not one.blocked)
    )


def _turn(one: Deployment, wanted: Entry) -> int:
    """Return when a deployment is changed: at no moment may nobody serve."""
    share = _share(one.id, wanted)
    if share and not one.open:
        return 0
    return 1 if not share and one.open else 2


def _shows(shown: RouterState | None, desired: Desired) -> bool:
    return shown is not None and shown.shows(desired)
