"""Text in scripts that PP-OCR does not read: its detector finds the lines, Tesseract reads them.

Tesseract reads one line differently when it is a little larger or softer, so each line is read in
several preparations. A string that they show is there. One that none shows is called wrong only
where the preparations agree on what stands there instead; all else is "not sure".
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.checks import glyphs, tesseract
from tasks.checks.tesseract import Guess, Preparation
from tasks.checks.text_match import Box, Piece, find, keys, unmarked
from tasks.checks.text_misses import Miss, named
from tasks.checks.text_thread import Stretch, stretch

#: Scripts (first word of the Unicode names of their letters) that were measured to be read, and
#: the code of Tesseract's data.
SCRIPTS = {
    "CYRILLIC": "rus",
    "GREEK": "ell",
    "HANGUL": "kor",
    "ARABIC": "ara",
    "HEBREW": "heb",
    "DEVANAGARI": "hin",
    "THAI": "tha",
}
VIETNAMESE = "vie"
#: Read beside one of these for Latin letters, and for figures and signs that its data lacks.
BESIDE = "eng"
#: Written from the right: lines of one row follow one another the other way round.
LEFTWARDS = frozenset({"ara", "heb"})
#: In the order in which they are tried.
HYPOTHESES = (
    Preparation(0.2, 40, soft=True),
    Preparation(0.1, 32, soft=True),
    Preparation(0.2, 36),
    Preparation(0.15, 48),
    Preparation(0.1, 48, soft=True),
    Preparation(0.2, 64, binary=True),
)
#: Scripts whose marks above and below the letters are misread too often to accuse a picture.
WEAK_MARKS = frozenset({"tha", "ell"})
#: Long sides at which lines are searched for.
SIDES = (640, 960)
#: So many hypotheses must read the same for it to count as read.
AGREE = 4
#: Mean confidence that the agreeing hypotheses must reach.
LEAST_SCORE = 0.5
#: So many must show a string that others agree to read otherwise.
SHOWN = 2


def code_for(text: str, language: str = "und") -> str | None:
    """Return the code of the data that reads a text, ``None`` when nothing here is known to.

    Args:
        text: The intended string.
        language: BCP 47 tag; only Vietnamese is told by it, its letters being Latin.
    """
    scripts = {unicodedata.name(c, "?").split()[0] for c in keys(text) if c.isalpha()}
    if scripts == {"LATIN"}:
        vietnamese = language.lower().partition("-")[0] == "vi" or _vietnamese(text)
        code = VIETNAMESE if vietnamese else None
    else:
        own = scripts - {"LATIN"}
        code = SCRIPTS.get(own.pop()) if len(own) == 1 else None
    if code is None or code not in tesseract.installed():
        return None
    # Vowel signs of Arabic and Hebrew are in the models and are not read.
    if code in LEFTWARDS and any(unicodedata.category(c) == "Mn" for c in keys(text)):
        return None
    alone = "LATIN" not in scripts or code == VIETNAMESE
    if code in LEFTWARDS and not alone:
        return None  # Which word of the line comes first depends on the language around it.
    if alone and tesseract.engine(code).knows(text):
        return code
    both = code != VIETNAMESE and BESIDE in tesseract.installed()
    return f"{code}+{BESIDE}" if both and _known(text, code) else None


def _known(text: str, code: str) -> bool:
    """Say whether two kinds of data know a text together, each the letters of its own script.

    Latin letters with marks were not measured beside another script.
    """
    own, beside = tesseract.engine(code), tesseract.engine(BESIDE)
    return all(
        char.isascii() and beside.knows(char)
        if unicodedata.name(char, "?").startswith("LATIN")
        else own.knows(char) or (not char.isalpha() and beside.knows(char))
        for char in text
    )


def _vietnamese(text: str) -> bool:
    """Say whether a text has letters that only Vietnamese writes."""
    return any(
        0x1EA0 <= ord(c) <= 0x1EF9 or c in "ơưƠƯ" for c in unicodedata.normalize("NFC", text)
    )


@dataclass(slots=True)
class Pages:
    """One picture as every hypothesis reads it."""

    rgb: Any
    code: str
    #: Boxes of all hypotheses; mirrored for scripts that are written from the right.
    boxes: list[Box] = field(default_factory=list)
    guesses: list[Guess] = field(default_factory=list)
    quads: list[Any] = field(default_factory=list)
    #: Indices of the boxes of each hypothesis.
    spans: list[range] = field(default_factory=list)
    #: Words that are looked for, by :func:`keys`.
    words: frozenset[str] = frozenset()

    @property
    def script(self) -> str:
        """The code of the data for the script, without what is read beside it."""
        return self.code.partition("+")[0]

    def add(self, quads: Sequence[Any], how: Preparation) -> None:
        """Read lines by one more hypothesis."""
        start = len(self.boxes)
        for quad, (guess,) in zip(
            quads, tesseract.guesses(self.code, self.rgb, quads, (how,)), strict=True
        ):
            (left, top), (right, bottom) = quad.min(axis=0), quad.max(axis=0)
            if self.script in LEFTWARDS:
                left, right = -right, -left
            text = modern(guess.text) if self.script == "ell" else guess.text
            if self.script != self.code:
                text = unified(text, self.script, self.words)
            self.boxes.append(Box(text, float(left), float(top), float(right), float(bottom)))
            self.guesses.append(guess)
            self.quads.append(quad)
        self.spans.append(range(start, len(self.boxes)))

    def shown(self, box: Box) -> Box:
        """Return a box as it stands in the picture."""
        if self.script not in LEFTWARDS:
            return box
        return replace(box, left=-box.right, right=-box.left)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of the strings of one picture in one script."""

    missing: tuple[Miss, ...]
    unsure: tuple[str, ...]
    #: Where strings were found.
    places: tuple[Box, ...]
    #: What the first hypothesis read.
    lines: tuple[Box, ...]


