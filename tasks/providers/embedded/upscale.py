"""A real neural upscaler: the networks that are compiled into pyanime4k."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Network that runs when the request names none.
DEFAULT_NETWORK = "acnet-hdn0"
#: The one factor that the networks are trained for.
FACTOR = 2


class UpscaleError(Exception):
    """The upscaler cannot do what is asked; the text says why."""


@cache
def _processor(network: str) -> Any:  # the library ships no types
    from pyanime4k import pyac

    names = tuple(pyac.specs.ModelNameList)
    if network not in names:
        # The library itself would run another network in silence.
        raise UpscaleError(f"unknown network {network!r} (known: {', '.join(names)})")
    processor = pyac.core.Processor("cpu", 0, network)
    if not processor.ok():
        raise UpscaleError(f"network {network!r} does not start: {processor.error()}")
    return processor


def check_network(network: str) -> None:
    """Refuse a network that is not compiled in.

    Raises:
        UpscaleError: With the names that are.
    """
    _processor(network)


def upscale(pixels: NDArray[np.uint8], network: str = DEFAULT_NETWORK) -> NDArray[np.uint8]:
    """Return an RGB picture at twice its size.

    Args:
        pixels: Height × width × 3, uint8.
        network: Name of a network of pyanime4k, e.g. ``acnet-hdn0``.

    Raises:
        UpscaleError: No such network.
    """
    found = _processor(network)(np.ascontiguousarray(pixels), float(FACTOR))
    return np.asarray(found, np.uint8)
