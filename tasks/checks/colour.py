"""Are the colours right? A cast over the whole picture, and a brand's palette."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.checks import icc
from tasks.checks.base import Expected, Picture
from tasks.checks.blank import MIN_SIDE, reduced
from tasks.checks.colour_reference import Overlay, change, overlay, reference, twin
from tasks.checks.colour_space import SIDE, ciede2000, colour_bins, lab
from tasks.checks.colour_words import asks_for_colour, asks_for_light
from tasks.checks.logo import Logo, brand_logo, logo_pixels
from tasks.records import Finding, Region
from tasks.settings import DATASETS

#: Hues of warm light, in degrees of a*b*. Of 56 pictures among 1,229 of models whose greys come out
#: under another light 53 lie there, at 30 to 91; all are meant so.
_WARM = (15.0, 105.0)


@dataclass(frozen=True, slots=True)
class Light:
    """What the highlights say about the light of a picture."""

    #: Level that the weakest channel ever reaches, as a share of the strongest one's.
    ceiling: float
    #: Share of grey pixels as they are, and with the light taken out.
    grey: float
    grey_undone: float
    #: Chroma of the most coloured twentieth with the light taken out.
    colourful: float
    #: Whether the light is that of lamps, or of paper and gold.
    warm: bool


def light(rgb: NDArray[np.uint8]) -> Light:
    """Estimate the light from the highlights (the white-patch assumption).

    Under coloured light no pixel is white, and things that are grey come out grey once the light
    is taken out. Coloured things under white light do not: something else turns coloured.
    """
    small = reduced(rgb, SIDE).reshape(-1, 3)
    high = np.quantile(small, 0.995, axis=0)
    ceiling = float(high.min() / max(float(high.max()), 1.0))
    if ceiling > Cast().white:
        # Something is white: the rest would change nothing, and costs the most.
        return Light(ceiling=ceiling, grey=0.0, grey_undone=0.0, colourful=0.0, warm=False)
    gain = np.maximum(high / max(float(high.max()), 1.0), 0.3)
    undone = np.clip(small / gain, 0, 255).astype(np.uint8)
    before, after = lab(small), lab(undone)
    seen = before[:, 0] > 8  # Near black everything is grey.
    chroma = np.hypot(before[:, 1], before[:, 2])
    chroma_undone = np.hypot(after[:, 1], after[:, 2])
    return Light(
        ceiling=ceiling,
        grey=float((chroma < 5)[seen].mean()) if seen.any() else 0.0,
        grey_undone=float((chroma_undone < 5)[seen].mean()) if seen.any() else 0.0,
        colourful=float(np.quantile(chroma_undone, 0.95)),
        warm=is_warm(high),
    )


def is_warm(gains: NDArray[np.floating], beside: float = 0.0) -> bool:
    """Say whether light with these gains of red, green and blue is red-orange to yellow.

    Args:
        gains: Of the light.
        beside: Degrees of a*b* beside those hues that still count.
    """
    return _WARM[0] - beside <= _angle(gains) <= _WARM[1] + beside


class _Seen(NamedTuple):
    """What one reference says; ``bad`` is ``None`` where it cannot tell."""

    bad: bool | None
    score: float
    limit: float
    message: str


@dataclass(frozen=True, slots=True)
class Cast:
    """No coloured light lies over the whole picture.

    A cast can only be told from a coloured scene where something is known to be neutral or to have
    a colour of its own. With a brand the logo's colours are the reference; of an edit or an
    enlargement it is what went in, laid under the picture; else the baseline's picture, where it
    shows the same scene. With set type, whose letters or ground are mostly neutral, the highlights
    and the greys must agree, and the light must not be a warm one: old paper, gold, sepia and lamps
    are what designers like. Anything else is skipped, and so is a prompt that asks for coloured
    light: measured on photographs, blue sky alone passes for a cast.
    """

    #: Mean shift of the logo's pixels in a*b* above which there is a cast.
    shift: float = 3.0
    #: A weakest channel that reaches this share of the strongest one's: something is white.
    white: float = 0.85
    #: Highest ceiling of the weakest channel under a cast; below the lowest nothing neutral would
    #: show any more, and the tint is the picture's own.
    limit: float = 0.8
    lowest: float = 0.5
    #: Share of the picture that turns grey, at least, when the light of a cast is taken out.
    turned: float = 0.1
    #: Beside a reference: difference between the logarithms of the strongest and the weakest gain.
    moved: float = 0.28
    #: Then: distance from all lights between the reference's and neutral from which it is a cast,
    #: and from which it may be one.
    strayed: float = 0.2
    unsure: float = 0.12
    datasets: Path = DATASETS
    name: str = "colour.cast"
    version: str = "6"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: ceiling of the weakest channel, or 1 minus the shift against the reference."""
        why = _unfit(picture)
        if why:
            return self._skip(why)
        seen: _Seen | None = None
        if expected.brand:
            seen = self._by_logo(picture, expected.brand)
        before, changeable = reference(picture)
        if seen is None and before is not None:
            if changeable and asks_for_colour(expected.prompt):
                return self._skip("the prompt may ask for other colours")
            both = overlay(picture.rgb, before, picture.reference("mask"))
            seen = self._moved(both, "upload") if changeable else self._shifted(both)
        if seen is None:
            if asks_for_light(expected.prompt):
                return self._skip("the prompt may ask for coloured light")
            seen = self._moved(twin(picture), "baseline's picture")
            # The baseline may have the cast itself: its word is not the last one.
            if (seen is None or not seen.bad) and (expected.intended_text or expected.brand):
                lit = self._by_highlights(picture)
                seen = lit if seen is None or seen.bad is None or lit.bad else seen
        if seen is None:
            return self._skip(
                "no reference: neither a logo, nor an upload, nor set type, nor a baseline's "
                "picture of the same scene"
            )
        if seen.bad is None:
            return self._skip(seen.message)
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail" if seen.bad else "pass",
            score=round(seen.score, 4),
            limit=round(seen.limit, 4),
            message=seen.message if seen.bad else "",
        )

    def _by_logo(self, picture: Picture, brand: str) -> _Seen | None:
        """Say how far and where to the logo's colours moved; ``None`` without a sure logo."""
        kit, logo = brand_logo(brand, self.datasets)
        found = Logo(datasets=self.datasets).best(picture, kit, logo)
        if found.score < 0.9:
            return None
        shown, drawn, weight = logo_pixels(picture.rgb, logo, found)
        if weight.sum() < 50:
            return None
        far, mean = _shift(shown, drawn, weight)
        return _Seen(
            far > self.shift,
            1 - far / 100,
            1 - self.shift / 100,
            f"the logo's colours are moved towards {_towards(float(mean[0]), float(mean[1]))}",
        )

    def _moved(self, both: Overlay | None, what: str) -> _Seen | None:
        """Say whether a picture went away from neutral; ``None`` where another scene lies under it.

        A correction moves the colours as far as a cast does, but towards neutral: its light lies
        between the reference's and a neutral one, that of a cast beside.
        """
        seen = change(both) if both is not None else None
        if seen is None:
            return None
        moved = seen.agreed >= 0.6 and float(np.ptp(seen.moved)) >= self.moved
        strayed = seen.strayed if moved else 0.0
        bad: bool | None = strayed >= self.strayed
        message = f"against the {what} everything is moved towards {_hue(np.exp(seen.moved))}"
        if not bad and float(np.ptp(seen.tint)) >= self.moved:
            # Its highlights were as coloured before: the light there, or all that is in it.
            bad, message = None, f"the {what} itself shows nothing neutral"
        elif not bad and strayed >= self.unsure:
            bad, message = None, f"a cast, or the light of the {what} taken off: it cannot be told"
        return _Seen(bad, 1 - strayed, 1 - self.strayed, message)

    def _shifted(self, both: Overlay | None) -> _Seen | None:
        """Say whether an enlargement has another light than its source: it may correct nothing."""
        seen = change(both) if both is not None else None
        if seen is None:
            return None
        far = float(np.ptp(seen.moved)) if seen.agreed >= 0.6 else 0.0
        message = f"against the source everything is moved towards {_hue(np.exp(seen.moved))}"
        return _Seen(far >= self.moved, 1 - far, 1 - self.moved, message)

    def _by_highlights(self, picture: Picture) -> _Seen:
        """Say whether greys come out once the light of the highlights is taken out."""
        seen = light(picture.rgb)
        bad: bool | None = (
            self.lowest <= seen.ceiling <= self.limit
            and seen.grey_undone >= max(self.turned, 0.5 * seen.grey)
            and seen.colourful >= 6
        )
        _, a, b = lab(reduced(picture.rgb, 64)).reshape(-1, 3).mean(axis=0)
        message = f"a cast towards {_towards(float(a), float(b))} over everything"
        if not bad and seen.ceiling <= self.white:
            bad, message = None, "nothing in the picture is sure to be neutral"
        elif bad and seen.warm:
            bad, message = None, "a warm tint, as of paper, gold or lamps: it may be meant"
        return _Seen(bad, seen.ceiling, self.limit, message)

    def _skip(self, why: str) -> Finding:
        return Finding(check=self.name, version=self.version, verdict="skip", message=why)


