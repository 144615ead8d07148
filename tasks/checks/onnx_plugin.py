"""Classifiers that the user supplies as ONNX: checked by digest, run on one thread, never trusted.

Without code: a model with one input, the picture (``checks.onnx`` of a policy). With a few lines of
Python: a model that looks at the prompt as well, whose tokenizer a plug-in package brings
(:func:`onnx_check`).
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tasks.check_rules import KnownFile, OnnxRule, PinnedFile
from tasks.checks.base import Expected, KnownPicture, Picture
from tasks.records import Finding

#: From a prompt to the model's other inputs by name, e.g. ``{"input_ids": …}``, batch size 1.
Tokenizer = Callable[[str], Mapping[str, NDArray[Any]]]

#: ONNX cannot hold more in one file.
MAX_BYTES = 2 * 2**30
_FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
#: Where weights outside of the model's file would be read from: a folder that does not exist.
_NOWHERE = "/nonexistent/imagegate"
#: Prompt of the trial run.
_TRIAL = "a picture"


def read_pinned(pinned: PinnedFile, folder: Path) -> bytes:
    """Return the content of a file after a look at its digest.

    Args:
        pinned: The file and its digest.
        folder: What a relative path starts from.

    Raises:
        ValueError: It is not there, is too large or is not the file that the policy means.
    """
    path = folder / Path(pinned.file).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{str(path)!r} is larger than {MAX_BYTES >> 30} GiB")
    # What is loaded are these bytes, not the file: it may change after its digest was taken.
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != pinned.sha256:
        raise ValueError(
            f"{str(path)!r} is not the file that the policy means: its sha256 is {found}, the "
            f"policy says {pinned.sha256}"
        )
    return data


def tensor_of(rgb: NDArray[np.uint8], rule: OnnxRule) -> NDArray[np.float32]:
    """Return a picture as the model wants it: 1 × 3 × height × width, or 1 × height × width × 3."""
    height, width = rgb.shape[:2]
    if rule.resize == "stretch":
        target, left, top = (rule.width, rule.height), 0, 0
    else:
        pick = max if rule.resize == "crop" else min
        ratio = pick(rule.width / width, rule.height / height)
        target = max(1, round(width * ratio)), max(1, round(height * ratio))
        left, top = (target[0] - rule.width) // 2, (target[1] - rule.height) // 2
    shrinks = target[0] * target[1] < width * height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(rgb, target, interpolation=how), dtype=np.float32)
    if rule.resize == "pad":
        canvas = np.zeros((rule.height, rule.width, 3), dtype=np.float32)
        canvas[-top : target[1] - top, -left : target[0] - left] = small
        small = canvas
    elif rule.resize == "crop":
        small = small[top : top + rule.height, left : left + rule.width]
    if rule.channels == "bgr":
        small = small[:, :, ::-1]
    mean, std = (np.asarray(v, dtype=np.float32) for v in (rule.mean, rule.std))
    values = (small * np.float32(rule.scale) - mean) / std
    if rule.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis])


def score_of(output: NDArray[Any], rule: OnnxRule) -> float:
    """Return the score in a model's output.

    Raises:
        ValueError: The output has too few places, or the score is no finite number.
    """
    values = np.asarray(output, dtype=np.float64).reshape(-1)
    if max(rule.classes) >= values.size:
        raise ValueError(
            f"the output has {values.size} places, the policy names {max(rule.classes)}"
        )
    if rule.activation == "softmax":
        values = np.exp(values - values.max())
        values /= values.sum()
    elif rule.activation == "sigmoid":
        values = 1 / (1 + np.exp(-np.clip(values, -700, 700)))
    score = float(values[list(rule.classes)].sum())
    if not math.isfinite(score):
        raise ValueError(f"the model's score is {score}")
    return score


@dataclass(frozen=True, slots=True)
class OnnxCheck:
    """A model of the user as a check; build it with :func:`onnx_check`."""

    rule: OnnxRule
    session: Any = field(repr=False, compare=False)
    tokenize: Tokenizer | None = field(default=None, repr=False, compare=False)
    tokenizer_version: str = ""
    #: What relative paths of the rule start from.
    folder: Path = field(default=Path(), repr=False, compare=False)

    @property
    def name(self) -> str:
        """``family.name``."""
        return self.rule.name

    @property
    def version(self) -> str:
        """Changes with the model, its settings and its tokenizer."""
        return self.rule.version + (f"-{self.tokenizer_version}" if self.tokenize else "")

    @property
    def higher_is_better(self) -> bool:
        """Direction of the score."""
        return self.rule.higher_is_better

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """Score: what the model says of the picture, and of the prompt if it reads one."""
        rule = self.rule
        if rule.subtasks and expected.subtask not in rule.subtasks:
            return self._skip(f"only for {', '.join(rule.subtasks)}")
        if self.tokenize is not None and not expected.prompt:
            return self._skip("no prompt is known")
        score = self.score(picture.rgb, expected.prompt or "")
        good = score >= rule.limit if rule.higher_is_better else score <= rule.limit
        beyond = "below" if rule.higher_is_better else "above"
        what = rule.meaning or f"the model {Path(rule.file).name!r} says no"
        return Finding(
            check=self.name,
            version=self.version,
            verdict="pass" if good else "fail",
            score=round(score, 6),
            limit=rule.limit,
            higher_is_better=rule.higher_is_better,
            message="" if good else f"{what}: {score:.4g} is {beyond} {rule.limit:.4g}",
        )

    def known(self) -> tuple[KnownPicture, ...]:
        """Return the pictures that the rule names, the bad ones first."""
        rule = self.rule
        subtask = rule.subtasks[0] if rule.subtasks else None

        def told(file: KnownFile, bad: bool) -> KnownPicture:
            asked = f" for {file.prompt[:60]!r}" if file.prompt else ""
            return KnownPicture(
                name=f"{file.file}{asked}",
                bad=bad,
                read=functools.partial(read_pinned, file, self.folder),
                expected=Expected(prompt=file.prompt or None, subtask=subtask),
            )

        return (
            *(told(file, True) for file in rule.known_bad),
            *(told(file, False) for file in rule.known_good),
        )

    def score(self, rgb: NDArray[np.uint8], prompt: str) -> float:
        """Return the score of a picture.

        Raises:
            ValueError: The model or the tokenizer gives what cannot be used.
        """
        feeds = inputs_of(self.session, self.rule, tensor_of(rgb, self.rule))
        if self.tokenize is not None:
            feeds |= self.tokenize(prompt)
        names = None if self.rule.output is None else [self.rule.output]
        return score_of(self.session.run(names, feeds)[0], self.rule)

    def _skip(self, why: str) -> Finding:
        return Finding(
            check=self.name,
            version=self.version,
            verdict="skip",
            higher_is_better=self.higher_is_better,
            message=why,
        )


def inputs_of(session: Any, rule: OnnxRule, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return the picture under the name and in the number format of the model's input.

    Raises:
        ValueError: The model has no such input, or none for a picture.
    """
    inputs = {one.name: one for one in session.get_inputs()}
    name = rule.input or next(iter(inputs), "")
    if name not in inputs:
        raise ValueError(f"the model has no input {name!r}, only {', '.join(map(repr, inputs))}")
    if len(inputs) > 1 and rule.input is None:
        raise ValueError(
            f"the model has the inputs {', '.join(map(repr, inputs))}: say which one is the "
            "picture's (input)"
        )
    if inputs[name].type not in _FLOATS:
        raise ValueError(f"the input {name!r} is {inputs[name].type}, not a float tensor")
    return {name: values.astype(_FLOATS[inputs[name].type], copy=False)}


