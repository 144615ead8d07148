"""How the evidence grew, drawn: one line towards "roll back", one towards "promote".

Pure functions; everything drawn is a number or escaped text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.evidence.charts import at, nice_ceiling

#: More looks than this are drawn as a line without a dot for each.
_MOST_DOTS = 60
#: Evidence beyond this many proofs is drawn at the rim: it changes nothing any more.
_MOST_PROOFS = 2.0
_HEIGHT, _TOP, _AXIS = 300, 10, 26
_MIDDLE = (_TOP + _HEIGHT - _AXIS) / 2

_TEXT = Markup('<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{label}</text>')


@dataclass(frozen=True, slots=True)
class Point:
    """One look, as it is drawn."""

    images: int
    #: Evidence as a share of the proof, 1 for a complete one; never below 0.
    against: float
    favour: float
    #: What a pointer over it says.
    title: str
    #: A slice looked bad here, so that extra cases of it came next.
    amber: bool = False
    #: This look came after extra cases, which the failure rate does not count.
    after_extra: bool = False
    #: What was decided here; empty where the run went on.
    decided: str = ""


def growth_chart(points: Sequence[Point], label: str) -> Markup:
    """Return the evidence over the images, rolling back upwards and promoting downwards.

    Args:
        points: The looks in their order; at least one.
        label: The drawing in words, for whoever cannot see it.
    """
    most = max(1, *(p.images for p in points))
    right, step = 1.03 * most, max(1.0, nice_ceiling(most / 6))
    proofs = max(1.18, *(1.06 * p.against for p in points), *(1.06 * p.favour for p in points))
    scale = (_MIDDLE - _TOP) / min(_MOST_PROOFS, proofs)
    parts = [
        Markup(
            '<svg class="chart growth" width="100%" height="{h}" role="img" aria-label="{a}">'
        ).format(h=_HEIGHT, a=label)
    ]
    parts += _rules(scale)
    parts += _lines(points, right, scale)
    parts += _words(scale)
    parts += _marks(points, right, scale)
    for tick in range(int(right / step) + 1):
        value = step * tick
        anchor = "start" if tick == 0 else "end" if value > 0.97 * right else "middle"
        shown = f"{value:,.0f}"
        parts.append(
            _TEXT.format(kind="tick", x=at(value, right), y=_HEIGHT - 6, anchor=anchor, label=shown)
        )
    parts.append(Markup("</svg>"))
    return Markup("").join(parts)


def _y(share: float, scale: float, *, down: bool) -> float:
    """Return the height of a share of a proof in pixels."""
    reach = min(share, _MOST_PROOFS) * scale
    return _MIDDLE + reach if down else _MIDDLE - reach


def _rules(scale: float) -> Iterable[Markup]:
    """Yield the middle, the lines of half a proof and of a whole one."""
    line = Markup('<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
    yield line.format(kind="grid zero", y=_MIDDLE)
    for down, kind in ((False, "fail"), (True, "pass")):
        yield line.format(kind=f"limit {kind}", y=_y(1, scale, down=down))
        yield line.format(kind="grid", y=_y(0.5, scale, down=down))


def _words(scale: float) -> Iterable[Markup]:
    """Yield what the rules mean; drawn above the lines, which would run through them."""

    def text(kind: str, y: float, label: str) -> Markup:
        return _TEXT.format(kind=kind, x="0%", y=f"{y:.1f}", anchor="start", label=label)

    yield text("tick", _MIDDLE - 7, "nothing is known")
    for down in (False, True):
        yield text("tick", _y(0.5, scale, down=down) - 4, "half the proof")
    yield text("proof fail", _y(1, scale, down=False) - 6, "Proof complete: roll back")
    yield text("proof pass", _y(1, scale, down=True) + 15, "Proof complete: promote")


def _lines(points: Sequence[Point], right: float, scale: float) -> Iterable[Markup]:
    """Yield both lines, from no images and no evidence on."""
    yield Markup(
        '<svg x="0" y="0" width="100%" height="{h}" viewBox="0 0 1000 {h}" '
        'preserveAspectRatio="none">'
    ).format(h=_HEIGHT)
    for down in (False, True):
        shares = [p.favour if down else p.against for p in points]
        path = [f"M0 {_MIDDLE:.1f}"] + [
            f"L{1000 * p.images / right:.1f} {_y(share, scale, down=down):.1f}"
            for p, share in zip(points, shares, strict=True)
        ]
        yield Markup('<path class="line {k}" d="{d}"/>').format(
            k="pass" if down else "fail", d="".join(path)
        )
    yield Markup("</svg>")


def _marks(points: Sequence[Point], right: float, scale: float) -> Iterable[Markup]:
    """Yield a dot a look, the looks that a slice troubled, and the decision."""
    few = len(points) <= _MOST_DOTS
    dot = Markup(
        '<circle class="look {k}" cx="{x}" cy="{y:.1f}" r="{r}"><title>{t}</title></circle>'
    )
    for point in points:
        x = at(point.images, right)
        if point.decided:
            yield Markup(
                '<line class="decision" x1="{x}" x2="{x}" y1="{top}" y2="{bottom}"/>'
            ).format(x=x, top=_TOP, bottom=_HEIGHT - _AXIS)
            early = point.images < 0.5 * right
            yield _TEXT.format(
                kind="decided",
                # A no-break space keeps the words off the line.
                x=x,
                y=_HEIGHT - _AXIS - 6 if point.against > point.favour else _TOP + 12,
                anchor="start" if early else "end",
                label=f"\u00a0{point.decided}\u00a0",
            )
        if few or point.decided:
            for kind, share in (("fail", point.against), ("pass", point.favour)):
                if share > 0 or point.decided:
                    yield dot.format(
                        k=kind,
                        x=x,
                        y=_y(share, scale, down=kind == "pass"),
                        r=6 if point.decided and share >= 1 else 3.5,
                        t=point.title,
                    )
        if point.amber or point.after_extra:
            yield dot.format(
                k="amber" if point.amber else "extra", x=x, y=_MIDDLE, r=5, t=point.title
            )
