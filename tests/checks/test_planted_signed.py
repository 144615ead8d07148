"""Signatures made up and spoilt: each defect is what it says, and the check finds it."""

from __future__ import annotations

import pytest

from flows.check_health import examine_checks
from flows.check_own import not_planted
from tasks.checks.base import Expected, Picture
from tasks.checks.decode import decode
from tasks.checks.planted_own import KNOWN, measure_own
from tasks.checks.provenance import NAME, Provenance, read

pytest.importorskip("c2pa", reason="c2pa-python (extra: provenance) is not installed")

from tasks.checks import planted_signed
from tasks.checks.planted_good import drawn
from tasks.checks.planted_signed import authority, measure, sign, strangers
from tests.checks.drawing import encoded, scene


def test_every_way_to_spoil_a_signed_picture_is_found_and_the_signed_ones_pass() -> None:
    found = measure([drawn(6, number) for number in (0, 1, 2)], seed=1)
    assert found.check == NAME
    assert [kind.name for kind in found.defects] == [
        "manifest left out",
        "manifest of another picture",
        "manifest damaged",
        "pixels changed after signing",
        "signed by a stranger",
    ]
    assert [(kind.found, kind.planted, kind.unjudged) for kind in found.defects] == [(3, 3, 0)] * 5
    assert (found.clean.alarms, found.clean.clean) == (0, 3)


def test_a_check_that_trusts_everybody_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(self: Provenance, found: object) -> str:
        return "" if found is not None else "no manifest"

    monkeypatch.setattr(Provenance, "_wrong", trusting)
    found = measure([drawn(6, number) for number in (0, 1)])
    assert [kind.found for kind in found.defects][1:] == [0, 0, 0, 0]
    check = Provenance("if_present", authority("Somebody").root)
    (own,) = measure_own([check], 1, 0)
    assert (own.health.found, own.health.planted) == (0, 20)


@pytest.mark.parametrize("required", [True, False])
def test_a_run_is_shown_pictures_that_nobody_trusted_has_signed(required: bool) -> None:
    check = Provenance("required" if required else "if_present", authority("Somebody").root)
    names = {one.name.rstrip(" 0123456789") for one in check.known()}
    first = "no manifest" if required else "manifest of another picture"
    assert names == {first, "signed by a stranger"}
    assert all(one.bad for one in check.known())
    (own,) = measure_own([check], 1, 0, 5)
    (kind,) = [kind for kind in own.health.defects if kind.planted]
    assert (kind.name, kind.found, kind.planted, kind.unjudged) == (KNOWN, 4, 4, 0)
    mimes = {
        picture.mime
        for one in strangers(manifest_required=True)
        if (picture := decode(one.read(), Expected()).picture) is not None
    }
    assert mimes == {"image/png", "image/jpeg", "image/webp"}


def test_what_is_spoilt_still_decodes_and_only_the_signature_is_wrong() -> None:
    import numpy as np

    us = authority("Ours")
    good, other = encoded(scene(160, 128)), encoded(scene(160, 128, seed=8))
    signed = sign(good, "image/png", us)
    for name, spoil in planted_signed._DEFECTS:
        spoilt = spoil(signed, other, np.random.default_rng(1))
        decoded = decode(spoilt, Expected())
        assert all(f.verdict == "pass" for f in decoded.findings if f.check == "decode.file"), name
        assert decoded.picture is not None
        shown = Picture(decoded.picture.rgb, spoilt, "image/png")
        assert Provenance("required", us.root).run(shown, Expected()).verdict == "fail", name
    start, end = planted_signed.manifest_place(signed)
    assert signed[:start] + signed[end:] == planted_signed.stripped(
        signed, other, np.random.default_rng(1)
    )
    assert read(signed, "image/png", us.root) is not None


def test_the_doctor_has_a_row_for_signatures_without_any_policy() -> None:
    found = examine_checks(pictures=2, curve=False, seed=3, checks=[NAME])
    (row,) = found["checks"]
    assert (row["check"], row["found"], row["planted"], row["clean"]) == (NAME, 10, 10, 2)
    assert len(row["defects"]) == 5
    assert (found["ok"], found["blind"]) == (True, [])
    assert not_planted(None, signed=True)[0].startswith("colour.profile: ")
    assert len(not_planted([NAME], signed=False)) == 1
