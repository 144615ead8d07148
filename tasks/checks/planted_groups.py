"""Defects of pictures that are judged together: strangers in a campaign, repeats, seeds.

The groups are small pictures, 256 px: they are judged by their colours, by where something is drawn
and by fingerprints, all taken from fewer pixels than that. They go the way of a run: looks and
fingerprints in reports, both arms, the policy's default tolerances.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from tasks.check_rules import GROUP_KINDS, ConsistencyRules
from tasks.checks import duplicates
from tasks.checks.base import Expected, Pixels
from tasks.checks.colour_space import lab
from tasks.checks.consistency import CAMPAIGN, REPEAT, SEED
from tasks.checks.decode import decode
from tasks.checks.groups import group_findings
from tasks.checks.look import look_of
from tasks.checks.planted_base import Defect, Good, Planted, choice, encoded
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.render import Job, png, render
from tasks.records import Arm, Case, CheckVerdict, ImageReport

#: Checks of groups that are planted here; near-duplicates are in ``planted_pictures``.
CHECKS = (CAMPAIGN, REPEAT, SEED)
_SIDE = 256
#: Pictures of a campaign, and of the repeats of each arm.
_MEMBERS = 5
#: Pixels by which members are cut off at a side, and how far their light differs: as a layout that
#: is set anew for each market, or a model that draws a prompt almost the same again.
_CUT, _LIGHT = 8, 0.06
#: Texts of a campaign have as many words and are about as long: larger letters, or another number
#: of lines, would be another layout.
_LENGTHS = 0.15
#: Mean distance in a*b* over the whole picture from which anybody sees other colours.
_SEEN = 20.0
#: Mean difference of L*, in 32 × 32 parts, from which anybody sees another layout, and up to which
#: nobody would call it one.
_LAID, _ALIKE = 10.0, 4.0
#: Drawings that are tried for the members of a campaign.
_DRAWS = 12
_KINDS = ("PNG", "JPEG", "JPEG", "WEBP")


def judged(check: str, shown: Planted) -> CheckVerdict:
    """Return what is found on the last picture of a group; ``skip`` where one does not decode.

    Of repeats the first five are the baseline's, by which the candidate's are judged.
    """
    pictures = [decode(file, Expected()).picture for file in (*shown.earlier, shown.data)]
    if any(picture is None for picture in pictures):
        return "skip"
    looked = [_report(picture.rgb) for picture in pictures if picture is not None]
    own = looked[_MEMBERS:] if check == REPEAT else looked
    cases = [_case(check, number) for number in range(max(len(own), _MEMBERS))]
    arms: dict[Arm, Sequence[ImageReport]] = {"candidate": own}
    if check == REPEAT:
        arms["baseline"] = looked[:_MEMBERS]
    reports = {
        (arm, case.case_id): report
        for arm, members in arms.items()
        for case, report in zip(cases, members, strict=False)
    }
    kinds = [kind for kind in GROUP_KINDS if check == f"consistency.{kind}"]
    found = group_findings(cases, reports, ConsistencyRules(), kinds)
    findings = found.get(("candidate", cases[len(own) - 1].case_id), ())
    return next((f.verdict for f in findings if f.check == check), "skip")


def _report(rgb: Pixels) -> ImageReport:
    return ImageReport(
        findings=(),
        fingerprint=duplicates.fingerprint(rgb),
        look=look_of(rgb).packed(),
    )


def _case(check: str, number: int) -> Case:
    case = Case(case_id=f"planted-{number}", prompt="a picture", subtask="creative")
    if check == CAMPAIGN:
        return case.model_copy(update={"campaign": "planted", "prompt": f"picture {number}"})
    return case.model_copy(update={"case_id": f"planted~{number}", "repeat": number})


def grouped(check: str, good: Good) -> Good | None:
    """Return the last picture of a good group with the others beside it, ``None`` without one."""
    if check == SEED and good.references:
        return None
    make = {CAMPAIGN: _campaign, REPEAT: _repeats, SEED: _seeds}[check]
    return good.once(check, make)


def _drawn_anew(good: Good) -> bool:
    """Say whether the picture can be drawn again from its job alone."""
    return good.job is not None and not good.references


def _job(good: Good) -> Job:
    if good.job is None:
        raise ValueError(f"{good.name} cannot be drawn again")
    return replace(good.job, width=_SIDE, height=_SIDE)


def _small(good: Good) -> Pixels:
    """Return the picture itself, small."""
    if _drawn_anew(good):
        return _drawing(_job(good))
    height, width = good.rgb.shape[:2]
    ratio = min(1.0, _SIDE / min(height, width))
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return np.asarray(cv2.resize(good.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def _drawing(job: Job) -> Pixels:
    picture = decode(render(job), Expected()).picture
    if picture is None:
        raise ValueError("a drawing of our own does not decode")
    return picture.rgb


def _varied(rgb: Pixels, rng: np.random.Generator) -> Pixels:
    """Return a picture cut a little and in slightly other light."""
    top, left = (int(rng.integers(0, _CUT + 1)) for _ in range(2))
    cut = rgb[top : rgb.shape[0] - top or None, left:].astype(np.float32)
    lit = np.rint(cut * float(rng.uniform(1 - _LIGHT, 1 + _LIGHT)))
    varied: Pixels = lit.clip(0, 255).astype(np.uint8)
    return varied


def _group(good: Good, pictures: Sequence[Pixels]) -> Good:
    files = [png(np.ascontiguousarray(one)) for one in pictures]
    return replace(good, make=lambda: files[-1], references={}, beside=tuple(files[:-1]))


def _campaign(good: Good) -> Good:
    """One layout with other words; any other picture with nothing but its light changed."""
    rng = generator("planted campaign", good.name)
    if not _drawn_anew(good):
        small = _small(good)
        return _group(good, [_varied(small, rng) for _ in range(_MEMBERS)])
    from tasks.checks.planted_good import phrases

    stock = phrases("en")
    first = choice(stock, rng)
    near = [
        text
        for text in stock
        if abs(len(text) - len(first)) <= _LENGTHS * len(first)
        and len(text.split()) == len(first.split())
    ]
    job = replace(_job(good), locale="en")
    drawn = [_drawing(replace(job, text=(first,)))]
    for _ in range(_DRAWS):
        if len(drawn) == _MEMBERS:
            break
        other = _drawing(replace(job, text=(choice(near, rng),)))
        # Words that wrap otherwise, and what makes room for them, are another layout.
        if _otherwise(drawn[0], other) < _ALIKE:
            drawn.append(other)
    members = itertools.islice(itertools.cycle(drawn), _MEMBERS)
    return _group(good, [_varied(one, rng) for one in members])


def _repeats(good: Good) -> Good:
    """One picture again and again, by both arms."""
    rng, small = generator("planted repeats", good.name), _small(good)
    return _group(good, [_varied(small, rng) for _ in range(2 * _MEMBERS)])


def _seeds(good: Good) -> Good:
    """The picture under other seeds, which draw other pictures; one of people's, turned about."""
    if not _drawn_anew(good):
        small = _small(good)
        return _group(good, [small[::-1], small[:, ::-1], np.rot90(small), small])
    job = _job(good)
    return _group(good, [_drawing(replace(job, seed=job.seed + n)) for n in range(4)])