def _shift(
    shown: NDArray[np.uint8], drawn: NDArray[np.uint8], weight: NDArray[np.float32]
) -> tuple[float, NDArray[np.float64]]:
    """Return how far in a*b* the colours of a logo are moved, and where to on average.

    Each colour of the logo for itself: a gain moves a blue and a yellow apart, so that the mean of
    all may stay.
    """
    used = np.flatnonzero(weight > 0)
    there, wanted = (np.take(p.reshape(-1, 3), used, axis=0) for p in (shown, drawn))
    codes = (wanted >> 4).astype(np.int32) @ np.array([256, 16, 1], dtype=np.int32)
    counts = np.bincount(codes)
    large = np.flatnonzero(counts >= max(8, 0.02 * len(wanted)))
    groups = [np.flatnonzero(codes == code) for code in large]
    # Medians: a logo that stands a pixel beside the place found mixes its colours at the edges.
    middle = [[np.median(np.take(p, g, axis=0), axis=0) for g in groups] for p in (there, wanted)]
    seen, right = lab(np.rint(np.array(middle)).astype(np.uint8))
    difference = (seen - right)[:, 1:]
    share = counts[large] / counts[large].sum()
    return float((np.hypot(difference[:, 0], difference[:, 1]) * share).sum()), share @ difference


