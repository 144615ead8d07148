"""Does a prompt ask for coloured light? Then a cast is what was wanted."""

from __future__ import annotations

import re
import unicodedata

#: Stems of words for coloured light and toned pictures, by language; ``_`` is a space. Generous on
#: purpose: a word too many leaves a picture unjudged, a word too few calls a good one bad.
_LIGHT = {
    "en": "warm cool(?:s|\\b) cold golden sunset sunrise sundown dawn\\b dusk\\b twilight evening"
    " morning night moonl candlel firel neon sepia vintage\\b retro\\b nostalg duotone two-colou?r"
    " monochrom tint tones?\\b toned toning hued lomo cyanotype infrared underwater autumn\\b"
    " black[_-]and[_-]white gr[ae]yscale colou?r_grad moody vaporwave cyberpunk cinemat",
    "de": "kalt(?:e|\\b) sonnenunter sonnenauf abend(?:li|so|st|r)? morgen(?:li|so|st|r) nacht"
    " kerzen getont einfarb schwarz-?weiss herbst stimmung",
    "fr": "chaud froid dore[es]*\\b coucher_d lever_d soir matin\\b nuit bougie teinte"
    " noir_et_blanc",
    "es": "calid[ao] fri[ao]\\b dorad atardecer amanecer noche velas?\\b tonos?"
    " blanco_y_negro otono",
    "it": "cald[oaie]\\b fredd dorat tramonto alba\\b sera\\b notte candel tonalit bianco_e_nero",
    "pt": "quente dourad por_do_sol noite preto_e_branco",
    "nl": "koude?\\b gouden zonsonder zonsop avond nacht kaars zwart-?wit",
    "pl": "ciepl zimn zlot zachod wschod wieczor noc\\b nocn swiec jesien",
    "ru": "тепл холодн золот закат рассвет вечер утр ночн сепи тон\\b тона",
}
#: Names of colours: in an edit the new wall, or the new light, may have them.
_NAMES = (
    "gold amber crimson scarlet red\\b orange yellow green blue navy cyan teal turquoise purple"
    " violet magenta pink brown beige cream\\b ochre gr[ae]y rot(?:e|er|es|en)?\\b gelb grun blau"
    " lila\\b rosa\\b braun rouge jaune vert(?:e|s|es)?\\b bleu rose\\b brun rojo amarill verde"
    " azul morado marron rosso giall blu\\b viola\\b vermelh amarel roxo rood geel groen blauw"
    " paars czerw zolt zielon niebies красн желт зелен син фиолет розов recolou?r"
    " colou?ri[sz]e umfarb wood marble"
)
_HAN_LIGHT = "[夕暮昏晚夜晨暖冷秋霓]|色调|色調|ネオン|セピア|モノクロ|黑白"
_HAN_NAMES = "[色红紅赤黄黃绿綠緑蓝藍青紫橙粉灰金木]"
#: What is to be written is no wish for a colour.
_QUOTED = re.compile('"[^"]*"|“[^”]*”|„[^“]*“|«[^»]*»|「[^」]*」')
#: Wishes that the colours be right, and that something be kept as it is.
_NEUTRAL = re.compile(
    r"(?:neutral|natural|correct|true|keep(?:ing)?|same|original)\s(?:the\s|its\s|all\s)*"
    r"(?:white balance|colou?rs?|tones?)",
    re.IGNORECASE,
)


def _any(*lists: str) -> str:
    words = " ".join(lists).split()
    return r"\b(?:" + "|".join(word.replace("_", " ") for word in words) + ")"


_ASKS_LIGHT = re.compile(f"{_any(*_LIGHT.values())}|{_HAN_LIGHT}", re.IGNORECASE)
_ASKS_COLOUR = re.compile(
    f"{_any(*_LIGHT.values(), _NAMES)}|{_HAN_LIGHT}|{_HAN_NAMES}", re.IGNORECASE
)


def _plain(prompt: str) -> str:
    """Return a prompt without what is to be written, without accents, in small letters."""
    text = _NEUTRAL.sub(" ", _QUOTED.sub(" ", prompt[:4_000].replace("ß", "ss")))
    parts = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in parts if not "̀" <= c <= "ͯ"))


def asks_for_light(prompt: str | None) -> bool:
    """Say whether a prompt for a new picture asks for coloured light or a toned picture.

    English, German, French, Spanish, Italian, Portuguese, Dutch, Polish, Russian, Chinese and
    Japanese are known. Quoted text does not count, nor do wishes that colours be kept.
    """
    return bool(prompt) and _ASKS_LIGHT.search(_plain(str(prompt))) is not None


def asks_for_colour(prompt: str | None) -> bool:
    """Say whether a prompt for an edit may mean that the picture gets another colour.

    As :func:`asks_for_light`, and the names of colours and of coloured grounds too.
    """
    return bool(prompt) and _ASKS_COLOUR.search(_plain(str(prompt))) is not None
