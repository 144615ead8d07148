from __future__ import annotations

import hashlib
import importlib
import pickle
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from tasks.check_rules import CheckRules, Extras, PluginRule
from tasks.checks import plugins, suite
from tasks.checks.base import Check, Expected, Picture
from tasks.checks.plugins import Absent, Guarded, installed, load, problems, require
from tasks.checks.suite import check_picture, picture_verdict
from tasks.errors import PreflightError
from tasks.records import Finding
from tasks.settings import DEPLOYMENTS
from tests.checks.drawing import as_picture, encoded, scene

GUIDE = Path(plugins.__file__).with_name("README.md").read_text("utf-8")
TAKEN = [check.name for check in suite.CHECKS]


@dataclass(frozen=True)
class Plain:
    """A check that says pass, or whatever it is told to."""

    says: Any = "pass"
    name: str = "acme.plain"
    version: str = "1"
    higher_is_better: bool = True

    def run(self, picture: Picture, expected: Expected) -> Any:
        if callable(self.says):
            return self.says(picture)
        return Finding(check=self.name, version=self.version, verdict=self.says)


class Site:
    """A folder on ``sys.path`` into which the tests install packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, name: str, code: str, entry: str = "CHECKS", version: str = "1.0.0", point: str = ""
    ) -> None:
        module = name.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code)
        info = self.folder / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(
            f"[{plugins.GROUP}]\n{point or name} = {module}:{entry}\n"
        )
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield Site(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith(("acme", "other")):
            del sys.modules[name]


PLAIN = "from tests.checks.test_plugins import Plain\n"


def asked(*names: str, **more: Any) -> Extras:
    return Extras(CheckRules(plugins=tuple(PluginRule(name=n, **more) for n in names)))


def run(check: Check, image: Picture | None = None) -> Finding:
    return check.run(image or as_picture(scene()), Expected())


def judge(
    monkeypatch: pytest.MonkeyPatch, checks: tuple[Check, ...], image: Image.Image, **of: Any
) -> tuple[dict[str, Finding], str]:
    """Findings by check and verdict, from the suite with two built-in checks and these."""
    few = tuple(c for c in suite.CHECKS if c.name in ("geometry.size", "composition.blank"))
    monkeypatch.setattr(suite, "CHECKS", (*few, *checks))
    report = check_picture(encoded(image), Expected(**of))
    found = {finding.check: finding for finding in report.findings}
    return found, picture_verdict(report, Expected(**of))


# The example of the guide, built as people would.


def guide_file(name: str) -> str:
    found = re.search(rf"`{re.escape(name)}`\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the wheel of the guide's example is unpacked."""
    folder = tmp_path_factory.mktemp("acme")
    for name in ("pyproject.toml", "acme_shine.py"):
        (folder / name).write_text(guide_file(name), "utf-8")
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    subprocess.run(
        [sys.executable, "-c", build], cwd=folder, check=True, capture_output=True, timeout=120
    )
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_example_of_the_guide_builds_installs_and_judges(
    example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(example))
    assert installed() == {"acme-shine": "acme-shine 1.0.0"}
    extras = asked("acme-shine", version="1.0.0")
    assert problems(extras) == ()
    checks = load(extras, TAKEN)
    assert [(c.name, c.version, c.higher_is_better) for c in checks] == [("acme.shine", "1", False)]
    found, verdict = judge(monkeypatch, checks, scene(), subtask="creative", width=512)
    assert (found["acme.shine"].verdict, verdict) == ("pass", "pass")
    burnt = scene()
    burnt.paste("white", (0, 0, 512, 300))
    report = check_picture(encoded(burnt), Expected(subtask="creative"))
    finding = next(f for f in report.findings if f.check == "acme.shine")
    assert (finding.verdict, finding.limit) == ("fail", 0.25)
    assert finding.score == pytest.approx(300 / 512, abs=0.01)
    assert picture_verdict(report, Expected()) == "fail"
    report = check_picture(encoded(burnt), Expected(subtask="upscale"))
    assert next(f for f in report.findings if f.check == "acme.shine").verdict == "skip"


def test_the_guide_is_true_to_itself() -> None:
    project = tomllib.loads(guide_file("pyproject.toml"))
    assert list(project["project"]["entry-points"]) == [plugins.GROUP]
    compile(guide_file("acme_shine.py"), "acme_shine.py", "exec")
    assert len(guide_file("acme_shine.py").splitlines()) < 50
    for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL):
        assert set(yaml.safe_load(block)["checks"]) <= set(CheckRules.model_fields)


def test_the_example_of_a_policy_has_every_field() -> None:
    given = yaml.safe_load((DEPLOYMENTS / "plugins.example.yaml").read_text("utf-8"))
    rules = CheckRules.model_validate(given["checks"])
    assert set(given["checks"]) == set(CheckRules.model_fields)
    assert set(given["checks"]["onnx"][0]) | {"input"} == set(type(rules.onnx[0]).model_fields)
    assert set(given["checks"]["plugins"][0]) == set(PluginRule.model_fields)


