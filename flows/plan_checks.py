"""What ``imagegate plan`` and ``imagegate simulate`` know of the checks, and say of them."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.verdict.checkers import Sensitivity


@dataclass(frozen=True, slots=True)
class Known:
    """What a gate on this machine would know of its checks before the first image.

    Without ``checks`` they are taken for perfect, for the reason ``why``.
    """

    checks: tuple[Sensitivity, ...] = ()
    #: Good pictures that any of the checks called bad.
    alarms: Sensitivity | None = None
    #: Drawings that the record counts.
    pictures: int = 0
    why: str = "asked"


PERFECT = Known()
