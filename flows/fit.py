"""A picture in the size that was asked for, from a model that draws only certain sizes."""

from __future__ import annotations

#: Most of a side that may be cut away to get the shape that was asked for.
MOST_CUT = 0.05


def scaled_down(data: bytes, width: int, height: int) -> bytes:
    """Return the picture reduced to a size, as PNG in sRGB; as it is where that cannot be had.

    It is reduced until it covers the size, then cut centrally. A picture that is smaller than
    asked for, of another shape, or does not decode stays as it is: the checks judge that.

    Args:
        data: The file.
        width: In pixels.
        height: In pixels.
    """
    from io import BytesIO

    from PIL import Image

    from tasks.checks.base import Expected
    from tasks.checks.decode import decode

    picture = decode(data, Expected()).picture
    if picture is None:
        return data
    high, wide = picture.rgb.shape[:2]
    if (wide, high) == (width, height) or wide < width or high < height:
        return data
    scale = max(width / wide, height / high)
    # The part of the picture that becomes the result, in its own pixels.
    part = width / scale, height / scale
    if part[0] < wide * (1 - MOST_CUT) or part[1] < high * (1 - MOST_CUT):
        return data
    left, top = (wide - part[0]) / 2, (high - part[1]) / 2
    box = (left, top, left + part[0], top + part[1])
    small = Image.fromarray(picture.rgb).resize((width, height), Image.Resampling.LANCZOS, box)
    out = BytesIO()
    small.save(out, "PNG", compress_level=1)
    return out.getvalue()