def judge(strings: Sequence[str], code: str, rgb: Any) -> Judgement:
    """Look for strings of one script in a picture.

    Args:
        strings: Strings that :func:`code_for` gave this code.
        code: Code of the data.
        rgb: The picture.
    """
    from tasks.checks import ocr

    words = frozenset(keys(word) for text in strings for word in text.split())
    pages = Pages(rgb, code, words=words)
    found: dict[int, tuple[Piece, ...]] = {}
    for side in SIDES:
        quads = ocr.reader().detect(rgb, side)
        for how in HYPOTHESES:
            pages.add(quads, how)
            found = _found(strings, pages)
            # One reading that shows everything is enough; several together need a closer look.
            if len(pages.spans) == 1 and len(found) == len(strings):
                break
        rest = [text for number, text in enumerate(strings) if number not in found]
        if all(wrong(text, pages) is not None for text in rest):
            break  # Another search would find nothing, or the same lines once more.
    missing: list[Miss] = []
    unsure: list[str] = []
    places: list[Box] = []
    for number, text in enumerate(strings):
        miss = wrong(text, pages) if len(pages.spans) > 1 else None
        if number not in found:
            miss = miss or _boxed(text, pages)
            if miss is None:
                unsure.append(text)
            else:
                missing.append(miss)
        elif miss is not None and _shown(text, pages) < SHOWN:
            unsure.append(text)  # One hypothesis shows it, several agree on something else.
        else:
            places += [pages.shown(pages.boxes[piece.box]) for piece in found[number]]
    lines = [pages.shown(pages.boxes[i]) for i in pages.spans[0]]
    return Judgement(tuple(missing), tuple(unsure), tuple(places), tuple(lines))


def _found(strings: Sequence[str], pages: Pages) -> dict[int, tuple[Piece, ...]]:
    """Return where strings stand, the longest first: they may contain a shorter one."""
    used: list[Piece] = []
    found: dict[int, tuple[Piece, ...]] = {}
    for number in sorted(range(len(strings)), key=lambda i: -len(keys(strings[i]))):
        pieces = find(keys(strings[number]), pages.boxes, used)
        if pieces is not None:
            found[number] = pieces
            used += pieces
    return found


def _shown(text: str, pages: Pages) -> int:
    """Return how many hypotheses show a string by themselves."""
    boxes = [[pages.boxes[i] for i in span] for span in pages.spans]
    return sum(find(keys(text), each) is not None for each in boxes)


def wrong(text: str, pages: Pages) -> Miss | None:
    """Return what several hypotheses agree to read instead of a string, ``None`` without any."""
    key = keys(text)
    if _no_room(text, pages):
        return Miss(text, "", len(key), "absent", "missing")
    tries = [stretch(key, pages.boxes, span) for span in pages.spans]
    # A preparation counts once, however often the lines were searched for.
    each = len(HYPOTHESES)
    votes = Counter(
        read for read, _ in {(t.read, n % each) for n, t in enumerate(tries) if t.distance} if read
    )
    if not votes:
        return None
    read, count = votes.most_common(1)[0]
    best = next(one for one in tries if one.read == read)
    if count < AGREE or _score(tries, read, pages) < LEAST_SCORE:
        return None
    if pages.script in WEAK_MARKS and _same_letters(text, key, read):
        return None
    if _same_but_signs(key, read) or _other_script(key, read):
        return None
    boxes = tuple(pages.shown(pages.boxes[i]) for i in best.touched)
    severity, kind = named(key, read, best.distance)
    return Miss(
        text=text,
        read=" ".join(box.text for box in boxes),
        distance=best.distance,
        severity=severity,
        kind=kind,
        boxes=boxes,
        quads=tuple(pages.quads[i] for i in best.touched),
    )


def _boxed(text: str, pages: Pages) -> Miss | None:
    """Return a string that nobody can read, and no wonder: there are missing glyphs."""
    first = [i for i in pages.spans[0] if glyphs.count(pages.rgb, [pages.quads[i]])]
    if not first or glyphs.LOOK_ALIKE & set(keys(text)):
        return None
    boxes = tuple(pages.shown(pages.boxes[i]) for i in first)
    return Miss(text, "", len(keys(text)), "boxes", glyphs.BOXED, boxes)


