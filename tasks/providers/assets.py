"""Fetching a finished picture from the address that a provider gave: an address is hostile input.

Rules: https, a host that the adapter or the catalog names, no address of a private network, no
redirect, no key, a size limit. A name is resolved once and the connection goes to the address that
was checked, so that a second answer of the name server cannot lead elsewhere. An address at the
model's own server, which people wrote into the catalog, needs none of that; plain http is for
loopback only.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx

#: Longest address that is looked at.
MOST_URL = 8_192
#: Seconds for the name server.
RESOLVE_S = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

#: Not public whatever Python's own tables say, which differ from release to release; clouds keep
#: their metadata in some of them.
_NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "64:ff9b:1::/48",
        "100::/64",
        "fec0::/10",
    )
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Gives the addresses of a host.
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class ForeignAddressError(ValueError):
    """An address that must not be fetched; the message names the host and never the query."""


def parse_url(text: str) -> httpx.URL:
    """Return an absolute http(s) address.

    Raises:
        ForeignAddressError: It is none, or holds a user or a password.
    """
    if len(text) > MOST_URL:
        raise ForeignAddressError(f"an address of {len(text):,} characters (most: {MOST_URL:,})")
    try:
        url = httpx.URL(text)
        host = url.host
    except (httpx.InvalidURL, TypeError, ValueError):
        raise ForeignAddressError("a text that is no address") from None
    if url.scheme not in ("http", "https") or not host:
        raise ForeignAddressError(f"an address of scheme {url.scheme[:20]!r} (needed: https)")
    if url.userinfo:
        raise ForeignAddressError(f"an address at {host!r} with user or password")
    return url


def origin(url: httpx.URL) -> tuple[str, str, int]:
    """Return scheme, host and port of an address."""
    default = {"http": 80, "https": 443}.get(url.scheme, 0)
    return url.scheme, url.host.lower(), url.port or default


def host_allowed(host: str, allowed: Sequence[str]) -> bool:
    """Return whether a host is named, or lies below a name that begins with a dot."""
    name = host.lower().rstrip(".")
    return any(name.endswith(a) if a.startswith(".") else name == a for a in allowed)


def check_url(text: str, base_url: str, allowed: Sequence[str]) -> httpx.URL:
    """Return the address of a picture when its text alone gives no reason to refuse it.

    Args:
        text: The address as the provider gave it.
        base_url: The adapter's own address.
        allowed: Hosts, see :func:`host_allowed`.

    Raises:
        ForeignAddressError: With the reason.
    """
    url, base = parse_url(text), httpx.URL(base_url)
    if origin(url) == origin(base):
        return url
    if is_loopback(url) and is_loopback(base):
        return url
    if url.scheme != "https":
        raise ForeignAddressError(f"a plain http address at {url.host!r} (needed: https)")
    if origin(url)[2] != 443:
        raise ForeignAddressError(f"port {url.port} of {url.host!r} (needed: 443)")
    if not host_allowed(url.host, allowed):
        known = ", ".join(allowed) or "none"
        raise ForeignAddressError(
            f"an address at {url.host!r}, a host that nobody named (named: {known}; add it to "
            "asset_hosts of the model in the catalog if it is right)"
        )
    return url


def is_loopback(url: httpx.URL) -> bool:
    """Return whether an address is written as one of this machine's loopback."""
    return url.host in _LOOPBACK


def is_public(text: str) -> bool:
    """Return whether an address can belong to a provider in the internet.

    Private, loopback, link-local, metadata, multicast and reserved ones cannot, whatever way they
    are written inside an IPv6 address.
    """
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(
        a.is_global
        and not a.is_multicast
        and not a.is_reserved
        and not any(a in network for network in _NEVER)
        for a in _inside(address)
    )


def _inside(address: Address) -> list[Address]:
    """Return the IPv4 address inside an IPv6 one, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo is not None:
        found += list(address.teredo)
    if address in ipaddress.IPv6Network("64:ff9b::/96"):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    embedded = [a for a in found if a is not None]
    return embedded or [address]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host.

    Raises:
        OSError: The name server knows none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def pinned(
    url: httpx.URL, base_url: str, resolver: Resolve = resolve
) -> tuple[httpx.URL, dict[str, str], dict[str, Any]]:
    """Return address, headers and extensions of a request that connects where it was checked.

    Args:
        url: From :func:`check_url`.
        base_url: The adapter's own address.
        resolver: Gives the addresses of a host.

    Raises:
        ForeignAddressError: The host has an address of a private network.
        OSError: The name server knows none, or does not answer.
    """
    base = httpx.URL(base_url)
    if origin(url) == origin(base) or (is_loopback(url) and is_loopback(base)):
        return url, {}, {}
    async with asyncio.timeout(RESOLVE_S):
        addresses = await resolver(url.host, 443)
    if not addresses:
        raise OSError(f"{url.host!r} has no address")
    for address in addresses:
        if not is_public(address):
            raise ForeignAddressError(f"{url.host!r}, which resolves to the address {address}")
    host = url.host
    # The certificate is still checked against the name. The connection is not kept: the pool
    # tells connections apart by address alone, and many names share one.
    return (
        url.copy_with(host=addresses[0]),
        {"Host": host, "Connection": "close"},
        {"sni_hostname": host},
    )
