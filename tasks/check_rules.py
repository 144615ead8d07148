"""What a policy asks of the checks beyond those that always run; part of :mod:`tasks.policy`.

Everything here can change a verdict, so all of it is in the policy's digest: files by their
sha256, plug-ins by name and, where wished, by exact version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from tasks.records import Subtask, digest_json

#: ``family.name`` of a check.
CHECK_NAME = r"^[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*$"
#: Name of an entry point.
_ENTRY_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"

#: Fewer pictures are no group: nobody could say which of them is the odd one.
LEAST_GROUP = 3

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Triple = tuple[float, float, float]


class _Strict(BaseModel):
    """Frozen, unknown fields refused; as ``tasks.policy.Strict``, which is built on this module."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PinnedFile(_Strict):
    """A file that is used only while it is the one that the policy means."""

    #: Absolute, or relative to the folder of the plug-ins.
    file: str = Field(min_length=1, max_length=1000)
    #: Hex digest of the whole file (``sha256sum FILE``).
    sha256: Sha256


class KnownFile(PinnedFile):
    """A picture of which it is known what a check must say."""

    #: What was asked for, where the check reads it.
    prompt: str = Field(default="", max_length=4000)


class PluginRule(_Strict):
    """A plug-in of the entry-point group ``imagegate.checks`` that this policy runs."""

    #: Name of its entry point.
    name: str = Field(pattern=_ENTRY_NAME)
    #: Exact version of the installed package; any when left out.
    version: str | None = Field(default=None, min_length=1, max_length=80)
    #: Whether pictures are unmeasured, so that nothing is promoted, while it is missing or broken.
    required: bool = True