def _no_room(text: str, pages: Pages) -> bool:
    """Say whether a string cannot stand in the picture: what the detector found is no writing.

    No two hypotheses read the same in any line, and even the longest line is too short for the
    longest word: the narrowest letters of common typefaces are a third as wide as a line is high.
    """
    read = Counter(keys(box.text) for box in pages.boxes)
    if any(count > 1 and sum(map(str.isalnum, key)) > 1 for key, count in read.items()):
        return False
    word = max(len(unmarked(keys(word))) for word in text.split())
    return all((box.right - box.left) / box.height < word / 3 for box in pages.boxes)


def _score(tries: Sequence[Stretch], read: str, pages: Pages) -> float:
    """Return the mean confidence of the hypotheses that read this."""
    scores = [pages.guesses[i].score for one in tries if one.read == read for i in one.touched]
    return sum(scores) / len(scores) if scores else 0.0


#: Thai letters that differ by a notch or a loop, which modern typefaces leave out.
_THAI_FAMILIES = {
    ord(letter): family[0]
    for family in ("กถภ", "ขชซ", "คตดศ", "งวอ", "ฎฏ", "ญณฌ", "ทห", "นม", "บปษ", "ผฝพฟฬ", "รธ", "ลส")
    for letter in family
}


def _same_letters(text: str, key: str, read: str) -> bool:
    """Say whether a reading differs only in what the data of the script is weak in.

    That is marks, Thai letters of one family, and Greek capitals with an accent: it stands before
    the capital and is read as a part of it, so that Tesseract makes Έ of Ή.
    """
    if unmarked(read).translate(_THAI_FAMILIES) == unmarked(key).translate(_THAI_FAMILIES):
        return True
    letters = [c for c in unicodedata.normalize("NFC", text) if keys(c)]
    return len(letters) == len(key) == len(read) and all(
        one == other or (letter.isupper() and unmarked(letter) != letter)
        for letter, one, other in zip(letters, key, read, strict=True)
    )


def _same_but_signs(key: str, read: str) -> bool:
    """Say whether a reading differs only in signs of percent and money.

    They are read as figures and letters too often to accuse a picture: 509 for 50%.
    """
    parts = (".{0,2}" if char == "%" or _money(char) else re.escape(char) for char in key)
    return re.fullmatch("".join(parts), read) is not None


def _other_script(key: str, read: str) -> bool:
    """Say whether letters of one script were read as letters of the other: Μόνο as Movo."""
    (latin, other), (read_latin, read_other) = _letters(key), _letters(read)
    more, less = read_latin - latin, read_other - other
    return more * less < 0


def _letters(key: str) -> tuple[int, int]:
    """Return how many letters are Latin, and how many are not."""
    latin = [unicodedata.name(char, "?").startswith("LATIN") for char in key if char.isalpha()]
    return sum(latin), len(latin) - sum(latin)


def _money(char: str) -> bool:
    return unicodedata.category(char) == "Sc"


#: Letters that are drawn alike in Latin and in another script.
_TWINS = {
    "rus": ("ABEKMHOPCTXaeopcxy", "АВЕКМНОРСТХаеорсху"),
    "ell": ("ABEZHIKMNOPTYXov", "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧον"),
}


def unified(text: str, code: str, words: frozenset[str]) -> str:
    """Return a reading in which each word is of one script, where letters drawn alike allow it.

    Args:
        text: What was read with data of two scripts.
        code: Code of the data of the script that is not Latin.
        words: Words that are looked for, by :func:`keys`: where both scripts can write a word,
            it is read as one of these.
    """
    latin, other = _TWINS.get(code, ("", ""))
    ways = str.maketrans(latin, other), str.maketrans(other, latin)
    return " ".join(
        _unified(word, [word.translate(way) for way in ways], words) for word in text.split()
    )


def _unified(word: str, others: Sequence[str], words: frozenset[str]) -> str:
    known = next((one for one in (word, *others) if keys(one) in words), None)
    if known is not None or not _mixed(word):
        return word if known is None else known
    return next((one for one in others if not _mixed(one)), word)


def _mixed(word: str) -> bool:
    """Say whether a word has Latin letters and others."""
    latin = {unicodedata.name(char, "?").startswith("LATIN") for char in word if char.isalpha()}
    return len(latin) > 1


def modern(text: str) -> str:
    """Return Greek with the accents of today: the model also knows those of old print."""
    marks = unicodedata.normalize("NFD", text).translate(_ANCIENT)
    return unicodedata.normalize("NFC", marks)


#: Breathings and the iota below go; grave and circumflex were made acute in 1982.
_ANCIENT = {0x313: None, 0x314: None, 0x345: None, 0x300: 0x301, 0x342: 0x301}
