"""Is the intended text there, letter by letter?

Read in layers, so that good pictures are cheap and no picture is called bad on one glance: one
reading at a modest size; only what that did not find is looked for at other sizes; only what is
still missing is read again from enlarged lines, where the recogniser must say how probable the
intended string is beside the string it read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.checks import scripts, second_reader
from tasks.checks.base import EXTRA_BOXES, TEXT_BOXES, Expected, Picture
from tasks.checks.glyphs import BOXED, LOOK_ALIKE, renamed
from tasks.checks.second_look import MARGIN, opinion
from tasks.checks.text_match import Box, Piece, doubled, find, keys
from tasks.checks.text_misses import (
    Miss,
    agreed,
    extra,
    named,
    near,
    region,
    short,
    stretch,
    told,
    written,
)
from tasks.records import Finding

#: How the message of a skip begins where the text was not judged: no reader for the script, or
#: readers that do not agree on what stands there.
NOT_COVERED, NOT_SURE = "not covered:", "not sure:"
NOT_JUDGED = (NOT_COVERED, NOT_SURE)
#: Scripts that the recogniser was measured to read; the rest of its dictionary is not trusted.
READ_SCRIPTS = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "DIGIT")
#: Long sides at which the picture is searched for lines, one after the other. Lines are always
#: read from the full picture, so a small search misses only letters below about 3 % of it.
SIDES = (320, 640, 960)
#: With more letters than this they must be small, and the first search is left out.
MANY_LETTERS = 90
#: Two looks that read the same wrong line at least this surely need no third.
SURE = 0.9
#: Readings less certain than this are texture, not text.
MIN_SCORE = 0.5


def covered(text: str, language: str = "und") -> bool:
    """Say whether a reader here can judge this text.

    Args:
        text: The intended string.
        language: BCP 47 tag; scripts decide, and some languages need letters that look covered.
    """
    return _in_dictionary(text, language) or scripts.code_for(text, language) is not None


def _in_dictionary(text: str, language: str) -> bool:
    """Say whether PP-OCR reads this text."""
    from tasks.checks.ocr import reader

    if language.lower().partition("-")[0] == "vi":
        return not any(ord(c) > 0x7F and c.isalpha() for c in text)
    classes = reader().classes
    for char in unicodedata.normalize("NFKC", text):
        if not keys(char):
            continue
        if any(part not in classes for part in keys(char)):
            return False
        if char.isalpha() and not _script(char).startswith(READ_SCRIPTS):
            return False
        if unicodedata.category(char) == "So" and char not in "©®™°№℃℉":
            return False  # Emoji and pictographs stand in the dictionary and are not read.
    return True


def _script(char: str) -> str:
    return unicodedata.name(char, "UNKNOWN")


@dataclass(slots=True)
class _Look:
    """What was read so far."""

    rgb: Any
    alphabet: str
    lines: list[Any] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    #: Index of the first line of each pass.
    passes: list[int] = field(default_factory=list)

    def read(self, side: int) -> None:
        """Read the picture at another size and keep what is certain enough."""
        from tasks.checks.ocr import reader

        self.passes.append(len(self.boxes))
        for line in reader().lines(self.rgb, side, self.alphabet):
            if line.reading.score >= MIN_SCORE and keys(line.text):
                self.lines.append(line)
                self.boxes.append(Box(line.text, *line.box, vertical=line.vertical))

    def span(self, number: int) -> range:
        """Return the indices of the boxes of one pass."""
        ends = [*self.passes[1:], len(self.boxes)]
        return range(self.passes[number], ends[number])


@dataclass(frozen=True, slots=True)
class Text:
    """Every intended string stands in the picture; nothing dropped, doubled or swapped."""

    name: str = "typography.text"
    version: str = "2"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: the worst string's share of right letters."""
        strings = [s for s in expected.intended_text if keys(s)]
        if not strings:
            return self._skip("no text asked for")
        plain = [s for s in strings if _in_dictionary(s, expected.language)]
        groups: dict[str, list[str]] = {}
        beyond: list[str] = []
        for text in (s for s in strings if s not in plain):
            code = scripts.code_for(text, expected.language)
            (groups.setdefault(code, []) if code else beyond).append(text)
        if not plain and not groups:
            return self._skip(_uncovered(beyond, expected.language))
        misses, places, lines = _judge(plain, picture.rgb) if plain else ([], [], [])
        unsure: list[str] = []
        for code, texts in groups.items():
            found = scripts.judge(texts, code, picture.rgb)
            misses += found.missing
            unsure += found.unsure
            places += found.places
            lines = lines if plain else list(found.lines)
        misses = [
            replace(renamed(m, picture.rgb), confirmed=second_reader.confirmed(m, picture.rgb))
            for m in misses
        ]
        picture.notes["read_text"] = tuple(box.text for box in lines)
        places += [box for miss in misses for box in miss.boxes]
        picture.notes[TEXT_BOXES] = written(places, picture.rgb)
        others = extra(lines, places) if not unsure else ()
        picture.notes["extra_text"] = tuple(box.text for box in others)
        picture.notes[EXTRA_BOXES] = written(others, picture.rgb)
        picture.notes["text_severity"] = _severities(strings, misses, unsure + beyond)
        if misses:
            return self._fail(misses, picture)
        if unsure:
            return self._skip(f"{NOT_SURE} the readings of {short(unsure[0])} do not agree")
        if beyond:
            return self._skip(_uncovered(beyond, expected.language))
        return Finding(check=self.name, version=self.version, verdict="pass", score=1.0, limit=1.0)

    def _skip(self, why: str) -> Finding:
        return Finding(check=self.name, version=self.version, verdict="skip", message=why)

    def _fail(self, misses: Sequence[Miss], picture: Picture) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict="fail",
            score=round(min(miss.right_share for miss in misses), 4),
            limit=1.0,
            message=told(misses),
            region=region(misses, picture.rgb),
            confirmed=agreed(misses),
        )