def stranger(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Put another drawing among the pictures of a campaign."""
    from tasks.checks.planted_good import pictured

    member = grouped(CAMPAIGN, good)
    if member is None:
        return None
    other = pictured(int(rng.integers(2**31)), 0)
    return member.sent(render(replace(other, width=_SIDE, height=_SIDE)))


def _turned(check: str, good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Turn all hues of one member; ``None`` where there are hardly any to see."""
    member = grouped(check, good)
    if member is None:
        return None
    angle = float(rng.choice([-1, 1])) * strength * 2 * np.pi / 3
    pixels = hues_by(member.rgb, angle)
    before, after = (lab(_reduced(rgb, 64))[..., 1:] for rgb in (member.rgb, pixels))
    moved = float(np.hypot(*np.moveaxis(after - before, -1, 0)).mean())
    return member.planted(pixels) if moved >= _SEEN * strength else None


def hues_by(rgb: Pixels, angle: float) -> Pixels:
    """Return a picture with all hues turned by an angle, as bright as before."""
    space = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    a, b = space[..., 1].copy(), space[..., 2].copy()
    space[..., 1] = a * np.cos(angle) - b * np.sin(angle)
    space[..., 2] = a * np.sin(angle) + b * np.cos(angle)
    turned = cv2.cvtColor(space, cv2.COLOR_LAB2RGB)
    return np.clip(np.rint(turned * 255), 0, 255).astype(np.uint8)


def other_colours(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Give a member of a campaign other colours."""
    return _turned(CAMPAIGN, good, strength, rng)


def repeat_turned(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Give a repeat of a prompt other colours."""
    return _turned(REPEAT, good, strength, rng)


def laid_out(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Turn a member of a campaign around; ``None`` where that shows hardly anything else."""
    member = grouped(CAMPAIGN, good)
    if member is None:
        return None
    rgb = member.rgb
    pixels = choice((rgb[::-1, ::-1], rgb[::-1], np.rot90(rgb)), rng)
    return member.planted(pixels) if _otherwise(rgb, pixels) >= _LAID else None


def _otherwise(one: Pixels, two: Pixels) -> float:
    """Return the mean difference of L* in 32 × 32 parts."""
    parts = [lab(_reduced(rgb, 32))[..., 0] for rgb in (one, two)]
    return float(np.abs(parts[0] - parts[1]).mean())


def one_for_all(good: Good, strength: float, rng: np.random.Generator) -> Planted | None:
    """Send one picture for every seed, each in a file of its own."""
    member = grouped(SEED, good)
    if member is None:
        return None
    files = []
    for kind in _KINDS:
        quality = {} if kind == "PNG" else {"quality": int(rng.integers(75, 96))}
        files.append(encoded(member.rgb, kind, **quality))
    return Planted(files[-1], member.expected, earlier=tuple(files[:-1]), of=member)


def _reduced(rgb: Pixels, side: int) -> Pixels:
    small = cv2.resize(np.ascontiguousarray(rgb), (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


_ALL = "all or nothing"
_TURN = "turn of the hue, 120°"
_CURVE = (0.25, 0.5, 0.75, 1.0)
DEFECTS = (
    Defect("stranger in a campaign", CAMPAIGN, 1.0, stranger, _ALL, (1.0,)),
    Defect("member in other colours", CAMPAIGN, 1.0, other_colours, _TURN, _CURVE),
    Defect("member laid out otherwise", CAMPAIGN, 1.0, laid_out, _ALL, (1.0,)),
    Defect("repeat in other colours", REPEAT, 1.0, repeat_turned, _TURN, _CURVE),
    Defect("one picture for all seeds", SEED, 1.0, one_for_all, _ALL, (1.0,)),
)
