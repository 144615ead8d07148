"""Getting the pictures that a log names, by path or address: both are hostile input."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import httpx

from tasks.providers import assets

#: Most bytes of a picture.
MOST_BYTES: Final = 64 << 20
#: Pictures fetched at the same time.
_AT_ONCE: Final = 4
#: Stands for a server of ours where none is named: no address is at it.
_NOWHERE: Final = "https://nowhere.invalid"


class NoPictureError(ValueError):
    """A picture that cannot be had; says why, and never repeats an address' query."""


def is_address(text: str) -> bool:
    """Tell whether a log names a picture by its address rather than its path."""
    return "://" in text[:20]


def local(text: str, folder: Path | None) -> Path:
    """Return the file that a log names.

    Raises:
        NoPictureError: It lies outside the folder, is no file, or is too large.
    """
    if folder is None:
        raise NoPictureError("a path, and no 'folder' is named in the rollout file")
    root = folder.resolve()
    try:
        path = (root / text).resolve()
        if not path.is_relative_to(root):
            raise NoPictureError(f"a path outside {root.name!r}")
        if not path.is_file():
            raise NoPictureError("no such file")
        size = path.stat().st_size
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, NoPictureError):
            raise
        raise NoPictureError(f"a path that cannot be read ({type(error).__name__})") from None
    if not 0 < size <= MOST_BYTES:
        raise NoPictureError(f"a file of {size:,} bytes")
    return path


def fetch(
    addresses: Mapping[str, str],
    folder: Path,
    hosts: tuple[str, ...],
    base_url: str | None,
    timeout_s: float,
    resolver: assets.Resolve = assets.resolve,
) -> dict[str, Path | NoPictureError]:
    """Fetch pictures into a folder and return where each lies, or why it does not.

    Args:
        addresses: Address by key.
        folder: Where the files go; their names are numbers.
        hosts: Hosts that people named, see :func:`tasks.providers.assets.host_allowed`.
        base_url: Address of a server of ours, which may be private.
        timeout_s: Seconds for all of them; what is not there by then is not fetched.
        resolver: Gives the addresses of a host.
    """

    async def all_of_them() -> dict[str, Path | NoPictureError]:
        room = asyncio.Semaphore(_AT_ONCE)
        trust_env = not assets.is_loopback(httpx.URL(base_url or _NOWHERE))
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=trust_env) as client:

            async def one(number: int, text: str) -> Path | NoPictureError:
                try:
                    async with room, asyncio.timeout_at(ends):
                        data = await _body(client, text, hosts, base_url or _NOWHERE, resolver)
                except TimeoutError:
                    return NoPictureError("not fetched in time")
                except assets.ForeignAddressError as error:
                    return NoPictureError(str(error))
                except NoPictureError as error:
                    return error
                except (httpx.HTTPError, OSError) as error:
                    return NoPictureError(f"cannot be fetched ({type(error).__name__})")
                path = folder / str(number)
                path.write_bytes(data)
                return path

            ends = asyncio.get_running_loop().time() + timeout_s
            found = await asyncio.gather(
                *(one(number, text) for number, text in enumerate(addresses.values()))
            )
        return dict(zip(addresses, found, strict=True))

    # A thread of its own: the caller may run inside an event loop.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(all_of_them())).result()


async def _body(
    client: httpx.AsyncClient,
    text: str,
    hosts: tuple[str, ...],
    base_url: str,
    resolver: assets.Resolve,
) -> bytes:
    url = assets.check_url(text, base_url, hosts)
    target, headers, extensions = await assets.pinned(url, base_url, resolver)
    accepted = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "imagegate"}
    request = client.build_request("GET", target, headers=headers | accepted, extensions=extensions)
    answer = await client.send(request, stream=True, follow_redirects=False)
    try:
        if answer.status_code != 200:
            raise NoPictureError(f"{url.host!r} answered {answer.status_code}")
        body = bytearray()
        async for piece in answer.aiter_raw():
            body += piece
            if len(body) > MOST_BYTES:
                raise NoPictureError(f"{url.host!r} sent more than {MOST_BYTES:,} bytes")
    finally:
        await answer.aclose()
    if not body:
        raise NoPictureError(f"{url.host!r} sent nothing")
    return bytes(body)
