"""Deterministic draws: which fault an answer has, how long it takes. Pure functions."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from tasks.providers.embedded.models import (
    LETTER_FAULTS,
    LOGO_FAULTS,
    TEXT_FAULTS,
    Fault,
    ModelSpec,
)

#: Letters that look alike in a sans-serif: exchanging them changes nothing that a person sees.
_ALIKE = str.maketrans({"I": "l", "1": "l", "|": "l", "O": "0", "o": "0", "Q": "0"})


def _hash(parts: Sequence[object]) -> bytes:
    # Lone surrogates can stand in a JSON prompt.
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def unit(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the parts alone."""
    return int.from_bytes(_hash(parts)[:8]) / 2**64


def generator(*parts: object) -> np.random.Generator:
    """Return a random generator that depends on the parts alone."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(_hash(parts)[:16])))


def prompt_digest(prompt: str) -> str:
    """Return ``sha256:<hex>`` of a prompt, lone surrogates included."""
    return "sha256:" + hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def letters(text: str) -> list[str]:
    """Split text into base characters with their combining marks, joiners and selectors."""
    found: list[str] = []
    for char in text:
        joins = unicodedata.category(char).startswith("M") or char in "\u200c\u200d"
        if found and (joins or found[-1].endswith("\u200d")):
            found[-1] += char
        else:
            found.append(char)
    return found


def look(letter: str) -> str:
    """Return a form that is equal for letters which a person can hardly tell apart."""
    return letter.translate(_ALIKE).casefold()


def swaps(text: str) -> list[int]:
    """Return the positions in ``letters(text)`` whose exchange with the next one shows."""
    parts = letters(text)
    return [
        i
        for i in range(len(parts) - 1)
        if parts[i][0].isalnum()
        and parts[i + 1][0].isalnum()
        and look(parts[i]) != look(parts[i + 1])
    ]


def drops(text: str) -> list[int]:
    """Return the positions in ``letters(text)`` that can be left out so that it shows."""
    parts = letters(text)
    if sum(part[0].isalnum() for part in parts) < 2:
        return []
    return [
        i
        for i, part in enumerate(parts)
        if part[0].isalnum()
        and all(look(part) != look(parts[j]) for j in (i - 1, i + 1) if 0 <= j < len(parts))
    ]


def _pick(point: float, weights: Mapping[Fault, float]) -> Fault:
    total, reached = sum(weights.values()), 0.0
    for fault, weight in weights.items():
        reached += weight / total
        if point < reached:
            return fault
    return list(weights)[-1]


def draw_transient(spec: ModelSpec, prompt: str, seed: int, retry: int) -> Fault | None:
    """Return the transient failure of one attempt, or ``None``.

    Args:
        spec: The model.
        prompt: The prompt.
        seed: The seed of the request.
        retry: 0 for the first attempt; another count is another draw.
    """
    if not spec.transients:
        return None
    point = unit(spec.version, prompt, seed, retry, "transient")
    rate = sum(spec.transients.values())
    return _pick(point / rate, spec.transients) if point < rate else None


def draw_defect(
    spec: ModelSpec, prompt: str, seed: int, text: Sequence[str], *, brand: bool
) -> Fault | None:
    """Return the defect that every attempt for this prompt and seed has, or ``None``.

    Kinds that cannot show on the request (letters without text, a logo without a brand) are left
    out of the choice, not out of the rate.
    """
    if unit(spec.version, prompt, seed, "defect") >= spec.defect_rate:
        return None
    unfit: set[Fault] = set()
    if not any(swaps(line) for line in text) or not any(drops(line) for line in text):
        unfit |= LETTER_FAULTS
    if not any(part[0].isalnum() for line in text for part in letters(line)):
        unfit |= TEXT_FAULTS
    if not brand:
        unfit |= LOGO_FAULTS
    weights = {fault: weight for fault, weight in spec.defects.items() if fault not in unfit}
    return _pick(unit(spec.version, prompt, seed, "kind"), weights) if weights else None


def draw_latency(spec: ModelSpec, prompt: str, seed: int, retry: int) -> float:
    """Return the simulated seconds on the accelerator."""
    low, high = spec.latency_s
    return low + (high - low) * unit(spec.version, prompt, seed, retry, "latency")
