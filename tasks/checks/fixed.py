"""Pixels that nobody can change, as keys of a cache: what was worked out of them stays true."""

from __future__ import annotations

import weakref
from typing import cast

from tasks.checks.base import Pixels


class Fixed:
    """One array, the same only as itself; a cache that holds it keeps no pixels alive."""

    __slots__ = ("_hash", "_reference")

    def __init__(self, pixels: Pixels) -> None:
        self._reference = weakref.ref(pixels)
        self._hash = id(pixels)

    @property
    def pixels(self) -> Pixels:
        """The array.

        Raises:
            ReferenceError: It is gone.
        """
        found = self._reference()
        if found is None:
            raise ReferenceError("the pixels are gone")
        return found

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        # An array that is gone equals nothing: another one may have its place in memory.
        mine = self._reference()
        return isinstance(other, Fixed) and mine is not None and mine is other._reference()


def unchangeable(*pixels: Pixels) -> bool:
    """Say whether these arrays lie over bytes, as those that the decoder makes do."""
    return all(isinstance(cast(object, one.base), bytes) for one in pixels)
