"""kill -9 of the controller at every fault point of a change of a real HAProxy."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, clean_environment
from tests.real.cluster import find_program
from tests.real.haproxy_canary import Application, Haproxy

pytestmark = pytest.mark.skipif(
    find_program("haproxy") is None, reason="needs HAProxy (Debian: haproxy)"
)
#: What only this router passes; a point that gets lost is missed.
OWN = {
    "map locked",
    "map's file about to be replaced",
    "map's file replaced",
    "map changed in memory",
}


@pytest.mark.parametrize("scenario", ["share", "promote", "rollback"])
def test_haproxy_serves_one_legal_routing_and_the_next_call_completes(
    tmp_path: Path, scenario: str
) -> None:
    with Application("blue") as blue, Application("green") as green:
        haproxy = Haproxy(tmp_path, blue.port, green.port)
        haproxy.start()
        try:
            rollout = tmp_path / "rollout.yaml"
            # The check of HAProxy's configuration starts a program a trial: it is tested elsewhere.
            router = haproxy.rollout | {"check_command": []}
            rollout.write_text(yaml.safe_dump({"router": router}), encoding="utf-8")
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "tests.real.haproxy_victim"),
                    *(str(tmp_path / "house"), str(rollout), scenario),
                ],
                cwd=ROOT,
                env=clean_environment(),
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
        finally:
            haproxy.stop()
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    before, after = seen["before"], seen["after"]
    assert set(seen["points"]) >= OWN
    assert after["settled"]
    assert after["serves"] == after["kept"] == after["shown"] == after["wanted"] != before["wanted"]
    for point, trial in zip(seen["points"], seen["trials"], strict=True):
        killed, again = trial["killed"], trial["again"]
        try:
            assert trial["died"] == -signal.SIGKILL
            legal = (before["wanted"], after["wanted"])
            assert killed["serves"] in legal
            assert killed["kept"] in legal
            # What a reload would undo or bring is not shown as if it were certain.
            sure = killed["serves"] == killed["kept"]
            assert killed["shown"] == (killed["serves"] if sure else {})
            if killed["serves"] == after["wanted"]:
                assert killed["wanted"] == after["wanted"], "the router never leads"
            for field in ("wanted", "settled", "serves", "kept", "shown"):
                assert again[field] == after[field], field
        except AssertionError as error:
            raise AssertionError(f"{scenario}, killed at {point!r}: {error}") from error
    served = [trial["killed"]["serves"] for trial in seen["trials"]]
    assert before["wanted"] in served
    assert after["wanted"] in served
    # Somebody died between the file and the memory, or the test looks at nothing.
    assert any(trial["killed"]["shown"] == {} for trial in seen["trials"])
