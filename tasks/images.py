"""The image store: every picture once, by its sha256, on this disk and in the shared store."""

from __future__ import annotations

import re
from pathlib import Path

from tasks.errors import EvidenceError
from tasks.plan import Remote, write_atomic
from tasks.records import digest_bytes

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


class ImageStore:
    """A folder of files named by the sha256 of their bytes.

    Args:
        root: The folder; made when the first image comes.
        remote: Where other workers find the pictures, and this one finds theirs.
    """

    def __init__(self, root: Path, remote: Remote | None = None) -> None:
        self.root, self.remote = root, remote
        #: Pictures that the shared store is known to have.
        self._shared: set[str] = set()

    def path(self, digest: str) -> Path:
        """Return where the picture with this digest lies, whether it is there or not.

        One that only the shared store has is fetched.

        Raises:
            EvidenceError: ``digest`` is not a digest, so it cannot become a path; or the shared
                store cannot be reached, or has other bytes under it.
        """
        target = self.root / _name(digest)
        if self.remote is not None and not target.exists():
            data = self.remote.pull(_key(digest))
            if data is not None:
                if digest_bytes(data) != digest:
                    raise EvidenceError(
                        f"image {digest} was altered in the shared store: its bytes have another "
                        "digest"
                    )
                write_atomic(target, data)
                self._shared.add(digest)
        return target

    def put(self, data: bytes) -> str:
        """Store the bytes durably and return their digest; the same bytes are stored once.

        Raises:
            EvidenceError: The disk is full, or the shared store did not take them: then nobody
                may be told of the picture, for others could not find it.
        """
        digest = digest_bytes(data)
        target = self.root / _name(digest)
        if not target.exists():
            write_atomic(target, data)
        if self.remote is not None and digest not in self._shared:
            self.remote.push(_key(digest), data)
            self._shared.add(digest)
        return digest

    def has(self, digest: str) -> bool:
        """Tell whether the picture is there, and see to it that other workers have it too.

        Raises:
            EvidenceError: The shared store cannot be reached.
        """
        if not self.path(digest).exists():
            return False
        self.share(digest)
        return True

    def share(self, digest: str) -> bool:
        """Push a picture that the shared store does not have; tell whether it was pushed.

        Raises:
            EvidenceError: The picture is missing or altered, or the store cannot be reached.
        """
        if self.remote is None or digest in self._shared:
            return False
        pushed = not self.remote.exists(_key(digest))
        if pushed:
            self.remote.push(_key(digest), self.get(digest))
        self._shared.add(digest)
        return pushed

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


def _name(digest: str) -> Path:
    if not _DIGEST.match(digest):
        raise EvidenceError(f"not an image digest: {digest!r} (expected sha256:<64 hex>)")
    name = digest.removeprefix("sha256:")
    return Path(name[:2], name)


def _key(digest: str) -> str:
    return f"images/{_name(digest).as_posix()}"
