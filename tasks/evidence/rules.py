"""What each check asks of a picture, in words: a rule is read by people who did not write it."""

from __future__ import annotations

#: What holds of a picture that passes.
_WORDS = {
    "colour.cast": "No colour cast",
    "colour.channels": "Colour channels in their order",
    "colour.contrast": "Enough contrast",
    "colour.exposure": "Neither too dark nor too bright",
    "colour.palette": "The brand's colours are there",
    "colour.profile": "The file says what its colours mean",
    "composition.blank": "Something is drawn",
    "composition.blank_part": "No part of the picture is empty",
    "composition.logo": "Logo once, in its place, unaltered",
    "composition.margins": "Margins kept free",
    "composition.subject": "Subject whole and inside the safe area",
    "consistency.campaign": "One look across the campaign",
    "consistency.near_duplicate": "Another prompt, another picture",
    "consistency.repeat": "The same prompt, the same look",
    "consistency.seed": "Another seed, another picture",
    "decode.file": "The file is whole and can be read",
    "decode.mime": "The file is what it is declared to be",
    "decode.still": "One still picture",
    "edit.kept": "The subject of the upload is kept",
    "edit.light": "As light as the upload, or as asked",
    "edit.noise": "No noisier than the upload",
    "edit.outside": "Nothing changed that was not to change",
    "geometry.aspect": "Proportions as asked",
    "geometry.borders": "No bars at the edges",
    "geometry.orientation": "Upright, as the upload was",
    "geometry.size": "Size as asked",
    "safety.provenance": "Signed by a trusted source",
    "safety.refusal": "A picture, not a refusal",
    "typography.extra": "No text that nobody asked for",
    "typography.text": "Text as asked, letter by letter",
    "upscale.detail": "Sharper than plain enlarging",
    "upscale.faithful": "The same picture as the small one",
    "upscale.halos": "No halos along edges",
    "upscale.text": "Text still as in the small picture",
}
_DELIVERY = "A picture was delivered"


def rule_words(name: str) -> str:
    """Return what a check or a reason asks for; of an unknown one, its name as plain words."""
    if name.startswith("delivery."):
        return _DELIVERY
    if name in _WORDS:
        return _WORDS[name]
    family, _, rest = name.partition(".")
    return f"{family}: {rest}".replace("_", " ") if rest else name.replace("_", " ")
