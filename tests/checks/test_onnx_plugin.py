from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from tasks.check_rules import CheckRules, Extras, OnnxRule
from tasks.checks.base import Expected, Picture
from tasks.checks.onnx_plugin import MAX_BYTES, onnx_check, read_pinned, score_of, tensor_of
from tasks.checks.plugins import Absent, Guarded, load, problems
from tasks.records import Finding
from tests.checks.drawing import as_picture, scene
from tests.fakes import onnx_model

SIZE = 8


def rule(folder: Path, model: bytes, name: str = "safety.red", **settings: Any) -> OnnxRule:
    (folder / "model.onnx").write_bytes(model)
    given = {
        "name": name, "file": "model.onnx", "sha256": hashlib.sha256(model).hexdigest(),
        "width": SIZE, "height": SIZE, "higher_is_better": False, "limit": 0.5, **settings,
    }  # fmt: skip
    return OnnxRule.model_validate(given)


def extras(folder: Path, *rules: OnnxRule) -> Extras:
    return Extras(CheckRules(onnx=rules), folder)


def flat(*colour: int) -> Picture:
    return as_picture(Image.new("RGB", (300, 200), colour))


def judged(folder: Path, made: OnnxRule, picture: Picture, **of: Any) -> Finding:
    (check,) = load(extras(folder, made))
    assert isinstance(check, Guarded), getattr(check, "why", "")
    finding = check.run(picture, Expected(**of))
    assert (
        (finding.check, finding.version) == (made.name, made.version) == (check.name, check.version)
    )
    return finding


def test_a_model_judges_the_colours_of_a_picture(tmp_path: Path) -> None:
    made = rule(tmp_path, onnx_model.mean_colour(), meaning="too red")
    assert problems(extras(tmp_path, made)) == ()
    red, blue = judged(tmp_path, made, flat(204, 0, 0)), judged(tmp_path, made, flat(0, 0, 204))
    assert (red.verdict, red.score, red.limit) == ("fail", 0.8, 0.5)
    assert red.message == "too red: 0.8 is above 0.5"
    assert (blue.verdict, blue.score, blue.message) == ("pass", 0.0, "")
    other = rule(tmp_path, onnx_model.mean_colour(), higher_is_better=True)
    found = judged(tmp_path, other, flat(0, 0, 204))
    assert (found.verdict, found.higher_is_better) == ("fail", True)
    assert found.message == "the model 'model.onnx' says no: 0 is below 0.5"


@pytest.mark.parametrize(
    ("settings", "score"),
    [
        ({}, 0.8),
        ({"scale": 1.0}, 204),
        ({"channels": "bgr"}, 0.2),
        ({"classes": [2, 0]}, 1.0),
        ({"mean": [0.5, 0, 0], "std": [0.1, 1, 1]}, 3.0),
        ({"activation": "sigmoid"}, 1 / (1 + np.exp(-0.8))),
        ({"activation": "softmax"}, np.exp(0.8) / np.exp([0.8, 0.4, 0.2]).sum()),
        ({"output": "scores", "input": "image"}, 0.8),
    ],
)
def test_the_settings_mean_what_they_say(
    tmp_path: Path, settings: dict[str, Any], score: float
) -> None:
    made = rule(tmp_path, onnx_model.mean_colour(), **settings)
    assert judged(tmp_path, made, flat(204, 102, 51)).score == pytest.approx(score, abs=1e-5)


def test_only_the_subtasks_that_are_named_are_judged(tmp_path: Path) -> None:
    made = rule(tmp_path, onnx_model.mean_colour(), subtasks=["creative", "edit"])
    assert judged(tmp_path, made, flat(204, 0, 0), subtask="edit").verdict == "fail"
    found = judged(tmp_path, made, flat(204, 0, 0), subtask="typography")
    assert (found.verdict, found.message) == ("skip", "only for creative, edit")
    assert judged(tmp_path, made, flat(204, 0, 0)).verdict == "skip"


