"""Kubernetes Gateway API: the routing is the weights of one rule of an HTTPRoute.

The route is changed by server-side apply under the field manager ``imagegate``, on the ground of
the ``resourceVersion`` that was looked at; an annotation of the same request holds epoch and
digests. It serves when every parent's controller has accepted this very generation: until then,
or when the rule is not what the annotation says, :meth:`GatewayRouter.read` shows a routing
without weights, which no wanted routing equals.

The Gateway API splits at random, not by a request's key: applications that need a user to stay
with a mix take the mix from the routing file's ``mix_for``, or use an implementation's own session
persistence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.errors import FencedError, RolloutError, known
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.config import GatewayProduct, GatewayRouterConfig
from tasks.rollout.routers.entry import POINTS, Entry, entry_for, parse_entry
from tasks.rollout.routers.http import Answer, Link, LostError
from tasks.rollout.routers.placing import place
from tasks.rollout.routers.probing import MIX_HEADER, Prober
from tasks.rollout.routers.waiting import until

FIELD_MANAGER = "imagegate"
ANNOTATION = "imagegate.dev/routing"
_API = "gateway.networking.k8s.io/v1"
#: Controllers write a route's status all the time, which changes its version as well.
_TRIES = 8


class GatewayRouter:
    """HTTPRoutes of one namespace.

    Args:
        config: The section ``router`` of the rollout file.
    """

    def __init__(self, config: GatewayRouterConfig) -> None:
        self.config = config
        self._prober = Prober("X-Request-Key", config.timeout_s)

    def read(self, product: str) -> RouterState | None:
        """Return what the route says, with weights once its controllers serve by it.

        Raises:
            RolloutError: The API server does not answer, or a controller refuses the route.
        """
        route = self._route(product)
        entry = self._entry(product, route)
        if entry is None:
            return None
        rule = self._rule(product, route)
        if not self._same(product, rule, entry) or not _served(route, product):
            return RouterState(product, entry.production.digest, entry.epoch, {})
        return entry.state(product)

    def apply(self, desired: Desired) -> None:
        """Change the rule's weights, and wait until the controllers have accepted them.

        Raises:
            FencedError: The route has a later epoch, or something else under this one.
            RolloutError: No Service serves a mix, one that shall get its first requests has no
                endpoint that is ready, another manager owns the rules, or a controller refuses.
        """
        self._product(desired.product)
        for attempt in range(_TRIES):
            try:
                if self._changed(desired):
                    break
            except LostError:
                # Whether it was done is seen at the next look.
                if attempt:
                    raise
        else:
            raise RolloutError(
                f"{self._name(desired.product)} changed under each of {_TRIES} attempts; somebody "
                "else writes it all the time"
            )
        until(
            lambda: _shows(self.read(desired.product), desired),
            within_s=self.config.settle_s,
            failure=f"{self._name(desired.product)} has epoch {desired.epoch} and its controllers "
            "do not serve by it",
        )

    def probe(self) -> None:
        """Pass when every route could be changed now, tried by a dry run of the API server.

        Raises:
            RolloutError: It could not.
        """
        for name, product in self.config.products.items():
            route = self._route(name)
            self._rule(name, route)
            answer = self._patch(name, route, route["spec"]["rules"], None, dry_run=True)
            if not answer.ok:
                raise RolloutError(self._refusal(name, answer))
            if product.probe_url is not None:
                self._prober.serves(product.probe_url)

    def _changed(self, desired: Desired) -> bool:
        """Try once; ``False`` when the route changed between look and change."""
        name = desired.product
        product, route = self._product(name), self._route(name)
        # What is no routing of ours is overwritten: a rollback must not wait for its repair.
        before = parse_entry(_annotation(route) or "")
        rule = self._rule(name, route)
        if before is not None:
            same = before.state(name).shows(desired)
            if before.epoch > desired.epoch or (before.epoch == desired.epoch and not same):
                raise FencedError(
                    f"{self._name(name)} is at epoch {before.epoch} with mix "
                    f"{before.production.digest} and weights {before.weights}; epoch "
                    f"{desired.epoch} with mix {desired.mix_digest} comes too late: somebody moved "
                    "production meanwhile. Look at `imagegate status`"
                )
        try:
            wanted = entry_for(desired, place(desired, product, before, self._prober))
        except ValueError as error:
            raise RolloutError(f"{self._name(name)} cannot route so: {error}") from None
        if before == wanted and self._same(name, rule, wanted):
            return True
        self._assert_ready(wanted, before)
        rules = [
            _with_backends(one, self._references(product, wanted))
            if number == product.rule
            else one
            for number, one in enumerate(route["spec"]["rules"])
        ]
        answer = self._patch(name, route, rules, wanted, dry_run=False)
        if answer.status == 409 and not _managers(answer):
            return False
        if not answer.ok:
            raise RolloutError(self._refusal(name, answer))
        return True

    def _patch(
        self,
        name: str,
        route: Mapping[str, Any],
        rules: Sequence[Any],
        entry: Entry | None,
        *,
        dry_run: bool,
    ) -> Answer:
        annotations = route["metadata"].get("annotations") or {}
        kept = annotations.get(ANNOTATION) if entry is None else entry.value
        metadata = {
            "name": self._product(name).route,
            "namespace": self.config.namespace,
            "resourceVersion": route["metadata"].get("resourceVersion"),
        }
        if kept is not None:
            metadata["annotations"] = {ANNOTATION: kept}
        # The list of rules is atomic for server-side apply: whoever changes one sends all.
        body = {"apiVersion": _API, "kind": "HTTPRoute", "metadata": metadata}
        query = f"fieldManager={FIELD_MANAGER}&force={str(self.config.take_over).lower()}"
        return self._send(
            "PATCH",
            f"{self._path(name)}?{query}{'&dryRun=All' if dry_run else ''}",
            content=json.dumps(body | {"spec": {"rules": list(rules)}}).encode(),
        )

    def _product(self, name: str) -> GatewayProduct:
        try:
            return self.config.products[name]
        except KeyError:
            raise RolloutError(
                f"the rollout file names no HTTPRoute for product {name!r} "
                f"{known(self.config.products)}; add it under router.products"
            ) from None

    def _name(self, product: str) -> str:
        return f"HTTPRoute {self.config.namespace}/{self._product(product).route}"

    def _path(self, product: str) -> str:
        namespace, route = self.config.namespace, self._product(product).route
        return f"/apis/{_API}/namespaces/{namespace}/httproutes/{route}"

    def _route(self, product: str) -> dict[str, Any]:
        answer = self._send("GET", self._path(product))
        if not answer.ok:
            raise RolloutError(self._refusal(product, answer))
        route = answer.json()
        if not isinstance(route, dict) or not isinstance(route.get("metadata"), dict):
            raise RolloutError(f"{answer.where} answers with what is no HTTPRoute: {answer.shown}")
        return route

    def _entry(self, product: str, route: Mapping[str, Any]) -> Entry | None:
        value = _annotation(route)
        if value is None:
            return None
        entry = parse_entry(value)
        if entry is None:
            raise RolloutError(
                f"{self._name(product)}: the annotation {ANNOTATION} is no routing but "
                f"{value[:200]!r}: somebody else wrote it; `imagegate rollback` or the next look "
                "of the watchdog puts it right"
            )
        return entry

    def _rule(self, product: str, route: Mapping[str, Any]) -> dict[str, Any]:
        rules = (route.get("spec") or {}).get("rules") or []
        number = self._product(product).rule
        if number >= len(rules):
            raise RolloutError(
                f"{self._name(product)} has {len(rules)} rules, the rollout file names rule "
                f"{number} (counted from 0)"
            )
        rule: dict[str, Any] = rules[number]
        return rule

    def _references(self, product: GatewayProduct, entry: Entry) -> list[dict[str, Any]]:
        ports = {backend.name: backend.port for backend in product.backends}
        shares = {entry.production.digest: POINTS - entry.cut}
        if entry.candidate is not None:
            shares[entry.candidate.digest] = entry.cut
        references = []
        for arm in entry.arms:
            one: dict[str, Any] = {
                "name": arm.backend,
                "port": ports[arm.backend],
                "weight": shares[arm.digest],
            }
            if self.config.mix_header:
                header = {"name": MIX_HEADER, "value": arm.digest}
                one["filters"] = [
                    {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [header]}}
                ]
            references.append(one)
        return references

    def _same(self, product: str, rule: Mapping[str, Any], entry: Entry) -> bool:
        """Tell whether a rule is what the entry says, leaving aside what the server fills in."""
        known_backends = {backend.name for backend in self._product(product).backends}
        if not {arm.backend for arm in entry.arms} <= known_backends:
            return False
        wanted = self._references(self._product(product), entry)
        given = [_bare(one) for one in rule.get("backendRefs") or []]
        return given == [_bare(one) for one in wanted]

    def _assert_ready(self, wanted: Entry, before: Entry | None) -> None:
        served = {arm.digest for arm in before.arms} if before else set()
        for arm in wanted.arms:
            if arm.digest in served:
                continue
            answer = self._send(
                "GET",
                f"/apis/discovery.k8s.io/v1/namespaces/{self.config.namespace}/endpointslices"
                f"?labelSelector=kubernetes.io%2Fservice-name%3D{arm.backend}",
            )
            if not answer.ok:
                raise RolloutError(f"{answer.where} answers HTTP {answer.status}: {answer.shown}")
            if not any(_ready(answer.json())):
                raise RolloutError(
                    f"Service {arm.backend!r}, which shall serve mix {arm.digest}, has no endpoint "
                    "that is ready: its requests would fail; deploy it, then try again"
                )

    def _send(self, method: str, path: str, content: bytes | None = None) -> Answer:
        try:
            token = self.config.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RolloutError(
                f"{self.config.token_file}: the token for Kubernetes cannot be read: "
                f"{getattr(error, 'strerror', None) or 'not UTF-8'}"
            ) from None
        link = Link(
            self.config.timeout_s,
            {"Authorization": f"Bearer {token}", "Accept": "application/json"},
            self.config.ca_file,
        )
        kind = {"Content-Type": "application/apply-patch+yaml"} if content is not None else {}
        url = f"{self.config.server.rstrip('/')}{path}"
        return link.send(method, url, headers=kind, content=content)

    def _refusal(self, product: str, answer: Answer) -> str:
        managers = _managers(answer)
        if managers:
            return (
                f"{self._name(product)}: its rules belong to {', '.join(managers)}; set "
                "router.take_over, and let that manager leave spec.rules alone"
            )
        try:
            said = str(answer.json().get("message"))[:300]
        except (RolloutError, AttributeError):
            said = answer.shown
        hint = {
            401: "; the token is not valid",
            403: "; imagegate's role needs get and patch on httproutes and list on endpointslices",
            404: "; is the name right, and is the Gateway API installed?",
        }.get(answer.status, "")
        return f"{self._name(product)}: HTTP {answer.status}: {said}{hint}"


def _annotation(route: Mapping[str, Any]) -> str | None:
    value = (route["metadata"].get("annotations") or {}).get(ANNOTATION)
    return None if value is None else str(value)


def _shows(shown: RouterState | None, desired: Desired) -> bool:
    return shown is not None and shown.shows(desired)


def _bare(reference: Mapping[str, Any]) -> tuple[Any, ...]:
    headers = [
        (header.get("name"), header.get("value"))
        for one in reference.get("filters") or []
        for header in (one.get("requestHeaderModifier") or {}).get("set") or []
    ]
    return (
        reference.get("name"),
        reference.get("port"),
        reference.get("weight", 1),
        reference.get("namespace"),
        headers,
    )


def _with_backends(rule: Mapping[str, Any], references: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(rule) | {"backendRefs": references}


def _managers(answer: Answer) -> list[str]:
    """Return who else owns what was to be changed, of a conflict between field managers."""
    if answer.status != 409:
        return []
    try:
        causes = answer.json()["details"]["causes"]
        return sorted(
            {
                str(cause.get("message", "another manager"))[:120]
                for cause in causes
                if cause.get("reason") == "FieldManagerConflict"
            }
        )
    except (RolloutError, KeyError, TypeError, AttributeError):
        return []


def _served(route: Mapping[str, Any], product: str) -> bool:
    """Tell whether the controllers of all parents have accepted this generation of the route.

    Raises:
        RolloutError: One has looked at it and refuses.
    """
    generation = route["metadata"].get("generation")
    wanted = len((route.get("spec") or {}).get("parentRefs") or [])
    parents = (route.get("status") or {}).get("parents") or []
    accepted = 0
    for parent in parents:
        found = {c.get("type"): c for c in parent.get("conditions") or []}
        fresh = [
            found[kind]
            for kind in ("Accepted", "ResolvedRefs")
            if kind in found and found[kind].get("observedGeneration") == generation
        ]
        for condition in fresh:
            if condition.get("status") == "False":
                raise RolloutError(
                    f"the Gateway's controller refuses the HTTPRoute of {product!r}: "
                    f"{condition.get('type')} is False, {condition.get('reason')}: "
                    f"{str(condition.get('message'))[:300]}"
                )
        accepted += len(fresh) == 2 and all(c.get("status") == "True" for c in fresh)
    return wanted > 0 and accepted >= wanted


def _ready(slices: Any) -> Iterator[bool]:
    """Yield whether each endpoint is ready; one that does not say is, by the API's definition."""
    for one in (slices.get("items") or []) if isinstance(slices, dict) else []:
        for endpoint in one.get("endpoints") or []:
            yield (endpoint.get("conditions") or {}).get("ready") is not False