def onnx_check(
    rule: OnnxRule,
    folder: Path = Path(),
    tokenize: Tokenizer | None = None,
    tokenizer_version: str = "",
) -> OnnxCheck:
    """Load a model and try it once, so that what cannot work is known before the first picture.

    Args:
        rule: The model and how to use it.
        folder: What a relative path starts from.
        tokenize: Turns the prompt into the inputs beside the picture, for a model that has more.
        tokenizer_version: Its version, required with it.

    Raises:
        ValueError: The file is missing or another one, or the model does not fit the rule.
        Exception: What onnxruntime raises for a model that it cannot run.
    """
    if tokenize is not None and not tokenizer_version:
        raise ValueError("a tokenizer needs a tokenizer_version: findings must tell it apart")
    session = _session(read_pinned(rule, folder))
    check = OnnxCheck(rule, session, tokenize, tokenizer_version, folder)
    names = {one.name for one in session.get_inputs()}
    grey = np.full((rule.height, rule.width, 3), 127, dtype=np.uint8)
    given = set(inputs_of(session, rule, tensor_of(grey, rule)))
    given |= set() if tokenize is None else set(tokenize(_TRIAL))
    if missing := sorted(names - given):
        raise ValueError(
            f"the model also wants {', '.join(map(repr, missing))}: a policy can give it the "
            "picture only; give the rest by a plug-in with a tokenizer (tasks/checks/README.md)"
        )
    check.score(grey, _TRIAL)
    return check


def _session(model: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    # One worker a core: more threads make all of them slower.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Weights in further files are not covered by the digest.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NOWHERE
    )
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
