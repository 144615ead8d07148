"""What a policy's own checks see: what they plant and know, in this process and in workers."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from tasks.check_rules import CheckRules, Extras, KnownFile, OnnxRule, PinnedFile, PluginRule
from tasks.checks.base import Expected, KnownPicture, Knows, Picture, Pixels, Plants
from tasks.checks.counts import OwnHealth, together
from tasks.checks.onnx_plugin import onnx_check
from tasks.checks.planted_own import KNOWN, PLANTED, idle, measure_own
from tasks.checks.plugins import Absent, Guarded, PluginError, _conforms, load, problems
from tasks.checks.pool import CheckPool
from tasks.policy import Policy
from tasks.records import Case, CheckVerdict, Finding
from tests.checks.drawing import encoded
from tests.conftest import Command
from tests.fakes import onnx_model

MODEL = onnx_model.mean_colour()


def colour(*rgb: int) -> bytes:
    return encoded(Image.new("RGB", (80, 60), rgb))


def known(folder: Path, name: str, data: bytes, **more: Any) -> KnownFile:
    (folder / name).write_bytes(data)
    return KnownFile(file=name, sha256=hashlib.sha256(data).hexdigest(), **more)


def rule(folder: Path, **more: Any) -> OnnxRule:
    """A model that calls red pictures unsafe."""
    (folder / "red.onnx").write_bytes(MODEL)
    settings = {
        "name": "safety.nsfw",
        "file": "red.onnx",
        "sha256": hashlib.sha256(MODEL).hexdigest(),
        "width": 8,
        "height": 8,
        "higher_is_better": False,
        "limit": 0.5,
        **more,
    }
    return OnnxRule.model_validate(settings)


def reds(folder: Path, count: int) -> tuple[KnownFile, ...]:
    return tuple(known(folder, f"bad-{n}.png", colour(255 - n, 0, n)) for n in range(count))


@dataclass(frozen=True)
class Bright:
    """Accuses pictures as dark as night; what it plants is up to the test."""

    plants: Callable[[Picture, Expected, np.random.Generator], Any] | None = None
    limit: float = 30.0
    name: str = "acme.light"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Finding:
        if expected.prompt == "break":
            raise RuntimeError("broken")
        score = float(picture.rgb.mean())
        dark = score < self.limit or expected.prompt == "another"
        verdict: CheckVerdict = "fail" if dark else "pass"
        return Finding(check=self.name, version=self.version, verdict=verdict, score=score)

    def plant(
        self, picture: Picture, expected: Expected, rng: np.random.Generator
    ) -> Pixels | bytes | Expected | None:
        assert self.plants is not None
        made: Pixels | bytes | Expected | None = self.plants(picture, expected, rng)
        return made


def measured(check: Any, of: int = 1, number: int = 0, required: bool = True) -> OwnHealth:
    guarded = Guarded(check, "a test", required, check.name, check.version, True)
    (found,) = measure_own([guarded], 5, number, of)
    return found


def counts(found: OwnHealth) -> dict[str, tuple[int, int]]:
    return {kind.name: (kind.found, kind.planted) for kind in found.health.defects}


def test_known_pictures_of_a_model_are_shown_once_in_parts(tmp_path: Path) -> None:
    good = known(tmp_path, "good.png", colour(0, 0, 250))
    accused = known(tmp_path, "red-rose.png", colour(240, 0, 0))
    made = rule(tmp_path, known_bad=reds(tmp_path, 5), known_good=(good, accused))
    (check,) = load(Extras(CheckRules(onnx=(made,)), tmp_path))
    whole: tuple[OwnHealth, ...] = ()
    for number in range(3):
        part = measure_own([check], 5, number, 3)
        assert sum(kind.planted for kind in part[0].health.defects) <= 2
        whole = together(whole, part)
    (found,) = whole
    assert counts(found) == {PLANTED: (0, 0), KNOWN: (5, 5)}
    assert (found.health.clean.alarms, found.health.clean.clean) == (1, 2)
    assert found.health.clean.accused[0].startswith("red-rose.png: ")
    assert found.required
    # What is known is the same whatever the row of drawings.
    assert counts(measure_own([check], 9, 0)[0]) == counts(found)


def test_a_blind_model_misses_and_pictures_that_changed_are_not_found(tmp_path: Path) -> None:
    blind = rule(tmp_path, limit=2.0, known_bad=reds(tmp_path, 3))
    found = measured(onnx_check(blind, tmp_path))
    assert counts(found)[KNOWN] == (0, 3)
    assert found.health.defects[1].missed[0].startswith("bad-0.png: pass")
    seeing = onnx_check(rule(tmp_path, known_bad=reds(tmp_path, 3)), tmp_path)
    (tmp_path / "bad-1.png").write_bytes(colour(255, 0, 0))
    (tmp_path / "bad-2.png").unlink()
    found = measured(seeing)
    assert counts(found)[KNOWN] == (1, 3)
    assert found.health.defects[1].unjudged == 2
    assert "not the file that the policy means" in found.health.defects[1].missed[0]


def test_a_file_that_is_no_picture_is_never_found(tmp_path: Path) -> None:
    files = (known(tmp_path, "page.png", b"<html>"),)
    found = measured(onnx_check(rule(tmp_path, known_bad=files), tmp_path))
    assert counts(found)[KNOWN] == (0, 1)
    assert "does not decode" in found.health.defects[1].missed[0]


def test_the_prompt_and_the_subtask_of_a_known_picture_reach_the_check(tmp_path: Path) -> None:
    model = onnx_model.red_times_tokens()
    (tmp_path / "clip.onnx").write_bytes(model)
    red = known(tmp_path, "red.png", colour(255, 0, 0), prompt="xxxx")
    again = known(tmp_path, "red.png", colour(255, 0, 0), prompt="x")
    made = rule(
        tmp_path,
        name="acme.adherence",
        file="clip.onnx",
        sha256=hashlib.sha256(model).hexdigest(),
        input="image",
        limit=2.5,
        subtasks=["edit"],
        known_bad=(red,),
        known_good=(again,),
    )

    def tokenize(prompt: str) -> dict[str, Any]:
        return {"tokens": np.array([[len(prompt)]], dtype=np.int64)}

    check = onnx_check(made, tmp_path, tokenize, "1")
    assert isinstance(check, Knows)
    assert [one.expected.subtask for one in check.known()] == ["edit", "edit"]
    found = measured(check)
    assert counts(found)[KNOWN] == (1, 1)
    assert (found.health.clean.alarms, found.health.clean.clean) == (0, 1)


def darkened(picture: Picture, expected: Expected, rng: np.random.Generator) -> Pixels:
    return (picture.rgb // int(rng.integers(20, 30))).astype(np.uint8)


@pytest.mark.parametrize(
    ("plants", "found"),
    [
        (darkened, 2),
        (lambda p, e, r: encoded(Image.new("RGB", (64, 64), (1, 1, 1)), "JPEG"), 2),
        (lambda p, e, r: replace(e, prompt="another"), 2),
        (lambda p, e, r: np.zeros((9, 9, 3), np.uint8), 2),
        (lambda p, e, r: replace(e, prompt="break"), 0),
        # What is no defect was not found either: nothing a plug-in does makes it look better.
        (lambda p, e, r: p.rgb, 0),
        (lambda p, e, r: e, 0),
        (lambda p, e, r: p.rgb.astype(float), 0),
        (lambda p, e, r: p.rgb[..., 0], 0),
        (lambda p, e, r: "dark", 0),
        (lambda p, e, r: b"no picture", 0),
        (lambda p, e, r: p.rgb.fill(0), 0),
        (lambda p, e, r: 1 / 0, 0),
    ],
)
def test_a_check_plants_pixels_files_and_expectations(plants: Any, found: int) -> None:
    seen = measured(Bright(plants))
    assert counts(seen) == {PLANTED: (found, 2), KNOWN: (0, 0)}
    assert (seen.health.clean.alarms, seen.health.clean.clean) == (0, 2)
    assert seen.health.defects[0].unjudged in (0, 2)
    assert seen.problem == ""


def test_nothing_is_planted_where_it_cannot_show_or_the_check_fails_already() -> None:
    assert counts(measured(Bright(lambda p, e, r: None)))[PLANTED] == (0, 0)
    accuser = measured(Bright(darkened, limit=300))
    assert counts(accuser)[PLANTED] == (0, 0)
    assert (accuser.health.clean.alarms, accuser.health.clean.clean) == (2, 2)


def test_the_same_seed_plants_the_same_and_drawings_do_not_repeat() -> None:
    seen: list[float] = []

    def noting(picture: Picture, expected: Expected, rng: np.random.Generator) -> Pixels:
        seen.append(float(picture.rgb.mean()) + float(rng.random()))
        return darkened(picture, expected, rng)

    for number in (0, 0, 1):
        measured(Bright(noting), number=number)
    assert seen[:2] == seen[2:4]
    assert len(set(seen)) == 4


def test_a_check_that_cannot_be_measured_says_why() -> None:
    @dataclass(frozen=True)
    class Lost(Bright):
        def known(self) -> Sequence[KnownPicture]:
            raise OSError("no disk")

    assert measured(Lost(darkened)).problem == "OSError: no disk"
    absent = measure_own([Absent("plugin.gone", "not installed", False)], 1, 0)
    assert (absent[0].problem, absent[0].required) == ("not installed", False)
    assert measure_own([], 1, 0) == ()


def test_what_is_offered_is_looked_at_when_the_plugin_is_loaded() -> None:
    _conforms(Bright(darkened))
    assert isinstance(Bright(darkened), Plants)

    @dataclass(frozen=True)
    class Field(Bright):
        known: tuple[str, ...] = ("a.png",)

    with pytest.raises(PluginError, match="has known, which is no method"):
        _conforms(Field())

    @dataclass(frozen=True)
    class Few(Bright):
        def plant(self, picture: Picture) -> None:  # type: ignore[override]
            return None

    with pytest.raises(PluginError, match=r"has plant, which is no method.*3 arguments"):
        _conforms(Few())


def test_known_pictures_are_in_the_policys_digest_and_not_in_the_checks_version(
    tmp_path: Path,
) -> None:
    plain = rule(tmp_path)
    assert not {"known_bad", "known_good"} & plain.model_dump(mode="json").keys()
    more = rule(tmp_path, known_bad=reds(tmp_path, 1))
    assert more.version == plain.version
    assert Policy(checks=CheckRules(onnx=(more,))).digest != (
        Policy(checks=CheckRules(onnx=(plain,))).digest
    )
    # As it was before there were known pictures.
    assert "unmeasured" not in CheckRules(onnx=(plain,)).model_dump(mode="json")
    assert CheckRules(unmeasured="hold").model_dump(mode="json")["unmeasured"] == "hold"
    shown = more.model_dump(mode="json")
    assert OnnxRule.model_validate(shown) == more


def test_a_picture_cannot_be_good_and_bad_and_counts_once(tmp_path: Path) -> None:
    one = reds(tmp_path, 1)
    with pytest.raises(ValidationError, match=r"'bad-0\.png' is among known_bad and known_good"):
        rule(tmp_path, known_bad=one, known_good=one)
    with pytest.raises(ValidationError, match="stands there twice"):
        rule(tmp_path, known_bad=one * 2)
    other = one[0].model_copy(update={"prompt": "another prompt"})
    assert rule(tmp_path, known_bad=(other,), known_good=one).known_good == one


def test_known_pictures_that_are_missing_refuse_the_run(tmp_path: Path) -> None:
    made = rule(tmp_path, known_good=(KnownFile(file="gone.png", sha256="0" * 64),))
    (told,) = problems(Extras(CheckRules(onnx=(made,)), tmp_path))
    assert "gone.png" in told
    optional = rule(tmp_path, required=False, known_good=made.known_good)
    assert problems(Extras(CheckRules(onnx=(optional,)), tmp_path)) == ()


def test_a_model_that_can_judge_no_picture_of_the_run_is_idle(tmp_path: Path) -> None:
    rules = CheckRules(onnx=(rule(tmp_path, subtasks=["edit"]), rule(tmp_path, name="acme.b")))
    fast = Case(case_id="a", prompt="p", subtask="fast")
    edit = Case(case_id="b", prompt="p", subtask="edit", upload="uploads/a.png")
    assert idle(rules, [fast]) == {"safety.nsfw"}
    assert idle(rules, [fast, edit]) == frozenset()


def test_workers_measure_a_plugin_and_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rules = CheckRules(
        onnx=(rule(tmp_path, known_bad=reds(tmp_path, 2)),),
        plugins=(PluginRule(name="acme"), PluginRule(name="gone", required=False)),
    )
    with CheckPool(workers=1, extras=Extras(rules, tmp_path)) as pool:
        report = pool.submit_drawing(3, 0, 1, None).result()
    assert report.problem == ""
    nsfw, night, gone = report.own
    assert counts(nsfw) == {PLANTED: (0, 0), KNOWN: (2, 2)}
    assert counts(night) == {PLANTED: (2, 2), KNOWN: (0, 0)}
    assert gone.problem.startswith("plug-in 'gone': not installed")


PLUGIN = """
from dataclasses import dataclass
from tasks.records import Finding
@dataclass(frozen=True)
class Night:
    name: str = "acme.night"
    version: str = "1"
    higher_is_better: bool = True
    def run(self, picture, expected):
        score = float(picture.rgb.mean())
        verdict = "fail" if score < 12 else "pass"
        return Finding(check=self.name, version=self.version, verdict=verdict, score=score)
    def plant(self, picture, expected, rng):
        return picture.rgb // 30
