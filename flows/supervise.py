"""An upscaled picture against its source while the case is under way: serve it, or the source?

A route whose upscale may be left out (``on_failure: source`` in the mix) asks before it serves.
The rule is the one by which the checks judge upscales afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.mix.manifest import ResolvedMix


def supervises(*mixes: ResolvedMix) -> bool:
    """Tell whether a route of these mixes may serve an upscale's source instead."""
    return any(
        stage.on_failure == "source"
        for mix in mixes
        for route in mix.mix.routes.values()
        for alternative in route
        for stage in alternative.stages
    )


def untrue(source: bytes, result: bytes) -> str:
    """Return why an upscaled picture is not true to its source, "" when it is.

    Args:
        source: File of the picture before the upscale.
        result: File of the picture after it.
    """
    from tasks.checks.base import Expected
    from tasks.checks.decode import decode
    from tasks.checks.upscale import Faithful, Halos

    decoded, small = decode(result, Expected()), decode(source, Expected()).picture
    if decoded.picture is None:
        return next((f.message for f in decoded.findings if f.verdict == "fail"), "does not decode")
    if small is None:
        return ""  # The checks will say so of the picture; nothing better could be served.
    picture = replace(decoded.picture, references={"source": small.rgb})
    for check in (Faithful(), Halos()):
        found = check.run(picture, Expected())
        if found.verdict == "fail":
            return found.message
    return ""