def corners() -> NDArray[np.uint8]:
    """200 × 100: red at the left, green in the middle, blue at the right."""
    rgb = np.zeros((100, 200, 3), dtype=np.uint8)
    rgb[:, :50, 0] = rgb[:, 50:150, 1] = rgb[:, 150:, 2] = 255
    return rgb


@pytest.mark.parametrize(
    ("resize", "shares"), [("stretch", (0.25, 0.5, 0.25)), ("crop", (0, 1, 0)),
                           ("pad", (0.125, 0.25, 0.125))],
)  # fmt: skip
@pytest.mark.parametrize("turned", [False, True])
def test_the_picture_is_brought_to_size(
    tmp_path: Path, resize: str, shares: tuple[float, ...], turned: bool
) -> None:
    made = rule(tmp_path, b"", resize=resize, width=16, height=16)
    rgb = corners().transpose(1, 0, 2) if turned else corners()
    found = tensor_of(np.ascontiguousarray(rgb), made)
    assert found.shape == (1, 3, 16, 16)
    assert found.dtype == np.float32
    assert found.mean(axis=(0, 2, 3)) == pytest.approx(shares, abs=1e-6)
    by_pixel = tensor_of(rgb, made.model_copy(update={"layout": "nhwc"}))
    assert np.array_equal(by_pixel[0], found[0].transpose(1, 2, 0))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40),
    st.sampled_from(["stretch", "crop", "pad"]),
)  # fmt: skip
def test_every_size_comes_out_as_asked(
    width: int, height: int, to_width: int, to_height: int, resize: str
) -> None:
    made = OnnxRule.model_validate(
        {
            "name": "a.b", "file": "x", "sha256": "0" * 64, "width": to_width, "height": to_height,
            "higher_is_better": True, "limit": 0, "resize": resize,
        }
    )  # fmt: skip
    found = tensor_of(np.full((height, width, 3), 255, dtype=np.uint8), made)
    assert found.shape == (1, 3, to_height, to_width)
    assert found.max() == pytest.approx(1)
    assert resize == "pad" or found.min() == pytest.approx(1)


def test_resizing_agrees_with_opencv(tmp_path: Path) -> None:
    rgb = np.asarray(scene(300, 200))
    want = cv2.resize(rgb, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    found = tensor_of(rgb, rule(tmp_path, b""))
    assert np.allclose(found[0].transpose(1, 2, 0), want, atol=1e-6)


# What fails closed.


def absent(folder: Path, made: OnnxRule) -> str:
    (check,) = load(extras(folder, made))
    assert isinstance(check, Absent)
    assert (check.name, check.required) == (made.name, made.required)
    if made.required:
        with pytest.raises(Exception, match=r"model|sha256|output|input|file"):
            check.run(flat(0, 0, 0), Expected())
    else:
        finding = check.run(flat(0, 0, 0), Expected())
        assert finding.verdict == "skip"
        assert check.why[:200] in finding.message
    return check.why


@pytest.mark.parametrize("required", [True, False])
def test_another_file_than_the_policy_means_is_not_loaded(tmp_path: Path, required: bool) -> None:
    made = rule(tmp_path, onnx_model.mean_colour(), required=required)
    (tmp_path / "model.onnx").write_bytes(onnx_model.mean_colour() + b"\0")
    assert "is not the file that the policy means" in absent(tmp_path, made)
    assert len(problems(extras(tmp_path, made))) == required
    (tmp_path / "model.onnx").unlink()
    assert "there is no file" in absent(tmp_path, made)
    (tmp_path / "model.onnx").mkdir()
    assert "there is no file" in absent(tmp_path, made)


def test_a_file_too_large_for_onnx_is_not_read(tmp_path: Path) -> None:
    made = rule(tmp_path, b"")
    with (tmp_path / "model.onnx").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # Sparse: it takes no space.
    with pytest.raises(ValueError, match="larger than 2 GiB"):
        read_pinned(made, tmp_path)


@pytest.mark.parametrize(
    ("model", "settings", "why"),
    [
        (b"hello", {}, "protobuf"),
        (b"", {}, "INVALID|No graph|Invalid"),
        (onnx_model.mean_colour(), {"width": 9}, "8"),
        (onnx_model.mean_colour(), {"layout": "nhwc"}, "dimensions|Expected|expected"),
        (onnx_model.mean_colour(), {"classes": [3]}, "the output has 3 places"),
        (onnx_model.mean_colour(), {"output": "other"}, "other"),
        (onnx_model.mean_colour(), {"input": "other"}, "no input 'other', only 'image'"),
        (onnx_model.red_times_tokens(), {}, "say which one is the picture's"),
        (onnx_model.red_times_tokens(), {"input": "image"}, "also wants 'tokens'"),
        (onnx_model.red_times_tokens(), {"input": "tokens"}, "not a float tensor"),
    ],
)
def test_a_model_that_does_not_fit_is_known_when_it_is_loaded(
    tmp_path: Path, model: bytes, settings: dict[str, Any], why: str
) -> None:
    assert re.search(why, absent(tmp_path, rule(tmp_path, model, required=False, **settings)))


@pytest.mark.parametrize("inside", [True, False])
def test_weights_in_another_file_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool
) -> None:
    weights = tmp_path / "weights.bin"
    np.ones(3, dtype=np.float32).tofile(weights)
    monkeypatch.chdir(tmp_path)
    model = onnx_model.weights_elsewhere("weights.bin" if inside else str(weights))
    assert "xternal" in absent(tmp_path, rule(tmp_path, model, required=False))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_no_score(tmp_path: Path, value: float) -> None:
    made = rule(tmp_path, b"")
    with pytest.raises(ValueError, match="score is"):
        score_of(np.array([[value, 0.0]]), made)


