"""The shared evidence: one bucket for all workers, behind a small store with four verbs.

Any address that fsspec knows will do; ``s3://bucket/prefix`` is what teams use. The local disk
stays the cache: pictures by their digest, runs by their sealed manifest, both compared with their
digests when they come back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.errors import ConfigError, EvidenceError
from tasks.plan import RunFolder, write_atomic
from tasks.settings import Settings

#: One part of a key: nothing that a path, a shell or a URL reads as more than a name.
_PART = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,200}\Z")
_MOST_PARTS = 8
#: Seconds until a connection, and an answer on it, are given up; botocore tries again by itself.
_CONNECT_S, _READ_S, _ATTEMPTS = 5, 60, 3
#: Objects at most in one listing that is read through.
_MOST_LISTED = 100_000


class RemoteStore:
    """Objects by key below an address.

    Connections are opened at the first use. Safe to use from several threads.

    Args:
        url: fsspec address without credentials, e.g. ``s3://bucket/prefix``.
        endpoint: Address of an S3 server that is not Amazon's.

    Raises:
        ConfigError: The address is none, or carries credentials or options.
    """

    def __init__(self, url: str, endpoint: str | None = None) -> None:
        self.url, self.endpoint = _checked(url), endpoint
        self._opened: tuple[Any, str] | None = None

    def push(self, key: str, data: bytes) -> None:
        """Store the bytes under the key, all of them or nothing.

        Raises:
            EvidenceError: The store cannot be reached or refuses.
        """
        self._call(key, "written", lambda fs, path: _write(fs, path, data))

    def pull(self, key: str) -> bytes | None:
        """Return the bytes under the key, ``None`` when there are none.

        Raises:
            EvidenceError: The store cannot be reached or refuses.
        """
        try:
            data: bytes = self._call(key, "read", lambda fs, path: fs.cat_file(path))
        except FileNotFoundError:
            return None
        return data

    def exists(self, key: str) -> bool:
        """Tell whether there is something under the key.

        Raises:
            EvidenceError: The store cannot be reached or refuses.
        """
        try:
            # Not isfile(): it says no when the store is down.
            return bool(
                self._call(key, "looked for", lambda fs, path: fs.info(path))["type"] == "file"
            )
        except FileNotFoundError:
            return False

    def list(self, key: str) -> list[str]:
        """Return the names directly below a key, sorted; empty when there are none.

        Raises:
            EvidenceError: The store cannot be reached or refuses.
        """
        try:
            found = self._call(key, "listed", lambda fs, path: fs.ls(path, detail=False))
        except FileNotFoundError:
            return []
        names = {str(name).rstrip("/").rpartition("/")[2] for name in found[:_MOST_LISTED]}
        # Names that this store would not write are somebody else's.
        return sorted(name for name in names if _PART.match(name))

    def _call(self, key: str, what: str, call: Callable[[Any, str], Any]) -> Any:
        """Do something with an object; every way to fail becomes one sentence.

        Raises:
            FileNotFoundError: There is no such object.
            EvidenceError: Anything else.
        """
        relative = checked_key(key)
        where = f"{self.url}/{relative}"
        try:
            fs, root = self._open()
            return call(fs, f"{root}/{relative}")
        except FileNotFoundError as error:
            # A bucket that is not there looks the same, but nothing can ever be kept in it.
            if "bucket" in str(error).lower():
                raise EvidenceError(f"{where}: cannot be {what}: {error}") from None
            raise
        except EvidenceError:
            raise
        except Exception as error:  # noqa: BLE001 - botocore, aiohttp, asyncio: no common base
            text = " ".join(str(error).split())[:300] or "no answer"
            raise EvidenceError(
                f"{where}: cannot be {what}: {type(error).__name__}: {text}; see that the store "
                "runs, that IMAGEGATE_S3_ENDPOINT names it and that AWS_ACCESS_KEY_ID may use it"
            ) from None

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            # Takes half a second: only who uses it waits for it.
            import fsspec  # type: ignore[import-untyped]

            options: dict[str, Any] = {}
            if self.url.startswith(("s3://", "s3a://")):
                options = s3_options(self.endpoint)
            fs, root = fsspec.core.url_to_fs(self.url, **options)
            if options:
                # botocore repeats already; both together would wait for minutes.
                fs.retries = 1
            self._opened = (fs, str(root).rstrip("/"))
        return self._opened


def s3_options(endpoint: str | None) -> dict[str, Any]:
    """Return the options of an S3 file system that sees what others write and gives up in time."""
    return {
        "endpoint_url": endpoint,
        "use_listings_cache": False,
        "skip_instance_cache": True,
        "config_kwargs": {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _READ_S,
            "retries": {"mode": "standard", "max_attempts": _ATTEMPTS},
        },
    }


def _write(fs: Any, path: str, data: bytes) -> None:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
    if "file" in protocols:
        # A shared disk: others must not see half of it.
        write_atomic(Path(path), data)
    else:
        fs.pipe_file(path, data)


def open_remote(settings: Settings) -> RemoteStore | None:
    """Return the store that the settings name, ``None`` when evidence stays on this machine.

    Raises:
        ConfigError: The address is none, or carries credentials or options.
    """
    if settings.evidence_url is None:
        return None
    return RemoteStore(settings.evidence_url, settings.s3_endpoint)


def folder_of(settings: Settings, run_id: str) -> RunFolder:
    """Return the folder of a run, with what other machines wrote of it behind it.

    Raises:
        ConfigError: The address of the shared evidence is wrong.
    """
    return RunFolder(settings.runs / run_id, open_remote(settings))


def checked_key(key: str) -> str:
    """Return a key as it is.

    Raises:
        EvidenceError: It is not plain names joined by ``/``: it could point elsewhere.
    """
    parts = key.split("/")
    if len(parts) > _MOST_PARTS or not all(_PART.match(part) for part in parts):
        raise EvidenceError(
            f"not a key of the evidence store: {key!r} (expected names of letters, digits, '.', "
            "'_' and '-' joined by '/')"
        )
    return key


def _checked(url: str) -> str:
    """Return the address without a slash at its end."""
    hint = "IMAGEGATE_EVIDENCE_URL: expected an address like s3://bucket/prefix"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"{hint}; this is none") from None
    if not parts.scheme or "::" in url or "//" not in url or not (parts.netloc or parts.path):
        raise ConfigError(f"{hint}; this is none")
    if "@" in parts.netloc or parts.query or parts.fragment:
        # Not shown: it may hold a key.
        raise ConfigError(
            f"{hint} without credentials or options; give AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY (or a role) in the environment"
        )
    if ".." in parts.path.split("/"):
        raise ConfigError(f"{hint} without '..', got {url!r}")
    return url.rstrip("/")
