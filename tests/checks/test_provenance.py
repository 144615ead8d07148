from __future__ import annotations

import hashlib
import http.server
import importlib
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tasks.check_rules import CheckRules, Extras, PinnedFile
from tasks.checks import provenance
from tasks.checks.base import Expected, Picture
from tasks.checks.decode import decode
from tasks.checks.plugins import load, problems
from tasks.checks.provenance import Provenance
from tests.checks.drawing import as_picture, encoded, scene
from tests.fakes.signing import Authority, authority, sign

pytest.importorskip("c2pa", reason="c2pa-python (extra: provenance) is not installed")

PNG = encoded(scene(160, 128))


@pytest.fixture(scope="module")
def alpha() -> Authority:
    return authority("Alpha Images")


@pytest.fixture(scope="module")
def beta() -> Authority:
    return authority("Beta Images")


class File(bytes):
    """A file whose repr is short: hypothesis warns of a long one, and a warning is an error."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


@pytest.fixture(scope="module")
def signed(alpha: Authority) -> bytes:
    return File(sign(PNG, "image/png", alpha))


def picture(data: bytes, mime: str = "image/png") -> Picture:
    return Picture(as_picture(scene(160, 128)).rgb, data, mime)


def judged(check: Provenance, data: bytes, mime: str = "image/png") -> tuple[str, str]:
    found = check.run(picture(data, mime), Expected())
    assert found.check == check.name == "safety.provenance"
    assert found.version == check.version
    return found.verdict, found.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF"])
def test_a_signed_picture_of_each_format_passes_and_decodes(alpha: Authority, kind: str) -> None:
    mime = f"image/{kind.lower()}"
    data = sign(encoded(scene(160, 128), kind), mime, alpha)
    decoded = decode(data, Expected())
    assert decoded.picture is not None, decoded.findings
    check = Provenance("required", alpha.root)
    found = check.run(decoded.picture, Expected())
    assert (found.verdict, found.message) == (
        "pass",
        "signed by 'Alpha Images' ('Alpha Images Signer')",
    )


def test_an_untrusted_signer_fails_though_the_library_says_valid(
    signed: bytes, alpha: Authority, beta: Authority
) -> None:
    found = provenance.read(signed, "image/png", beta.root)
    assert isinstance(found, provenance.Signed)
    assert found.valid
    assert not found.trusted
    verdict, message = judged(Provenance("required", beta.root), signed)
    assert verdict == "fail"
    assert "signed by 'Alpha Images'" in message
    assert "does not trust" in message
    assert judged(Provenance("required", beta.root + alpha.root), signed)[0] == "pass"


def test_the_name_of_a_trusted_organisation_does_not_make_a_signer_trusted(
    alpha: Authority,
) -> None:
    forged = sign(PNG, "image/png", authority("Alpha Images"))
    check = Provenance("required", alpha.root, ("Alpha Images",))
    assert judged(check, forged)[0] == "fail"


def test_only_named_organisations_may_sign(signed: bytes, alpha: Authority) -> None:
    assert judged(Provenance("required", alpha.root, ("Alpha Images",)), signed)[0] == "pass"
    verdict, message = judged(Provenance("required", alpha.root, ("Other",)), signed)
    assert verdict == "fail"
    assert "wants 'Other'" in message


def test_no_manifest_fails_or_is_not_judged(alpha: Authority) -> None:
    assert judged(Provenance("required", alpha.root), PNG) == (
        "fail",
        "no C2PA manifest, and the policy asks for one",
    )
    assert judged(Provenance("if_present", alpha.root), PNG) == ("skip", "no C2PA manifest")
    bmp = encoded(scene(160, 128), "BMP")
    assert judged(Provenance("required", alpha.root), bmp, "image/bmp")[0] == "fail"


@pytest.mark.parametrize("mode", ["required", "if_present"])
def test_a_changed_picture_fails(signed: bytes, alpha: Authority, mode: Any) -> None:
    changed = bytearray(signed)
    changed[signed.rfind(b"IDAT") + 30] ^= 1
    verdict, message = judged(Provenance(mode, alpha.root), bytes(changed))
    assert verdict == "fail"
    assert "assertion.dataHash.mismatch" in message
    assert judged(Provenance(mode, alpha.root), signed + b"more")[0] == "fail"


def test_the_manifest_of_another_picture_fails(signed: bytes, alpha: Authority) -> None:
    start, end = manifest_of(signed)
    other = encoded(scene(160, 128, seed=9))
    moved = other[:33] + signed[start:end] + other[33:]
    assert decode(moved, Expected()).picture is not None
    verdict, message = judged(Provenance("required", alpha.root), moved)
    assert verdict == "fail"
    assert "assertion.dataHash.mismatch" in message


def manifest_of(png: bytes) -> tuple[int, int]:
    """Start and end of the chunk that holds the manifest."""
    start = png.index(b"caBX") - 4
    return start, start + int.from_bytes(png[start : start + 4], "big") + 12


# A place is drawn as a share of the file: every choice is made before the test's body runs, so
# an example is the same one however long this run's signature happens to be.
PLACES = st.integers(0, 2**32 - 1)


def at(place: int, data: bytes) -> int:
    """The byte of `data` at `place` of `PLACES`."""
    return place * len(data) >> 32


@settings(max_examples=150, deadline=None)
@given(place=PLACES, bit=st.integers(0, 7))
def test_no_flipped_bit_passes(signed: bytes, alpha: Authority, place: int, bit: int) -> None:
    start, end = manifest_of(signed)
    place = at(place, signed)
    changed = bytearray(signed)
    changed[place] ^= 1 << bit
    failed = judged(Provenance("required", alpha.root), bytes(changed))[0] == "fail"
    # Within the manifest some bytes are padding that nobody signs; the chunk's checksum has them.
    assert failed or start <= place < end
    assert failed or decode(bytes(changed), Expected()).picture is None


@settings(max_examples=100, deadline=None)
@given(
    place=PLACES,
    gone=st.sampled_from((0, 1, 7, 64, 2**32)),
    put=st.one_of([st.binary(min_size=size, max_size=size) for size in (1, 2, 9, 64)]),
)
def test_a_damaged_file_is_judged_and_never_raises(
    signed: bytes, alpha: Authority, place: int, gone: int, put: bytes
) -> None:
    cut = at(place, signed)
    data = signed[:cut] + put + signed[cut + gone :]
    assume(data != signed)
    found = judged(Provenance("if_present", alpha.root), data)[0]
    assert found != "pass" or decode(data, Expected()).picture is None


@pytest.mark.parametrize("size", [0, 1, 8, 20])
def test_a_file_that_ends_too_early_fails(signed: bytes, alpha: Authority, size: int) -> None:
    for mode in ("required", "if_present"):
        verdict, message = judged(Provenance(mode, alpha.root), signed[:size])  # type: ignore[arg-type]
        assert verdict == "fail"
        assert "manifest" in message


def test_an_edit_of_a_signed_picture_passes(signed: bytes, alpha: Authority) -> None:
    check = Provenance("required", alpha.root)
    assert judged(check, sign(PNG, "image/png", alpha, parent=signed))[0] == "pass"


def test_a_manifest_elsewhere_is_not_fetched(alpha: Authority) -> None:
    asked: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/manifest.c2pa"
        data = sign(PNG, "image/png", alpha, remote=address)
        verdict, message = judged(Provenance("required", alpha.root), data)
        server.shutdown()
    assert verdict == "fail"
    assert message == "the C2PA manifest lies at another address, and nothing is fetched"
    assert asked == []


def test_what_a_file_says_of_its_signer_is_quoted() -> None:
    hostile = authority("<b>\u202e*evil*\n")
    verdict, message = judged(
        Provenance("required", authority("Alpha").root), sign(PNG, "image/png", hostile)
    )
    assert verdict == "fail"
    assert "\u202e" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"state": "Valid"}, "does not trust"),
        ({"state": None}, "not valid"),
        ({"state": "Invalid"}, "not valid"),
        ({"state": "Perhaps"}, "not valid"),
        ({"failure": ["cawg.identity.whatever"]}, "cawg.identity.whatever"),
        ({"failure": ["signingCredential.untrusted"]}, "does not trust"),
        ({"success": ["claimSignature.validated", "assertion.dataHash.match"]}, "does not trust"),
        ({"success": ["signingCredential.trusted", "assertion.dataHash.match"]}, "not valid"),
        ({"success": ["signingCredential.trusted", "claimSignature.validated"]}, "binds"),
        ({"success": None}, "not valid"),
    ],
)
def test_what_the_library_does_not_say_counts_as_wrong(
    alpha: Authority, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], why: str
) -> None:
    said: dict[str, Any] = {
        "state": "Trusted",
        "success": [
            "signingCredential.trusted", "claimSignature.validated", "assertion.dataHash.match",
        ],
        "failure": [],
    }  # fmt: skip

    def read(*_: object) -> provenance.Signed:
        active = {k: said[k] and [{"code": c} for c in said[k]] for k in ("success", "failure")}
        return provenance._signed(said["state"], {"activeManifest": active}, {})

    monkeypatch.setattr(provenance, "read", read)
    check = Provenance("required", alpha.root)
    assert judged(check, PNG)[0] == "pass"
    said |= change
    verdict, message = judged(check, PNG)
    assert verdict == "fail"
    assert why in message
    assert provenance._signed("Trusted", {}, {}).failures


def test_the_version_tells_who_is_trusted(alpha: Authority, beta: Authority) -> None:
    checks = [
        Provenance("required", alpha.root),
        Provenance("if_present", alpha.root),
        Provenance("required", beta.root),
        Provenance("required", alpha.root, ("Alpha Images",)),
    ]
    assert len({check.version for check in checks}) == len(checks)


def rules(folder: Path, pem: str) -> CheckRules:
    (folder / "trust.pem").write_text(pem)
    pinned = PinnedFile(file="trust.pem", sha256=hashlib.sha256(pem.encode()).hexdigest())
    return CheckRules(provenance="required", trusted_signers=(pinned,))


def test_a_policy_brings_the_check(tmp_path: Path, alpha: Authority, signed: bytes) -> None:
    extras = Extras(rules(tmp_path, alpha.root), tmp_path)
    assert problems(extras) == ()
    (check,) = load(extras)
    assert check.run(picture(signed), Expected()).verdict == "pass"
    assert load(Extras()) == ()


@pytest.mark.parametrize(
    ("pem", "why"),
    [("", "not certificates in PEM"), ("hello", "not certificates in PEM"),
     ("leaf", "no certificate authority")],
)  # fmt: skip
def test_trust_in_what_is_no_authority_fails_closed(
    tmp_path: Path, alpha: Authority, pem: str, why: str
) -> None:
    text = alpha.chain.split("-----BEGIN")[1] if pem == "leaf" else pem
    text = f"-----BEGIN{text}" if pem == "leaf" else text
    (check,) = load(Extras(rules(tmp_path, text), tmp_path))
    with pytest.raises(Exception, match=why):
        check.run(picture(PNG), Expected())


def test_an_exchanged_trust_list_fails_closed(
    tmp_path: Path, alpha: Authority, beta: Authority, signed: bytes
) -> None:
    asked = rules(tmp_path, beta.root)
    (tmp_path / "trust.pem").write_text(alpha.root)
    extras = Extras(asked, tmp_path)
    assert "is not the file that the policy means" in problems(extras)[0]
    (check,) = load(extras)
    with pytest.raises(Exception, match="is not the file that the policy means"):
        check.run(picture(signed), Expected())


def test_without_the_library_a_policy_that_asks_fails_closed(
    tmp_path: Path, alpha: Authority, signed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    extras = Extras(rules(tmp_path, alpha.root), tmp_path)
    provenance._context.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    (check,) = load(extras)
    assert "imagegate[provenance]" in problems(extras)[0]
    with pytest.raises(Exception, match=r"imagegate\[provenance\]"):
        check.run(picture(signed), Expected())
