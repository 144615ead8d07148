"""Is the intended text there, letter by letter?

Read in layers, so that good pictures are cheap and no picture is called bad on one glance: one
reading at a modest size; only what that did not find is looked for at other sizes; only what is
still missing is read again from enlarged lines, where the recogniser must say how probable the
intended string is beside the string it read.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.checks import scripts, second_reader
from tasks.checks.base import EXTRA_BOXES, TEXT_BOXES, Expected, Picture
from tasks.checks.glyphs import BOXED, LOOK_ALIKE, renamed
from tasks.checks.second_look import HOPELESS, probable, stutters
from tasks.checks.text_between import intruder, repeats
from tasks.checks.text_look import (
    CLOSE,
    COARSE,
    MANY_LETTERS,
    SIDES,
    SMALL_PICTURE,
    SURE,
    Look,
)
from tasks.checks.text_match import Box, Piece, doubled, find, keys
from tasks.checks.text_misses import (
    Miss,
    agreed,
    extra,
    named,
    near,
    region,
    short,
    told,
    written,
)
from tasks.checks.text_thread import Stretch, stretch
from tasks.records import Finding

#: How the message of a skip begins where the text was not judged: no reader for the script, or
#: readers that do not agree on what stands there.
NOT_COVERED, NOT_SURE = "not covered:", "not sure:"
NOT_JUDGED = (NOT_COVERED, NOT_SURE)
#: Scripts that the recogniser was measured to read; the rest of its dictionary is not trusted.
READ_SCRIPTS = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "DIGIT")
#: Places where a string may stand that are read again at most.
MOST_PLACES = 4


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


@dataclass(frozen=True, slots=True)
class Text:
    """Every intended string stands in the picture; nothing dropped, doubled or swapped."""

    name: str = "typography.text"
    version: str = "5"
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
    """Return one word for each string, in their order; of equal strings the last ones lack."""
    left = list(misses)
    words: list[str] = []
    for text in reversed(strings):
        miss = next((one for one in left if one.text == text), None)
        if miss is not None:
            left.remove(miss)
        words.append(str(miss.severity) if miss else "not judged" if text in unjudged else "exact")
    return tuple(reversed(words))


def _judge(strings: Sequence[str], rgb: Any) -> tuple[list[Miss], list[Box], list[Box]]:
    """Return the strings that are not there, where the others stand, and the lines read first."""
    look = Look(rgb, "".join(keys(s) for s in strings))
    sides = list(SIDES[len(look.alphabet) > MANY_LETTERS :])
    misses: list[Miss] = []
    places: list[Box] = []
    while sides:
        side = sides.pop(0)
        look.read(side, [keys(miss.text) for miss in misses])
        misses, places = _missing(strings, look)
        if all(miss.settled for miss in misses):
            break
        if len(look.passes) == 1 and look.large([keys(miss.text) for miss in misses]):
            sides = [*COARSE, *sides]
        elif side >= CLOSE and not look.fresh and _nothing_like(misses, rgb):
            break
    doubtful = [miss for miss in misses if _probable(miss, strings, look)]
    places += [box for miss in doubtful for box in miss.boxes]
    left = [
        replace(miss, unread=look.may_hide(miss.text)) for miss in misses if miss not in doubtful
    ]
    return left, places, [look.boxes[i] for i in look.span(0)]


def _nothing_like(misses: Sequence[Miss], rgb: Any) -> bool:
    """Say whether another search would find the same lines once more, and nothing new in them."""
    small = max(rgb.shape[:2]) <= SMALL_PICTURE
    return small and all(miss.settled or miss.severity in HOPELESS for miss in misses)


def _probable(miss: Miss, strings: Sequence[str], look: Look) -> bool:
    """Say whether a string stands in one of the places like it after all, read once more."""
    if not miss.distance:
        # It stands inside a longer string that was asked for too; the same one twice is missing.
        return [keys(text) for text in strings].count(keys(miss.text)) == 1
    return any(
        probable(place, look.lines, look.rgb)
        for place in (miss, *_elsewhere(miss, look))[:MOST_PLACES]
    )


def _missing(strings: Sequence[str], look: Look) -> tuple[list[Miss], list[Box]]:
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
        more = (
            _surer(text, pieces, look)
            or _interrupted(text, pieces, strings, look)
            or _stuttered(text, pieces, look)
        )
        if more is not None:
            misses[number] = more
            continue
        used.extend(pieces)
    return [misses[i] for i in sorted(misses)], [look.boxes[piece.box] for piece in used]


def _surer(text: str, pieces: Sequence[Piece], look: Look) -> Miss | None:
    """Return what a look that is as sure reads in the place where another found a string.

    A line that is cut out badly can be read as what should stand there, with a letter left out.
    """
    key = keys(text)
    score = min(look.lines[piece.box].reading.score for piece in pieces)
    taken = [look.boxes[piece.box] for piece in pieces]
    for number in range(len(look.passes)):
        span = look.span(number)
        if any(piece.box in span for piece in pieces):
            continue
        one = stretch(key, look.boxes, span)
        miss = _as_miss(text, one, look)
        if (
            0 < one.distance <= near(key)
            and miss.score >= max(SURE, score)
            and _inside(key, one.read, miss.boxes)
            and all(any(box.overlap(other) > 0.5 for other in taken) for box in miss.boxes)
        ):
            return miss
    return None


def _interrupted(
    text: str, pieces: Sequence[Piece], strings: Sequence[str], look: Look
) -> Miss | None:
    """Return a string as a miss where a line that nobody asked for is read as a part of it."""
    parts = [key for word in text.split() if (key := keys(word))]
    others = [keys(other) for other in strings]
    others.remove(keys(text))
    span = next(span for n in range(len(look.passes)) if pieces[0].box in (span := look.span(n)))
    sure = [i for i in span if look.lines[i].reading.score >= SURE]
    more = intruder(pieces, look.boxes, sure, parts, others, look.width)
    if more is None:
        return None
    own = sorted({*(piece.box for piece in pieces), more}, key=lambda i: (look.boxes[i].top, i))
    return Miss(
        text=text,
        read=" ".join(look.boxes[i].text for i in own),
        distance=min(len(keys(look.boxes[more].text)), len(keys(text))),
        severity="doubled" if repeats(look.boxes[more], parts) else "garbled",
        kind="not what stands there: another line belongs to it",
        boxes=tuple(look.boxes[i] for i in own),
        lines=tuple(own),
        quads=tuple(look.lines[i].quad for i in own),
        score=min(look.lines[i].reading.score for i in own),
        settled=True,
    )


def _stuttered(text: str, pieces: Sequence[Piece], look: Look) -> Miss | None:
    """Return a string as a miss where a letter of it stands twice on an arc."""
    for piece in pieces:
        line, box = look.lines[piece.box], look.boxes[piece.box]
        if stutters(line, keys(box.text), look.rgb, (piece.start, piece.end)):
            return Miss(
                text=text,
                read=box.text,
                distance=1,
                severity="minor",
                kind="misspelt (a letter twice)",
                boxes=(box,),
                quads=(line.quad,),
                score=line.reading.score,
                settled=True,
            )
    return None


def _nearest(text: str, look: Look) -> Miss:
    """Return the nearest stretch of text in the best look, and what is wrong with it."""
    key = keys(text)
    tries = [stretch(key, look.boxes, look.span(n)) for n in range(len(look.passes))]
    best = min(tries, key=lambda one: one.distance)
    again = sum(other.read == best.read for other in tries)
    miss = _as_miss(text, best, look)
    if any(LOOK_ALIKE & set(one.read) - set(key) for one in tries if one.distance < len(key)):
        miss = replace(miss, severity="boxes", kind=BOXED)
    return replace(
        miss,
        settled=miss.score >= SURE
        and again > 1
        and best.distance <= near(key)
        and _inside(key, best.read, miss.boxes),
    )


def _elsewhere(miss: Miss, look: Look) -> list[Miss]:
    """Return the other places where something like a string stands, the nearest first."""
    key, found = keys(miss.text), [miss.lines]
    places: list[Miss] = []
    for number in range(len(look.passes)):
        span: list[int] = list(look.span(number))
        for _ in range(2):
            one = stretch(key, look.boxes, span)
            if one.distance > near(key):
                break
            if one.distance and one.touched not in found:
                found.append(one.touched)
                places.append(_as_miss(miss.text, one, look))
            span = [i for i in span if i not in one.touched]
    return sorted(places, key=lambda place: place.distance)


def _as_miss(text: str, where: Stretch, look: Look) -> Miss:
    boxes = tuple(look.boxes[i] for i in where.touched)
    severity, kind = named(keys(text), where.read, where.distance)
    return Miss(
        text=text,
        read=" ".join(box.text for box in boxes),
        distance=where.distance,
        severity=severity,
        kind=kind,
        boxes=boxes,
        lines=where.touched,
        quads=tuple(look.lines[i].quad for i in where.touched),
        around=where.around,
        score=min((look.lines[i].reading.score for i in where.touched), default=1.0),
    )


def _inside(key: str, read: str, boxes: Sequence[Box]) -> bool:
    """Say whether the wrong letters stand inside lines that were found.

    Letters that lack between two lines may stand in a line of their own that no look has found.
    """
    return len(boxes) == 1 or (bool(boxes) and len(read) >= len(key))