class OnnxRule(PinnedFile):
    """A classifier of one picture, supplied as ONNX: an NSFW score, an aesthetic score.

    The picture is scaled to ``width`` × ``height``, each value becomes
    ``(value · scale − mean) / std``, and the score is the sum of the ``classes`` of the output
    after its ``activation``.
    """

    #: ``family.name`` of the check, e.g. ``safety.nsfw``.
    name: str = Field(pattern=CHECK_NAME, max_length=80)
    required: bool = True
    #: Subtasks whose pictures are judged; empty: all.
    subtasks: tuple[Subtask, ...] = ()

    width: int = Field(ge=1, le=4096)
    height: int = Field(ge=1, le=4096)
    #: ``stretch`` to the size, ``crop`` the middle, or ``pad`` with black.
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    layout: Literal["nchw", "nhwc"] = "nchw"
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(default=1 / 255, gt=0)
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    #: Name of the picture's input; not needed when the model has one input.
    input: str | None = None

    #: Name of the output; the first one when left out.
    output: str | None = None
    activation: Literal["none", "softmax", "sigmoid"] = "none"
    #: Places in the flattened output whose values are added up.
    classes: tuple[int, ...] = (0,)
    higher_is_better: bool
    #: The worst score that passes.
    limit: float
    #: What a picture that fails is said to be, e.g. ``looks unsafe for work``.
    meaning: str = Field(default="", max_length=120)
    #: Pictures that the model must call bad, and such that it must let pass: shown to it in every
    #: run. Without a bad one nothing is known of what the model sees.
    known_bad: tuple[KnownFile, ...] = Field(default=(), max_length=500)
    known_good: tuple[KnownFile, ...] = Field(default=(), max_length=500)

    @model_serializer(mode="wrap")
    def _without_known(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out pictures that are not there: digests stay what they were."""
        shown: dict[str, Any] = handler(self)
        for name in ("known_bad", "known_good"):
            if not getattr(self, name):
                shown.pop(name, None)
        return shown

    @model_validator(mode="after")
    def _sound(self) -> OnnxRule:
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be above 0, got {self.std}")
        if not self.classes or min(self.classes) < 0 or len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must be different places from 0 on, got {self.classes}")
        bad, good = (
            {(file.sha256, file.prompt): file.file for file in files}
            for files in (self.known_bad, self.known_good)
        )
        if both := sorted(bad[key] for key in bad.keys() & good.keys()):
            raise ValueError(f"{both[0]!r} is among known_bad and known_good: it can be only one")
        if len(bad) < len(self.known_bad) or len(good) < len(self.known_good):
            raise ValueError("known_bad or known_good: a picture stands there twice")
        return self

    @property
    def version(self) -> str:
        """Changes with everything that can change a judgement, the model's weights included."""
        told = {"file", "required", "meaning", "known_bad", "known_good"}
        shown = self.model_dump(mode="json", exclude=told)
        return "onnx-" + digest_json(shown)[7:19]


#: What a finding that is not of one picture's own does. ``warn``: it is told, and decides
#: nothing. ``hold``: nothing is promoted while there is one. ``failure``: each picture that it
#: names counts as a failed image, in the failure rate and nowhere else.
CountsAs = Literal["warn", "hold", "failure"]


#: Fields of the rules that say what a finding counts as; the check is ``consistency.<kind>``.
GROUP_KINDS: tuple[Literal["near_duplicate", "campaign", "repeat", "seed"], ...] = (
    "near_duplicate",
    "campaign",
    "repeat",
    "seed",
)


class ConsistencyRules(_Strict):
    """What is asked of pictures that are judged together, and what it counts as."""

    #: Almost the same picture for different prompts; never within one campaign.
    near_duplicate: CountsAs = "failure"
    #: A picture without the colours or the layout of its campaign.
    campaign: CountsAs = "warn"
    #: A repeat of a prompt whose colours stray from the other repeats.
    repeat: CountsAs = "warn"
    #: Repeats under different seeds that are one and the same picture.
    seed: CountsAs = "warn"
    #: Farthest that the colours of a campaign may be apart, in CIEDE2000.
    campaign_palette: float = Field(default=16.0, gt=0, le=100)
    #: Least likeness of its layouts, a correlation; ``None`` where only colours must be shared.
    campaign_layout: float | None = Field(default=0.3, ge=-1, le=1)
    #: Farthest that the colours of repeats may be apart, in CIEDE2000; ``None`` for a quarter more
    #: than the baseline's own repeats keep to, but no less than ``repeat_floor``. The room that
    #: they cover is held to the baseline's in any case.
    repeat_palette: float | None = Field(default=None, gt=0, le=100)
    repeat_floor: float = Field(default=10.0, gt=0, le=100)

    @property
    def told_only(self) -> frozenset[str]:
        """The checks whose failures do not make a picture a failed one."""
        return frozenset(
            f"consistency.{kind}" for kind in GROUP_KINDS if getattr(self, kind) != "failure"
        )


class CheckRules(_Strict):
    """Provenance, plug-ins, and what counts; the default asks for nothing beside the checks."""

    #: ``required``: every picture carries a C2PA manifest that is valid and by a trusted signer.
    #: ``if_present``: a manifest that is there is valid and by a trusted signer.
    provenance: Literal["off", "if_present", "required"] = "off"
    #: PEM files of the certificate authorities whose signers are trusted.
    trusted_signers: tuple[PinnedFile, ...] = ()
    #: Organisations that the signing certificate must name one of; empty: any that a trusted
    #: authority vouches for.
    signed_by: tuple[str, ...] = ()
    plugins: tuple[PluginRule, ...] = ()
    onnx: tuple[OnnxRule, ...] = ()
    consistency: ConsistencyRules = ConsistencyRules()
    #: Text in a picture that nobody asked for, where text was asked for and read. ``report``: it
    #: is shown beside the picture. ``failure``: such a picture fails.
    extra_text: Literal["report", "failure"] = "report"
    #: Good pictures that the checks call bad. ``confirm``: a flag that a second reader contradicts
    #: does not count, and what is left counts as it stands: a build is rather rolled back once too
    #: often. ``allow``: every limit that rolls back is raised by the bound of all false alarms on
    #: record, so that they cannot be the reason; bad builds are then proven bad far later.
    false_alarms: Literal["confirm", "allow"] = "confirm"
    #: Defects that the checks miss: PROMOTE is proven below ``promote_below`` times a bound of
    #: their sensitivity. ``mixed``: of all planted defects together, as if a build's came in that
    #: mixture. ``worst``: of the check that sees least, whatever a build's defects are. A check
    #: whose own sensitivity is not proven to reach one half holds the gate either way.
    sensitivity: Literal["mixed", "worst"] = "mixed"
    #: Checks of the policy's own of which it is not known what they see: no defect was planted for
    #: them, or too few to prove anything. ``warn``: they are named. ``hold``: nothing is promoted.
    unmeasured: Literal["warn", "hold"] = "warn"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what came later and asks for nothing: digests stay what they were."""
        shown: dict[str, Any] = handler(self)
        if self.consistency == ConsistencyRules():
            shown.pop("consistency", None)
        if self.extra_text == "report":
            shown.pop("extra_text", None)
        if self.false_alarms == "confirm":
            shown.pop("false_alarms", None)
        if self.sensitivity == "mixed":
            shown.pop("sensitivity", None)
        if self.unmeasured == "warn":
            shown.pop("unmeasured", None)
        return shown

    @model_validator(mode="after")
    def _answerable(self) -> CheckRules:
        if self.provenance != "off" and not self.trusted_signers:
            raise ValueError(
                f"provenance {self.provenance!r} needs trusted_signers: without one no manifest "
                "can be trusted"
            )
        if self.provenance == "off" and (self.trusted_signers or self.signed_by):
            raise ValueError(
                "trusted_signers and signed_by mean nothing while provenance is 'off'; set it to "
                "'required' or 'if_present'"
            )
        if any(not name.strip() for name in self.signed_by):
            raise ValueError("signed_by: an organisation needs a name; remove the empty entry")
        for listed in ("plugins", "onnx"):
            names = [rule.name for rule in getattr(self, listed)]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{listed}: {', '.join(map(repr, twice))} stands here twice")
        return self


@dataclass(frozen=True, slots=True)
class Extras:
    """What a worker process needs to load the checks of a policy; crosses process borders."""

    rules: CheckRules = field(default_factory=CheckRules)
    #: What relative paths in the rules start from.
    folder: Path = Path()
