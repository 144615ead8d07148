"""What a policy asks of the checks reaches the worker processes, the command and the digest."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import yaml

from tasks.check_rules import CheckRules, Extras, OnnxRule, PinnedFile, PluginRule
from tasks.checks.base import Expected
from tasks.checks.plugins import problems
from tasks.checks.pool import CheckPool
from tasks.checks.rehearsal import rehearse
from tasks.errors import PreflightError
from tasks.policy import Policy, load_policy
from tests.checks.drawing import encoded, scene
from tests.conftest import Command
from tests.fakes import onnx_model

MODEL = onnx_model.mean_colour()
NSFW = OnnxRule(
    name="safety.red", file="red.onnx", sha256=hashlib.sha256(MODEL).hexdigest(),
    width=8, height=8, higher_is_better=False, limit=0.95,
)  # fmt: skip
PLUGIN = """
from dataclasses import dataclass
from tasks.records import Finding
@dataclass(frozen=True)
class Size:
    name: str = "acme.pixels"
    version: str = "1"
    higher_is_better: bool = True
    def run(self, picture, expected):
        score = float(picture.rgb.size)
        return Finding(check=self.name, version=self.version, verdict="pass", score=score)
CHECKS = Size()
print('hello from a plug-in')
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "red.onnx").write_bytes(MODEL)
    (tmp_path / "good.png").write_bytes(encoded(scene(256, 256)))
    return tmp_path


def install(folder: Path, code: str = PLUGIN) -> None:
    (folder / "acme_pixels.py").write_text(code)
    info = folder / "acme_pixels-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-pixels\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[imagegate.checks]\nacme = acme_pixels:CHECKS\n")


def verdicts(folder: Path, rules: CheckRules) -> dict[str, tuple[str, str]]:
    with CheckPool(workers=1, extras=Extras(rules, folder)) as pool:
        report = pool.submit(folder / "good.png", Expected(width=256)).result()
    return {f.check: (f.verdict, f.message) for f in report.findings}


def test_a_worker_loads_what_the_policy_asks_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder)
    monkeypatch.syspath_prepend(str(folder))
    trusted = (PinnedFile(file="none.pem", sha256="0" * 64),)
    found = verdicts(
        folder,
        CheckRules(
            provenance="required",
            trusted_signers=trusted,
            onnx=(NSFW,),
            plugins=(PluginRule(name="acme"), PluginRule(name="gone", required=False)),
        ),
    )
    assert found["geometry.size"] == ("pass", "")
    assert found["safety.red"] == found["acme.pixels"] == ("pass", "")
    assert found["plugin.gone"][0] == "skip"
    verdict, message = found["safety.provenance"]
    assert verdict == "fault"
    assert "there is no file" in message


def test_what_a_plugin_prints_stays_out_of_the_json(folder: Path, light_imagegate: Command) -> None:
    install(folder)
    policy = folder / "policy.yaml"
    policy.write_text("checks: {plugins: [{name: acme}]}")
    before = light_imagegate.env.get("PYTHONPATH", "")
    light_imagegate.env["PYTHONPATH"] = os.pathsep.join(filter(None, (before, str(folder))))
    asked = "check", str(folder / "good.png"), "--json", "--workers", "1", "--policy", str(policy)
    done = light_imagegate(*asked)
    assert done.code == 0, done.err
    found = {f["check"]: f["verdict"] for f in json.loads(done.out)["findings"]}
    assert found["acme.pixels"] == "pass"


def test_a_policy_that_asks_for_nothing_more_has_its_old_digest(tmp_path: Path) -> None:
    assert "checks" not in Policy().model_dump(mode="json")
    assert "checks" in Policy(checks=CheckRules(onnx=(NSFW,))).model_dump(mode="json")
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(Policy(checks=CheckRules(onnx=(NSFW,))).model_dump(mode="json")))
    assert load_policy(file).checks.onnx == (NSFW,)


@pytest.mark.parametrize(("limit", "code"), [(0.95, 0), (0.01, 1)])
def test_the_command_adds_the_checks_of_a_policy(
    folder: Path, light_imagegate: Command, limit: float, code: int
) -> None:
    shown = {**NSFW.model_dump(mode="json"), "limit": limit, "file": str(folder / "red.onnx")}
    policy = folder / "policy.yaml"
    policy.write_text(yaml.safe_dump({"checks": {"onnx": [shown]}}))
    asked = "check", str(folder / "good.png"), "--json", "--workers", "1", "--policy", str(policy)
    done = light_imagegate(*asked)
    assert done.code == code, done.err
    found = {f["check"]: f for f in json.loads(done.out)["findings"]}
    assert found["safety.red"]["limit"] == limit
    (folder / "red.onnx").write_bytes(b"another")
    done = light_imagegate(*asked)
    assert done.code == 2
    assert "is not the file that the policy means" in " ".join(done.err.split())


def test_a_run_is_refused_before_it_pays_when_a_check_breaks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse(Extras())
    rehearse(Extras(CheckRules(onnx=(NSFW,)), folder))
    monkeypatch.syspath_prepend(str(folder))
    install(folder, "raise RuntimeError('no licence')\n")
    rules = CheckRules(plugins=(PluginRule(name="acme"),))
    assert problems(Extras(rules, folder)) == ()
    with pytest.raises(PreflightError, match=r"plugin\.acme: .*RuntimeError: no licence"):
        rehearse(Extras(rules, folder))
    with pytest.raises(PreflightError, match="there is no file"):
        rehearse(Extras(CheckRules(onnx=(NSFW,)), folder / "elsewhere"))
    rehearse(Extras(CheckRules(plugins=(PluginRule(name="acme", required=False),)), folder))


@pytest.mark.parametrize("required", [True, False])
def test_a_check_that_kills_its_worker_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    body = "        import os\n        os.kill(os.getpid(), 9)\n"
    install(folder, PLUGIN.replace("        score =", body + "        score ="))
    monkeypatch.syspath_prepend(str(folder))
    rules = CheckRules(plugins=(PluginRule(name="acme", required=required),))
    with CheckPool(workers=1, extras=Extras(rules, folder)) as pool:
        asked = [pool.submit(folder / "good.png", Expected(width=256)) for _ in range(3)]
        reports = [one.result() for one in asked]
    how = "the check process died by signal 9, in acme.pixels"
    for report in reports:
        found = {f.check: (f.verdict, f.message) for f in report.findings}
        if required:
            assert found == {"decode.file": ("fault", how)}
        else:
            verdict, message = found["acme.pixels"]
            assert (verdict, message.endswith(how)) == ("skip", True)
            assert found["geometry.size"] == ("pass", "")


def test_a_plugin_that_kills_its_worker_on_loading_is_told_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(folder, "import os\nos.kill(os.getpid(), 9)\n")
    monkeypatch.syspath_prepend(str(folder))
    found = verdicts(folder, CheckRules(plugins=(PluginRule(name="acme"),)))
    assert "in the loading of the policy's checks" in found["decode.file"][1]