def test_large_logits_do_not_overflow(tmp_path: Path) -> None:
    logits = np.array([1e5, -1e5, 0.0])
    soft = rule(tmp_path, b"", activation="softmax")
    hard = rule(tmp_path, b"", activation="sigmoid", classes=[0, 1])
    assert score_of(logits, soft) == 1
    assert score_of(logits, hard) == 1


def test_the_version_changes_with_all_that_can_change_a_judgement(tmp_path: Path) -> None:
    made = rule(tmp_path, b"")
    same = [{"file": "elsewhere.onnx"}, {"required": False}, {"meaning": "x"}]
    other = [{"sha256": "1" * 64}, {"limit": 0.6}, {"classes": (1,)}, {"resize": "pad"}]
    versions = [made.model_copy(update=change).version for change in other]
    assert {made.model_copy(update=change).version for change in same} == {made.version}
    assert len({made.version, *versions}) == 5


# Models that read the prompt.


def lengths(prompt: str) -> dict[str, NDArray[np.int64]]:
    return {"tokens": np.array([[len(word) for word in prompt.split()]], dtype=np.int64)}


def test_a_model_with_a_tokenizer_reads_the_prompt(tmp_path: Path) -> None:
    made = rule(
        tmp_path, onnx_model.red_times_tokens(), "acme.adherence", input="image",
        higher_is_better=True, limit=2.0,
    )  # fmt: skip
    check = onnx_check(made, tmp_path, lengths, "1")
    assert check.version == made.version + "-1"
    red = flat(255, 0, 0)
    found = check.run(red, Expected(prompt="ab abcd"))
    assert (found.verdict, found.score) == ("pass", 3.0)
    found = check.run(red, Expected(prompt="a b"))
    assert (found.verdict, found.score) == ("fail", 1.0)
    assert check.run(red, Expected()).verdict == "skip"


def test_a_tokenizer_needs_a_version_and_the_right_inputs(tmp_path: Path) -> None:
    made = rule(tmp_path, onnx_model.red_times_tokens(), input="image")
    with pytest.raises(ValueError, match="tokenizer_version"):
        onnx_check(made, tmp_path, lengths)
    with pytest.raises(ValueError, match="also wants 'tokens'"):
        onnx_check(made, tmp_path, lambda _: {}, "1")


def test_the_model_runs_on_one_thread(tmp_path: Path) -> None:
    check = onnx_check(rule(tmp_path, onnx_model.mean_colour()), tmp_path)
    options = check.session.get_session_options()
    assert options.intra_op_num_threads == options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