def _uncovered(strings: Sequence[str], language: str) -> str:
    return f"{NOT_COVERED} no reader for {short(strings[0])} (language {language or 'und'})"


def _severities(
    strings: Sequence[str], misses: Sequence[Miss], unjudged: Sequence[str]
) -> tuple[str, ...]:
    """Return one word for each string, in their order."""
    words = {miss.text: str(miss.severity) for miss in misses}
    return tuple(words.get(s, "not judged" if s in unjudged else "exact") for s in strings)


def _judge(strings: Sequence[str], rgb: Any) -> tuple[list[Miss], list[Box], list[Box]]:
    """Return the strings that are not there, where the others stand, and the lines read first."""
    look = _Look(rgb, "".join(keys(s) for s in strings))
    misses: list[Miss] = []
    places: list[Box] = []
    for side in SIDES[len(look.alphabet) > MANY_LETTERS :]:
        look.read(side)
        misses, places = _missing(strings, look)
        if all(miss.settled for miss in misses):
            break
    doubtful = [miss for miss in misses if opinion(miss, look.lines, rgb) >= -MARGIN]
    places += [box for miss in doubtful for box in miss.boxes]
    left = [miss for miss in misses if miss not in doubtful]
    return left, places, [look.boxes[i] for i in look.span(0)]


def _missing(strings: Sequence[str], look: _Look) -> tuple[list[Miss], list[Box]]:
    """Return the strings that nothing read so far shows exactly, and where the others stand."""
    used: list[Piece] = []
    misses: dict[int, Miss] = {}
    # Longer strings first: they leave fewer places, and may contain a shorter one.
    for number in sorted(range(len(strings)), key=lambda i: -len(keys(strings[i]))):
        text = strings[number]
        pieces = find(keys(text), look.boxes, used)
        if pieces is None:
            misses[number] = _nearest(text, look)
            continue
        twice = doubled(keys(text), text, pieces, look.boxes)
        if twice:
            touched = tuple(dict.fromkeys(p.box for p in pieces))
            boxes = tuple(look.boxes[i] for i in touched)
            misses[number] = Miss(
                text=text,
                read=" ".join(box.text for box in boxes),
                distance=len(twice),
                severity="doubled",
                kind="doubled",
                boxes=boxes,
                quads=tuple(look.lines[i].quad for i in touched),
            )
            continue
        used.extend(pieces)
    return [misses[i] for i in sorted(misses)], [look.boxes[piece.box] for piece in used]


def _nearest(text: str, look: _Look) -> Miss:
    """Return the nearest stretch of text in the best pass, and what is wrong with it."""
    key = keys(text)
    tries = [stretch(key, look.boxes, look.span(n)) for n in range(len(look.passes))]
    best = min(tries, key=lambda one: one.distance)
    again = sum(other.read == best.read for other in tries)
    score = min((look.lines[i].reading.score for i in best.touched), default=1.0)
    boxes = tuple(look.boxes[i] for i in best.touched)
    severity, kind = named(key, best.read, best.distance)
    if any(LOOK_ALIKE & set(one.read) - set(key) for one in tries if one.distance < len(key)):
        severity, kind = "boxes", BOXED
    inside = _inside(key, best.read, boxes)
    return Miss(
        text=text,
        read=" ".join(box.text for box in boxes),
        distance=best.distance,
        severity=severity,
        kind=kind,
        boxes=boxes,
        lines=best.touched,
        quads=tuple(look.lines[i].quad for i in best.touched),
        score=score,
        settled=score >= SURE and again > 1 and best.distance <= near(key) and inside,
    )


def _inside(key: str, read: str, boxes: Sequence[Box]) -> bool:
    """Say whether the wrong letters stand inside lines that were found.

    Letters that lack between two lines may stand in a line of their own that no look has found.
    """
    return len(boxes) == 1 or (bool(boxes) and len(read) >= len(key))