# What is loaded, and when not.


def test_nothing_is_loaded_that_the_policy_does_not_name(site: Site) -> None:
    site.install("acme-trap", "raise SystemExit('imported')\n")
    assert load(Extras(), TAKEN) == ()
    assert "acme-trap" in installed()


def test_an_entry_gives_one_check_or_several_in_the_order_of_the_policy(site: Site) -> None:
    site.install("acme-two", PLAIN + "CHECKS = (Plain(name='a.one'), Plain(name='a.two'))\n")
    site.install("acme-one", PLAIN + "CHECKS = Plain(name='b.one')\n")
    checks = load(asked("acme-one", "acme-two"), TAKEN)
    assert [check.name for check in checks] == ["b.one", "a.one", "a.two"]
    assert {run(check).verdict for check in checks} == {"pass"}


BROKEN = {
    "raise RuntimeError('no licence')\n": "RuntimeError: no licence",
    "raise SystemExit(3)\n": "SystemExit: 3",
    "import no_such_module_here\n": "no_such_module_here",
    "CHECKS = ()\n": "it gives no check",
    "CHECKS = 'hello'\n": "has no name",
    PLAIN + "CHECKS = Plain\n": "give an instance",
    PLAIN + "CHECKS = Plain(version='')\n": "has no version",
    PLAIN + "CHECKS = Plain(version=2)\n": "has no version",
    PLAIN + "CHECKS = Plain(higher_is_better=1)\n": "has no higher_is_better",
    PLAIN + "CHECKS = Plain(name='Shine')\n": "must read family.name",
    PLAIN + "CHECKS = Plain(name='decode.mine')\n": "the gate's own",
    PLAIN + "CHECKS = Plain(name='safety.refusal')\n": "a check 'safety.refusal' already",
    PLAIN + "CHECKS = Plain(), Plain()\n": "a check 'acme.plain' already",
    "OTHER = 1\n": "CHECKS",
    "class A:\n name, version, higher_is_better = 'a.b', '1', True\nCHECKS = A()\n": "no method",
}


@pytest.mark.parametrize(("code", "why"), BROKEN.items())
@pytest.mark.parametrize("required", [True, False])
def test_a_broken_plugin_is_named_and_fails_closed_when_required(
    site: Site, monkeypatch: pytest.MonkeyPatch, code: str, why: str, required: bool
) -> None:
    site.install("acme-bad", code)
    site.install("other-good", PLAIN + "CHECKS = Plain(name='other.good')\n")
    checks = load(asked("acme-bad", "other-good", required=required), TAKEN)
    found, verdict = judge(monkeypatch, checks, scene(), width=512, height=512)
    finding = found["plugin.acme-bad"]
    assert "plug-in 'acme-bad'" in finding.message
    assert why in finding.message
    assert found["other.good"].verdict == "pass"
    assert (finding.verdict, verdict) == (("fault", "unmeasured") if required else ("skip", "pass"))


@pytest.mark.parametrize("required", [True, False])
def test_what_is_not_installed_fails_closed_when_required(
    site: Site, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    site.install("acme-shine", PLAIN + "CHECKS = Plain()\n")
    extras = asked("acme-shien", required=required)
    told = problems(extras)
    assert len(told) == required
    with pytest.raises(PreflightError) if required else nullcontext():
        require(extras)
    assert not required or ("'acme-shien'" in told[0] and "known: acme-shine" in told[0])
    found, verdict = judge(monkeypatch, load(extras, TAKEN), scene(), width=512, height=512)
    assert "not installed" in found["plugin.acme-shien"].message
    assert verdict == ("unmeasured" if required else "pass")


def test_another_version_than_the_policy_wants_is_not_loaded(site: Site) -> None:
    site.install("acme-shine", "raise AssertionError('loaded')\n", version="1.0.1")
    extras = asked("acme-shine", version="1.0.0")
    (check,) = load(extras, TAKEN)
    assert isinstance(check, Absent)
    assert "version 1.0.1 is installed, the policy wants 1.0.0" in check.why
    assert check.why == problems(extras)[0]


def test_two_packages_under_one_name_are_refused(site: Site) -> None:
    site.install("acme-one", PLAIN + "CHECKS = Plain()\n", point="shine")
    site.install("acme-two", PLAIN + "CHECKS = Plain()\n", point="shine")
    (told,) = problems(asked("shine"))
    assert "acme-one 1.0.0 and acme-two 1.0.0" in told
    assert isinstance(load(asked("shine"))[0], Absent)


def test_a_name_belongs_to_the_first_that_takes_it(site: Site) -> None:
    site.install("acme-one", PLAIN + "CHECKS = Plain()\n")
    site.install("acme-two", PLAIN + "CHECKS = (Plain(name='acme.other'), Plain())\n")
    first, second = load(asked("acme-one", "acme-two"))
    assert isinstance(first, Guarded)
    assert isinstance(second, Absent)
    assert "a check 'acme.plain' already" in second.why


# What a loaded plug-in may do.


def guarded(says: Any, *, required: bool = True) -> Guarded:
    return Guarded(Plain(says), "plug-in 'acme'", required, "acme.plain", "1", True)


SAYS = Finding(check="acme.plain", version="1", verdict="pass")


def broken(_: Picture) -> Finding:
    raise ZeroDivisionError("a bug")


def leaves(_: Picture) -> Finding:
    raise SystemExit(0)


def paints(picture: Picture) -> Finding:
    picture.rgb[0, 0] = 0
    return SAYS


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (broken, "ZeroDivisionError: a bug"),
        (leaves, "SystemExit"),
        (paints, "read-only"),
        (lambda _: None, "NoneType, not a Finding"),
        (lambda _: "pass", "str, not a Finding"),
        (lambda _: SAYS.model_copy(update={"check": "geometry.size"}), "'geometry.size'"),
        (lambda _: SAYS.model_copy(update={"version": "2"}), "not of 'acme.plain' '1'"),
        (lambda _: SAYS.model_copy(update={"score": float("nan")}), "score nan"),
        (lambda _: SAYS.model_copy(update={"limit": float("inf")}), "limit inf"),
        (lambda _: SAYS.model_copy(update={"verdict": "fault", "message": "sick"}), "sick"),
    ],
)
def test_what_a_plugin_must_not_do_is_a_fault_or_a_skip(
    monkeypatch: pytest.MonkeyPatch, says: Any, why: str
) -> None:
    image = as_picture(scene())
    before = image.rgb.copy()
    finding = run(guarded(says, required=False), image)
    assert (finding.verdict, finding.check) == ("skip", "acme.plain")
    assert why in finding.message
    found, verdict = judge(monkeypatch, (guarded(says),), scene(), width=512, height=512)
    assert (found["acme.plain"].verdict, verdict) == ("fault", "unmeasured")
    assert why in found["acme.plain"].message
    assert "plug-in 'acme'" in found["acme.plain"].message
    assert np.array_equal(image.rgb, before)


