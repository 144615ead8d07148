"""Masks of edits in the words of providers; imagegate's are white where the picture may change."""

from __future__ import annotations

from tasks.providers.base import CannotAsk
from tasks.providers.sniff import picture_size

#: Most pixels of a mask that is decoded.
MOST_PIXELS = 64_000_000


def transparent(mask: bytes) -> bytes:
    """Return a mask as a PNG that is transparent where the picture may change, as OpenAI wants it.

    Raises:
        CannotAsk: The mask is no picture, or too large.
    """
    import cv2
    import numpy as np

    size = picture_size(mask)
    if size is None or size[0] * size[1] > MOST_PIXELS:
        raise CannotAsk(
            f"the mask of this edit is no PNG, JPEG or WebP of at most {MOST_PIXELS:,} pixels, "
            f"got {len(mask):,} bytes that state {size}; mend the case's mask"
        )
    grey = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise CannotAsk("the mask of this edit cannot be decoded; mend the case's mask")
    pixels = np.dstack([np.zeros((*grey.shape, 3), np.uint8), 255 - grey])
    done, data = cv2.imencode(".png", pixels)
    if not done:
        raise CannotAsk("the mask of this edit cannot be written as PNG; mend the case's mask")
    return data.tobytes()