CHECKS = Night()
"""


def install(folder: Path) -> None:
    (folder / "acme_night.py").write_text(PLUGIN)
    info = folder / "acme_night-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-night\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[imagegate.checks]\nacme = acme_night:CHECKS\n")


@pytest.mark.parametrize(
    ("limit", "bad", "unmeasured", "code"),
    [(0.5, 5, "warn", 0), (2.0, 5, "warn", 3), (0.5, 2, "hold", 3)],
)
def test_the_doctor_measures_the_checks_of_a_policy(
    tmp_path: Path,
    light_imagegate: Command,
    limit: float,
    bad: int,
    unmeasured: str,
    code: int,
) -> None:
    install(tmp_path)
    made = rule(tmp_path, limit=limit, known_bad=reds(tmp_path, bad))
    policy = tmp_path / "policy.yaml"
    checks = {
        "onnx": [made.model_dump(mode="json")],
        "plugins": [{"name": "acme"}],
        "unmeasured": unmeasured,
    }
    policy.write_text(yaml.safe_dump({"checks": checks}))
    before = light_imagegate.env.get("PYTHONPATH", "")
    light_imagegate.env["PYTHONPATH"] = os.pathsep.join(filter(None, (before, str(tmp_path))))
    light_imagegate.env["IMAGEGATE_PLUGINS"] = str(tmp_path)
    names = ("--check", "safety.nsfw", "--check", "acme.night")
    asked = ("doctor", "--checks", "--policy", str(policy), "--pictures", "3", *names, "--json")
    done = light_imagegate(*asked)
    assert done.code == code, done.err
    found = json.loads(done.out)
    own = {one["check"]: one for one in found["own"]}
    assert (own["safety.nsfw"]["planted"], own["acme.night"]["found"]) == (bad, 6)
    assert found["checks"] == []
    assert found["blind"] == (["safety.nsfw"] if limit > 1 else [])
    assert found["held"] == (["safety.nsfw"] if code and limit < 1 else [])
    few = [note for note in found["notes"] if "too few to prove" in note]
    assert len(few) == (bad == 2)
    if limit > 1:
        light_imagegate.env["IMAGEGATE_PLUGINS"] = str(tmp_path / "elsewhere")
        broken = light_imagegate(*asked)
        assert broken.code == 4, broken.err
        assert json.loads(broken.out)["broken"] == ["safety.nsfw"]
        short = ("doctor", "--checks", "--policy", str(policy), "--pictures", "1", "--json")
        stranger = light_imagegate(*short, "--check", "no.such")
        assert stranger.code == 2
        assert "no such check" in stranger.err


def test_the_example_of_the_guide_sees_what_it_plants() -> None:
    guide = (Path(__file__).parents[2] / "tasks/checks/README.md").read_text(encoding="utf-8")
    code = guide.partition("`acme_shine.py`")[2].partition("```python\n")[2].partition("```")[0]
    module = types.ModuleType("acme_shine")
    sys.modules["acme_shine"] = module
    try:
        exec(compile(code, "acme_shine.py", "exec"), module.__dict__)  # noqa: S102 - our own guide
        # It leaves pictures with text to others.
        found = [counts(measured(module.CHECKS[0], 6, number))[PLANTED] for number in range(6)]
    finally:
        del sys.modules["acme_shine"]
    assert sum(one[1] for one in found) >= 2
    assert all(one[0] == one[1] for one in found)


def test_a_pinned_file_is_still_a_pinned_file() -> None:
    assert issubclass(KnownFile, PinnedFile)