def test_a_plugin_sees_the_one_decoded_picture_and_its_references() -> None:
    seen: list[Picture] = []

    def look(picture: Picture) -> Finding:
        picture.notes["read_text"] = ("mine",)
        seen.append(picture)
        return SAYS.model_copy(update={"message": "x" * 999, "higher_is_better": False})

    image = replace(
        as_picture(scene()), references={"upload": as_picture(scene()).rgb, "mask": None}
    )
    finding = run(guarded(look), image)
    assert len(finding.message) == 300
    assert finding.higher_is_better
    assert np.shares_memory(seen[0].rgb, image.rgb)
    assert image.rgb.flags.writeable == as_picture(scene()).rgb.flags.writeable
    assert image.notes == {}
    upload = seen[0].reference("upload")
    assert upload is not None
    assert not upload.flags.writeable
    with pytest.raises(ValueError, match="mask"):
        seen[0].reference("mask")


def test_what_workers_are_sent_crosses_process_borders(tmp_path: Path) -> None:
    given = yaml.safe_load((DEPLOYMENTS / "plugins.example.yaml").read_text("utf-8"))
    extras = Extras(CheckRules.model_validate(given["checks"]), tmp_path)
    assert pickle.loads(pickle.dumps(extras)) == extras  # noqa: S301, TID251


# The rules.

PINNED = {"file": "a.onnx", "sha256": hashlib.sha256(b"").hexdigest()}
ONNX = {**PINNED, "name": "a.b", "width": 8, "height": 8, "higher_is_better": True, "limit": 0.5}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"provenance": "required"}, "needs trusted_signers"),
        ({"trusted_signers": [PINNED]}, "mean nothing while provenance is 'off'"),
        ({"signed_by": ["A"]}, "mean nothing"),
        (
            {"provenance": "required", "trusted_signers": [PINNED], "signed_by": [" "]},
            "needs a name",
        ),
        ({"provenance": "maybe"}, "provenance"),
        ({"plugin": []}, "Extra inputs"),
        ({"plugins": [{"name": "a"}, {"name": "a"}]}, "'a' stands here twice"),
        ({"plugins": [{"name": "../a"}]}, "pattern"),
        ({"onnx": [ONNX, ONNX]}, "'a.b' stands here twice"),
        ({"onnx": [{**ONNX, "sha256": "abc"}]}, "pattern"),
        ({"onnx": [{**ONNX, "name": "nsfw"}]}, "pattern"),
        ({"onnx": [{**ONNX, "std": [1, 0, 1]}]}, "std must be above 0"),
        ({"onnx": [{**ONNX, "classes": []}]}, "classes must be different places"),
        ({"onnx": [{**ONNX, "classes": [1, 1]}]}, "classes must be different places"),
        ({"onnx": [{**ONNX, "classes": [-1]}]}, "classes must be different places"),
        ({"onnx": [{**ONNX, "limit": float("nan")}]}, "finite"),
        ({"onnx": [{**ONNX, "width": 0}]}, "greater"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(why)):
        CheckRules.model_validate(given)
