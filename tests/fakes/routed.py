"""The internet for a test: real host names and https at the adapter, fakes on loopback behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from tasks.providers.base import AttemptResult, GenerationRequest, Provider
from tasks.providers.drive import complete
from tests.fakes.contract import Time

#: An address of the public internet, where no test ever connects.
PUBLIC = "93.184.216.34"


@dataclass(frozen=True)
class Sent:
    """A request as it left the adapter."""

    method: str
    url: httpx.URL
    #: The name that was meant, also where the connection goes to a checked address.
    host: str
    headers: Mapping[str, str]


class Routed(httpx.AsyncBaseTransport):
    """Hands requests to the fake that plays their host.

    Args:
        routes: Address of a fake by host; other hosts refuse connections.
    """

    def __init__(self, routes: Mapping[str, str]) -> None:
        self._routes = dict(routes)
        self._wire = httpx.AsyncHTTPTransport()
        self.sent: list[Sent] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.headers["host"].partition(":")[0]
        self.sent.append(Sent(request.method, request.url, host, dict(request.headers)))
        if host not in self._routes:
            raise httpx.ConnectError(f"nobody listens at {host}", request=request)
        more = {k: v for k, v in request.extensions.items() if k != "sni_hostname"}
        url = self._routes[host] + request.url.raw_path.decode("ascii")
        return await self._wire.handle_async_request(
            httpx.Request(
                request.method,
                url,
                headers=request.headers,
                stream=request.stream,
                extensions=more,
            )
        )

    async def aclose(self) -> None:
        await self._wire.aclose()

    def hosts_with(self, secret: str) -> set[str]:
        """Return the hosts that were sent a secret in a header."""
        return {s.host for s in self.sent if any(secret in v for v in s.headers.values())}


def drive(
    provider: Provider,
    request: GenerationRequest,
    routes: Mapping[str, str],
    *,
    time: Time | None = None,
    addresses: Sequence[str] = (PUBLIC,),
) -> tuple[AttemptResult, Routed]:
    """Drive one request to its end; pauses between looks take no time.

    Args:
        provider: The adapter, at a real host name.
        request: What to ask.
        routes: See :class:`Routed`.
        time: The driver's clock.
        addresses: What the name server says of any host.
    """
    clock, net = time or Time(), Routed(routes)

    async def resolver(_host: str, _port: int) -> Sequence[str]:
        return addresses

    async def run() -> AttemptResult:
        provider.resolver = resolver  # type: ignore[attr-defined]
        async with httpx.AsyncClient(transport=net) as client:
            return await complete(
                provider, client, request, clock=clock, sleep=clock.sleep, draw=lambda: 0.0
            )

    return asyncio.run(run()), net
