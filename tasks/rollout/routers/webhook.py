"""The webhook router: anything that keeps a routing and speaks a little HTTP.

What it must do, for a product at ``<url>/<product>``:

- ``GET`` answers 200 with JSON ``{"product", "epoch", "mix_digest", "weights"}`` of what serves
  *now* and an ``ETag``, or 404 when it does not know the product;
- ``PUT`` takes the same with ``mixes``, the manifests by digest. ``If-Match`` has the ETag that the
  change is based on (``If-None-Match: *`` for the first); when another is in force the answer is
  412, and nothing changes. It answers 2xx when it has the routing, which may take effect a little
  later;
- ``GET <url>`` answers 2xx while changes can be made.

Every request is signed: ``X-Imagegate-Signature`` is ``v1=`` and the hexadecimal HMAC-SHA256 of
method, path, timestamp and body under the shared key, ``X-Imagegate-Timestamp`` the seconds since
1970. :func:`signature_holds` is what a receiver does with them.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from tasks.errors import FencedError, RolloutError
from tasks.records import canonical_json
from tasks.rollout.routers.base import Desired, RouterState
from tasks.rollout.routers.config import WebhookRouterConfig
from tasks.rollout.routers.http import Answer, Link, LostError
from tasks.rollout.routers.probing import Prober
from tasks.rollout.routers.waiting import until

SCHEMA_VERSION = 1
#: How long before or after its own clock a receiver takes a signature for fresh, in seconds.
FRESH_S = 300.0
_ETAG = re.compile(r'^(W/)?"[\x21\x23-\x7e]{0,200}"$')


def sign(key: str, method: str, path: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a request.

    Args:
        key: The shared key.
        method: In capitals.
        path: With the query, as on the request line.
        timestamp: Seconds since 1970.
        body: As sent; empty for none.
    """
    said = b"\n".join((b"v1", method.encode(), path.encode(), str(timestamp).encode(), body))
    return "v1=" + hmac.new(key.encode(), said, hashlib.sha256).hexdigest()


def signature_holds(
    key: str,
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
) -> bool:
    """Tell whether a request is from who has the key, and fresh; for receivers.

    Args:
        key: The shared key.
        method: In capitals.
        path: With the query, as on the request line.
        headers: By lower-case name.
        body: As received, before anything reads it.
        now: Seconds since 1970 by the receiver's clock.
    """
    stamp = headers.get("x-imagegate-timestamp", "")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 13):
        return False
    if abs(now - int(stamp)) > FRESH_S:
        return False
    given = headers.get("x-imagegate-signature", "")
    return hmac.compare_digest(
        sign(key, method, path, int(stamp), body).encode(), given.encode("utf-8", "replace")
    )


