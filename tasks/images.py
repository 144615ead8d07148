"""The image store: every picture once, by its sha256."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.errors import EvidenceError
from tasks.plan import write_atomic
from tasks.records import digest_bytes

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class ImageStore:
    """A folder of files named by the sha256 of their bytes.

    Args:
        root: The folder; made when the first image comes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return where the picture with this digest lies, whether it is there or not.

        Raises:
            EvidenceError: ``digest`` is not a digest, so it cannot become a path.
        """
        if not _DIGEST.match(digest):
            raise EvidenceError(f"not an image digest: {digest!r} (expected sha256:<64 hex>)")
        name = digest.removeprefix("sha256:")
        return self.root / name[:2] / name

    def put(self, data: bytes) -> str:
        """Store the bytes durably and return their digest; the same bytes are stored once."""
        digest = digest_bytes(data)
        target = self.path(digest)
        if not target.exists():
            write_atomic(target, data)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes.

        Raises:
            EvidenceError: The picture is missing or its bytes do not match the digest any more.
        """
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise EvidenceError(f"image {digest} cannot be read: {error}") from None
        if digest_bytes(data) != digest:
            raise EvidenceError(f"image {digest} was altered: its bytes have another digest")
        return data
