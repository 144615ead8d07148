"""Addresses that providers give are hostile: which are fetched, and where the connection goes."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tasks.providers import assets
from tasks.providers.assets import (
    ForeignAddressError,
    check_url,
    host_allowed,
    is_public,
    pinned,
    resolve,
)

BASE = "https://api.example.com/v1"
HOSTS = ("cdn.example.com", ".delivery.example.net")


@pytest.mark.parametrize(
    "url",
    [
        "https://cdn.example.com/a.png?sig=1",
        "https://CDN.example.com/a.png",
        "https://cdn.example.com./a.png",
        "https://cdn.example.com:443/a.png",
        "https://eu.delivery.example.net/a",
        "https://a.b.delivery.example.net/a",
        "https://api.example.com/files/a.png",
    ],
)
def test_named_hosts_and_the_servers_own_are_fetched(url: str) -> None:
    assert check_url(url, BASE, HOSTS).scheme == "https"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://cdn.example.com/a", "plain http"),
        ("http://api.example.com/a", "plain http"),
        ("https://cdn.example.com:8443/a", "port 8443"),
        ("https://evil.example.com/a", "a host that nobody named"),
        ("https://delivery.example.net/a", "a host that nobody named"),
        ("https://xdelivery.example.net/a", "a host that nobody named"),
        ("https://cdn.example.com.evil.org/a", "a host that nobody named"),
        ("https://cdn.example.com@evil.org/a", "with user or password"),
        ("https://u:pw@cdn.example.com/a", "with user or password"),
        ("https://evil.org/cdn.example.com", "a host that nobody named"),
        ("https://169.254.169.254/latest/meta-data", "a host that nobody named"),
        ("https://[::1]/a", "a host that nobody named"),
        ("http://127.0.0.1:9/a", "plain http"),
        ("https://localhost/a", "a host that nobody named"),
        ("ftp://cdn.example.com/a", "scheme 'ftp'"),
        ("file:///etc/passwd", "scheme 'file'"),
        ("data:image/png;base64,AAAA", "scheme 'data'"),
        ("//cdn.example.com/a", "scheme ''"),
        ("/a.png", "scheme ''"),
        ("", "scheme ''"),
        ("https://", "no address|scheme"),
        ("https://[cdn.example.com/", "no address|nobody named"),
        ("https://cdn.example.com:port/", "no address"),
        ("https://cdn.example.com/" + "a" * 9000, "characters"),
        ("https://xn--a/", "no address|nobody named"),
        ("https://cdn.example.com\r\nHost: evil/", "no address|nobody named"),
    ],
)
def test_all_others_are_not_and_the_reason_holds_no_secret(url: str, why: str) -> None:
    with pytest.raises(ForeignAddressError, match=why) as caught:
        check_url(url, BASE, HOSTS)
    assert "pw" not in str(caught.value)
    assert "/latest" not in str(caught.value)


def test_plain_http_is_for_loopback_of_an_adapter_on_loopback() -> None:
    local = "http://127.0.0.1:8188/api"
    assert check_url("http://127.0.0.1:8188/view", local, ())
    assert check_url("http://localhost:9999/a", local, ())
    for url in ("http://10.0.0.1/a", "http://cdn.example.com/a", "http://127.0.0.1.evil.org/a"):
        with pytest.raises(ForeignAddressError):
            check_url(url, local, HOSTS)
    # A server in the internet must not send us to our own loopback.
    with pytest.raises(ForeignAddressError):
        check_url("https://127.0.0.1/a", BASE, ("127.0.0.1x",))


@pytest.mark.parametrize(
    ("host", "allowed", "yes"),
    [
        ("a.b", (), False),
        ("a.b", ("a.b",), True),
        ("A.B.", ("a.b",), True),
        ("x.a.b", ("a.b",), False),
        ("x.a.b", (".a.b",), True),
        ("a.b", (".a.b",), False),
        ("xa.b", (".a.b",), False),
    ],
)
def test_hosts(host: str, allowed: Sequence[str], yes: bool) -> None:
    assert host_allowed(host, allowed) is yes


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - must be refused
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "192.0.0.9",
        "192.88.99.1",
        "64:ff9b:1::1",
        "fec0::1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "2001:0:a00:1::1",
        "2001:db8::1",
        "not an address",
        "",
        "127.1",
        "0x7f000001",
        "2130706433",
    ],
)
def test_private_addresses_in_every_dress(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_inside_ipv6(address: ipaddress.IPv4Address) -> None:
    expected = is_public(str(address))
    assert is_public(f"::ffff:{address}") is expected
    assert (
        is_public(
            str(ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(address)))
        )
        is expected
    )
    assert not (expected and (address.is_private or address.is_loopback))


@given(st.text(max_size=60))
def test_no_text_gets_through_or_breaks_the_check(text: str) -> None:
    for url in (text, f"https://{text}", f"https://{text}/a", f"https://cdn.example.com{text}"):
        try:
            found = check_url(url, BASE, HOSTS)
        except ForeignAddressError:
            continue
        assert found.scheme == "https"
        assert host_allowed(found.host, (*HOSTS, "api.example.com"))


def answers(*addresses: str) -> assets.Resolve:
    async def known(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return known


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    url = check_url("https://cdn.example.com/a%20b.png?q=1", BASE, HOSTS)
    target, headers, extensions = asyncio.run(pinned(url, BASE, answers("93.184.216.34")))
    assert str(target) == "https://93.184.216.34/a%20b.png?q=1"
    assert headers["Host"] == "cdn.example.com"
    assert extensions == {"sni_hostname": "cdn.example.com"}
    six, _, _ = asyncio.run(pinned(url, BASE, answers("2606:4700:4700::1111")))
    assert str(six).startswith("https://[2606:4700:4700::1111]/")


@pytest.mark.parametrize(
    ("addresses", "error"),
    [
        (("127.0.0.1",), ForeignAddressError),
        (("93.184.216.34", "10.0.0.1"), ForeignAddressError),
        (("93.184.216.34", "fe80::1%2"), ForeignAddressError),
        ((), OSError),
    ],
)
def test_a_name_with_any_private_address_is_refused(
    addresses: tuple[str, ...], error: type[Exception]
) -> None:
    url = check_url("https://cdn.example.com/a", BASE, HOSTS)
    with pytest.raises(error):
        asyncio.run(pinned(url, BASE, answers(*addresses)))


def test_the_servers_own_address_is_not_looked_up() -> None:
    async def fails(_host: str, _port: int) -> Sequence[str]:
        raise AssertionError("the name server was asked")

    url = check_url("https://api.example.com/files/a", BASE, ())
    assert asyncio.run(pinned(url, BASE, fails)) == (url, {}, {})


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(assets, "RESOLVE_S", 0.01)
    with pytest.raises(TimeoutError):
        asyncio.run(pinned(check_url("https://cdn.example.com/a", BASE, HOSTS), BASE, hangs))


def test_names_are_resolved() -> None:
    assert "127.0.0.1" in asyncio.run(resolve("localhost", 443)) or "::1" in asyncio.run(
        resolve("localhost", 443)
    )
    with pytest.raises(OSError, match=r".+"):
        asyncio.run(resolve("no-such-host.invalid", 443))


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Return files of a certificate for a host name and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.mark.parametrize("served", ["cdn.example.com", "evil.example.org"])
def test_tls_is_checked_against_the_name_at_the_pinned_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: str
) -> None:
    """A real handshake: the name has no address in any name server, the resolver gives one."""
    pem, key = certificate(tmp_path, served)
    # Loopback stands for a public address; only the range check is taken out.
    monkeypatch.setattr(assets, "is_public", lambda _address: True)
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def main() -> httpx.Response:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem, key)
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            url = check_url("https://cdn.example.com/a?b=1", BASE, HOSTS)
            target, headers, extensions = await pinned(url, BASE, answers("127.0.0.1"))
            trusting = ssl.create_default_context(cafile=str(pem))
            async with httpx.AsyncClient(verify=trusting) as client:
                request = httpx.Request(
                    "GET", target.copy_with(port=port), headers=headers, extensions=extensions
                )
                return await client.send(request)

    if served == "cdn.example.com":
        response: Any = asyncio.run(main())
        assert response.text == "ok"
        assert "host: cdn.example.com\r\n" in heads[0].lower()
        assert heads[0].startswith("GET /a?b=1 ")
    else:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            asyncio.run(main())
        assert heads == []