class WebhookRouter:
    """A routing kept by somebody else's service.

    Args:
        config: The section ``router`` of the rollout file.
        key: The key that requests are signed with.
        clock: The time of the signature, in seconds since 1970.
    """

    def __init__(
        self, config: WebhookRouterConfig, key: SecretStr, clock: Callable[[], float] = time.time
    ) -> None:
        self.config = config
        self._key, self._clock = key, clock
        self._link = Link(config.timeout_s, ca_file=config.ca_file)

    def read(self, product: str) -> RouterState | None:
        """Return what the service says that it serves.

        Raises:
            RolloutError: It does not answer, or not as agreed.
        """
        answer = self._get(product)
        return None if answer is None else _state(answer, product)

    def apply(self, desired: Desired) -> None:
        """Put the routing, on the ground of what was in force when it was looked at.

        Whether an answer that got lost was a yes is looked up, and the request repeated once.

        Raises:
            FencedError: The service has a later epoch, or something else under this one.
            RolloutError: It does not answer, refuses, or does not serve the routing in time.
        """
        try:
            settled = self._put(desired)
        except LostError:
            settled = self._put(desired)
        if not settled:
            until(
                lambda: _shows(self.read(desired.product), desired),
                within_s=self.config.settle_s,
                failure=f"{self.config.url} took the routing of {desired.product!r} at epoch "
                f"{desired.epoch} and does not serve it",
            )

    def probe(self) -> None:
        """Pass when the service says that changes can be made, and traffic is served.

        Raises:
            RolloutError: It does not, or it refuses the signature.
        """
        answer = self._send("GET", self.config.url)
        if not answer.ok:
            raise RolloutError(_refused(answer))
        if self.config.probe_url is not None:
            Prober("X-Request-Key", self.config.timeout_s).serves(self.config.probe_url)

    def _put(self, desired: Desired) -> bool:
        """Return whether the service shows the routing already; put it there if not."""
        before = self._get(desired.product)
        ground = {"If-None-Match": "*"}
        if before is not None:
            shown = _state(before, desired.product)
            if shown.shows(desired):
                return True
            if shown.epoch >= desired.epoch:
                raise FencedError(_late(desired, shown))
            ground = {"If-Match": _etag(before)}
        body = canonical_json(
            {
                "schema_version": SCHEMA_VERSION,
                "product": desired.product,
                "epoch": desired.epoch,
                "mix_digest": desired.mix_digest,
                "weights": desired.weights,
                "mixes": {s.mix.digest: s.mix.model_dump(mode="json") for s in desired.shares},
            }
        ).encode()
        answer = self._send("PUT", self._address(desired.product), body, ground)
        if answer.status in (409, 412):
            # Somebody was faster, or it was our own request whose answer got lost.
            shown_now = self.read(desired.product)
            if _shows(shown_now, desired):
                return True
            raise FencedError(_late(desired, shown_now))
        if not answer.ok:
            raise RolloutError(_refused(answer))
        return False

    def _get(self, product: str) -> Answer | None:
        answer = self._send("GET", self._address(product))
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise RolloutError(_refused(answer))
        return answer

    def _address(self, product: str) -> str:
        return f"{self.config.url.rstrip('/')}/{product}"

    def _send(
        self, method: str, url: str, body: bytes = b"", more: Mapping[str, str] | None = None
    ) -> Answer:
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        timestamp = int(self._clock())
        headers = {
            "X-Imagegate-Timestamp": str(timestamp),
            "X-Imagegate-Signature": sign(
                self._key.get_secret_value(), method, path, timestamp, body
            ),
            "Cache-Control": "no-cache",
        } | dict(more or {})
        if body:
            headers["Content-Type"] = "application/json"
        return self._link.send(method, url, headers=headers, content=body or None)


def _shows(shown: RouterState | None, desired: Desired) -> bool:
    return shown is not None and shown.shows(desired)


def _state(answer: Answer, product: str) -> RouterState:
    """Return the routing in an answer.

    Raises:
        RolloutError: It is none, or one of another product.
    """
    value = answer.json()
    wrong = f"{answer.where} answers with what is no routing of {product!r}: {answer.shown}"
    if not isinstance(value, dict) or value.get("product") != product:
        raise RolloutError(wrong)
    epoch, digest, weights = value.get("epoch"), value.get("mix_digest"), value.get("weights")
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise RolloutError(wrong)
    if not isinstance(digest, str) or not isinstance(weights, dict):
        raise RolloutError(wrong)
    if not all(_is_share(weight) for weight in weights.values()):
        raise RolloutError(wrong)
    # A mix without traffic may be listed or left out.
    shares = {name: float(weight) for name, weight in weights.items() if weight > 0}
    return RouterState(product, digest, epoch, shares)


def _is_share(weight: Any) -> bool:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    return number and math.isfinite(weight) and 0 <= weight <= 1


def _etag(answer: Answer) -> str:
    tag = answer.headers.get("etag", "")
    if not _ETAG.match(tag) or tag.startswith("W/"):
        raise RolloutError(
            f"{answer.where} gives no strong ETag (got {tag[:80]!r}), so a change by somebody else "
            "could be overwritten unseen; the service must send one"
        )
    return tag


def _late(desired: Desired, shown: RouterState | None) -> str:
    has = (
        "nothing"
        if shown is None
        else f"epoch {shown.epoch} with mix {shown.mix_digest} and weights {dict(shown.weights)}"
    )
    return (
        f"the routing service has {has} for {desired.product!r}; epoch {desired.epoch} with mix "
        f"{desired.mix_digest} comes too late: somebody moved production meanwhile. Look at "
        "`imagegate status`"
    )


def _refused(answer: Answer) -> str:
    hint = (
        "; is the key the same on both sides, and are the clocks right?"
        if answer.status in (401, 403)
        else ""
    )
    return f"{answer.where} answers HTTP {answer.status}: {answer.shown}{hint}"