def _unfit(picture: Picture) -> str:
    """Return why colours cannot be judged at all, or nothing."""
    if min(picture.rgb.shape[:2]) < MIN_SIDE:
        return "too small to judge"
    why = icc.unknown(picture)
    return f"colours cannot be known: {why}" if why else ""


def _hue(gains: NDArray[np.floating]) -> str:
    """Name the colour of light with these gains of red, green and blue."""
    return _named(_angle(gains))


def _angle(gains: NDArray[np.floating]) -> float:
    """Return the hue of light with these gains, in degrees of a*b*."""
    level = np.clip(gains / max(float(gains.max()), 1e-9) * 255, 0, 255).astype(np.uint8)
    _, a, b = lab(level)
    return float(np.degrees(np.arctan2(b, a)) % 360)


def _towards(a: float, b: float) -> str:
    """Name the direction of a shift in a* and b*."""
    return _named(float(np.degrees(np.arctan2(b, a)) % 360))


def _named(hue: float) -> str:
    names = ("red", "orange", "yellow", "green", "cyan", "blue", "violet", "magenta")
    edges = (20, 55, 80, 120, 180, 225, 290, 330)
    for name, edge in zip(names, edges, strict=True):
        if hue < edge:
            return name
    return "red"


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of the brand's palette are noticeably there, and not in the logo alone.

    Greys and white are in every picture and prove nothing; they count only where the palette has
    hardly anything else.
    """

    #: Share of the palette's colours that must be there.
    limit: float = 0.5
    #: CIEDE2000 up to which a pixel counts as a palette colour (lightness counts half: things have
    #: light and shade), and the share of such pixels that makes the colour noticeable.
    near: float = 7.0
    coverage: float = 0.003
    #: Chroma from which a colour of the palette is no grey.
    chroma: float = 10.0
    datasets: Path = DATASETS
    name: str = "colour.palette"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: share of the palette's colours that are noticeably there."""
        if not expected.brand:
            return Finding(
                check=self.name, version=self.version, verdict="skip", message="no brand asked for"
            )
        why = icc.unknown(picture)
        if why:
            return Finding(
                check=self.name,
                version=self.version,
                verdict="skip",
                message=f"colours cannot be known: {why}",
            )
        kit, logo = brand_logo(expected.brand, self.datasets)
        wanted = lab(np.array(kit.colours, dtype=np.uint8))
        counted = np.hypot(wanted[:, 1], wanted[:, 2]) >= self.chroma
        if counted.sum() < 2:
            counted[:] = True
        small = reduced(picture.rgb, SIDE)
        rows, columns = small.shape[:2]
        place = kit.logo_region(columns, rows, logo.shape[1] / logo.shape[0])
        beside = np.ones((rows, columns), bool)
        beside[
            max(0, place.y - 1) : place.y + place.height + 1,
            max(0, place.x - 1) : place.x + place.width + 1,
        ] = False
        colours, shares = colour_bins(small[beside])
        seen = lab(np.rint(colours).astype(np.uint8))
        distance = ciede2000(seen[:, None, :], wanted[None, :, :], lightness=2.0)
        cover = ((distance <= self.near) * shares[:, None]).sum(axis=0)
        found = cover >= self.coverage
        score = float(found[counted].mean())
        missing = [
            f"{colour} ({share:.1%})"
            for colour, share, there, counts in zip(kit.palette, cover, found, counted, strict=True)
            if counts and not there
        ]
        good = score >= self.limit
        height, width = picture.rgb.shape[:2]
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 4),
            limit=self.limit,
            message=""
            if good
            else f"colours of {kit.name!r} that are hardly there: {', '.join(missing)}",
            region=None if good else Region(x=0, y=0, width=width, height=height),
        )
