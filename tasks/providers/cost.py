"""What a request costs, from the catalog's price and what the provider says it used; pure.

Money is in whole micro-dollars, rounded up. What cannot be worked out is ``None``, never 0.
"""

from __future__ import annotations

import math

from tasks.mix.catalog import Model, Price
from tasks.records import CostSource, Usage, microusd

#: Providers call a picture of 1024 x 1024 one megapixel.
PIXELS_A_MEGAPIXEL = 1024 * 1024
_PIXELS_AT_LEAST = 1_000_000
_MODALITIES = ("text_in", "image_in", "text_out", "image_out")


def cost_of(
    price: Price, usage: Usage | None, width: int, height: int, seconds: float
) -> tuple[int, CostSource] | None:
    """Return what one delivered picture cost, and how that is known.

    Args:
        price: The catalog's price.
        usage: What the provider says it used.
        width: Pixels of the picture.
        height: Pixels of the picture.
        seconds: Seconds that the request took; a server of one's own is busy for so long.

    Returns:
        Micro-dollars with ``computed`` (price times usage) or ``list`` (the price alone), or
        ``None`` when the provider did not say what the price needs.
    """
    used = usage or Usage()
    if price.per == "image":
        return microusd(price.usd), "list"
    if price.per == "megapixel":
        area = used.megapixels
        if area is None:
            area = width * height / PIXELS_A_MEGAPIXEL
        return _megapixels(price, math.ceil(area - 1e-9)), "computed"
    if price.per == "credit":
        if used.credits is not None:
            return microusd(price.usd * used.credits), "computed"
        return microusd(price.usd * (price.credits or 0.0)), "list"
    if price.per == "gpu_second":
        busy = seconds if used.gpu_seconds is None else used.gpu_seconds
        return microusd(price.usd * max(0.0, busy)), "computed"
    return _tokens(price, used)


def worst_case(model: Model, prompt: str, width: int, height: int) -> int | None:
    """Return the most that one attempt can cost in micro-dollars; ``None`` without a price.

    Args:
        model: The model with its price and its time limit.
        prompt: What it is asked; no text has more tokens than bytes.
        width: Pixels of the largest picture that the request can bring.
        height: Pixels of the largest picture that the request can bring.
    """
    price = model.price
    if price is None:
        return None
    most = microusd(price.most_usd or 0.0)
    if price.per == "megapixel":
        # A bill may count a million pixels as one, and may round up.
        return max(most, _megapixels(price, math.ceil(width * height / _PIXELS_AT_LEAST)))
    if price.per == "credit":
        return max(most, microusd(price.usd * (price.credits or 0.0)))
    if price.per == "gpu_second":
        return max(most, microusd(price.usd * model.limits.timeout_s))
    if price.per == "token" and price.tokens is not None:
        text = len(prompt.encode("utf-8", "surrogatepass")) * price.tokens.text_in
        return max(most, microusd(price.usd + text / 1e6))
    return max(most, microusd(price.usd))


def _megapixels(price: Price, count: int) -> int:
    """Return the price of a number of megapixels; a begun one is a whole one."""
    first = price.usd if price.first_usd is None else price.first_usd
    return microusd(first + price.usd * (max(1, count) - 1))


def _tokens(price: Price, used: Usage) -> tuple[int, CostSource] | None:
    """Return the price of the tokens, ``None`` when a priced modality was not reported."""
    table = price.tokens
    if table is None:
        return None
    dollars = 0.0
    for modality in _MODALITIES:
        rate, count = getattr(table, modality), getattr(used, modality)
        if rate == 0:
            continue
        if count is None:
            return None
        dollars += rate * count / 1e6
    return microusd(dollars), "computed"
