"""Real requests through a router: does it serve, and do requests go where it says?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from tasks.errors import RolloutError
from tasks.rollout.routers.http import trust
from tasks.settings import without_login

_LOG = logging.getLogger(__name__)
#: In a request: the mix to serve. In an answer: the mix that served.
MIX_HEADER = "X-Imagegate-Mix"
#: A request that the network lost is sent once more: it says nothing about the routing.
_TRIES = 2


class Prober:
    """Sends requests as users do.

    Args:
        key_header: The header whose value keeps a request with its mix.
        timeout_s: Seconds for one request.
    """

    def __init__(self, key_header: str, timeout_s: float) -> None:
        self.key_header, self.timeout_s = key_header, timeout_s

    def serves(self, url: str) -> None:
        """Pass when anything answers there; a fault of the application is not the router's.

        Raises:
            RolloutError: Nothing does.
        """
        self._get(url, "imagegate-probe")

    def follow(
        self, url: str, wanted_mixes: Mapping[str, str], *, must_answer: bool = True
    ) -> None:
        """Pass when requests get the mixes that they should.

        Args:
            url: Where to send them.
            wanted_mixes: Digest of the mix by the request's key.
            must_answer: ``False`` when no answer at all is no objection: an application that is
                down says nothing about the routing, and must not make a rollback look undone.

        Raises:
            RolloutError: One gets another, none at all, or no answer.
        """
        for key, wanted in wanted_mixes.items():
            try:
                got = self._get(url, key)
            except RolloutError as error:
                if must_answer:
                    raise
                _LOG.warning("the routing is not proven by a request: %s", error)
                return
            if got is None:
                raise RolloutError(
                    f"{without_login(url)} answers without the header {MIX_HEADER}, so nothing "
                    "shows which mix served; see deployments/haproxy-canary.cfg"
                )
            if got != wanted:
                raise RolloutError(
                    f"a real request to {without_login(url)} was served by mix {got[:80]!r}, by "
                    f"the routing it should be {wanted}: the router has the routing and does not "
                    "go by it"
                )

    def mix_at(self, url: str) -> str | None:
        """Return the digest that a server gives as its own, ``None`` when it gives none."""
        try:
            return self._get(url, "imagegate-probe")
        except RolloutError:
            return None

    def _get(self, url: str, key: str) -> str | None:
        error: httpx.HTTPError | None = None
        headers = {self.key_header: key, "User-Agent": "imagegate-probe"}
        # A connection of its own for each: a kept one may end at a process that is going away.
        with httpx.Client(timeout=self.timeout_s, trust_env=False, verify=trust()) as client:
            for _ in range(_TRIES):
                try:
                    with client.stream("GET", url, headers=headers) as answer:
                        given: str | None = answer.headers.get(MIX_HEADER)
                        return given
                except httpx.HTTPError as failed:
                    error = failed
        raise RolloutError(
            f"no answer from {without_login(url)}: {type(error).__name__}; does the router listen "
            f"on port {urlsplit(url).port or 'of the scheme'}?"
        )
