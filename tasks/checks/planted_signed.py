"""Pictures with Content Credentials by authorities made up here, and what is wrong with some.

For ``safety.provenance``, which only a policy asks for. In its runs the check is shown pictures
without a manifest and such by a stranger; one by a signer whom the policy trusts takes his key. So
the whole table is made with two authorities of our own, by ``imagegate doctor --checks`` where
c2pa-python is installed: its record could not be made on a machine without it.
"""

from __future__ import annotations

import datetime
import functools
import io
import json
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from tasks.checks.base import Expected, KnownPicture, Pixels
from tasks.checks.counts import CheckHealth, CleanHealth, DefectHealth
from tasks.checks.decode import decode
from tasks.checks.planted_base import Good, choice, encoded
from tasks.checks.provenance import NAME, Provenance, library
from tasks.providers.embedded.draws import generator
from tasks.providers.embedded.render import render
from tasks.records import CheckVerdict

#: Pictures of each kind that a run shows the check: enough to prove that it sees.
_EACH = 10
_SIDE = 128
_KINDS = ("PNG", "JPEG", "WEBP")
ACTION = {
    "action": "c2pa.created",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}
#: Chunk of a PNG that holds the manifest.
_CHUNK = b"caBX"


@dataclass(frozen=True)
class Authority:
    """PEM of its own certificate, of the signer's with the chain, and of the signer's key."""

    root: str
    chain: str
    key: str


def authority(organization: str) -> Authority:
    """Return a new certificate authority with one signer, both valid for some years around now."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, name = (
        x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, f"{organization} {what}"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            ]
        )
        for what in ("Root", "Signer")
    )

    def begun(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=3000))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(True, False, False, False, False, signs, signs, False, False)

    root = (
        begun(root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        begun(name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .sign(root_key, hashes.SHA256())
    )
    root_pem, leaf_pem = (c.public_bytes(serialization.Encoding.PEM).decode() for c in (root, leaf))
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Authority(root_pem, leaf_pem + root_pem, secret.decode())


def sign(data: bytes, mime: str, by: Authority) -> bytes:
    """Return a picture with a manifest of the signer.

    Raises:
        ImportError: c2pa-python is not installed.
    """
    c2pa = library()
    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, by.chain.encode(), by.key.encode(), None)
    manifest = {
        "claim_generator_info": [{"name": "imagegate planted defects", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [ACTION]}}],
    }
    out = io.BytesIO()
    with c2pa.Builder.from_json(json.dumps(manifest)) as builder:
        builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(data), out)
    return out.getvalue()


@functools.cache
def _ours(name: str, number: int = 0) -> Authority:
    """Return an authority, made once a process; two numbers have one name and other keys."""
    del number
    return authority(name)


def strangers(*, manifest_required: bool) -> tuple[KnownPicture, ...]:
    """Return pictures that no policy's signer has signed.

    Args:
        manifest_required: Whether pictures without a manifest must fail; otherwise there are such
            whose manifest is of another picture.
    """
    kinds: tuple[tuple[str, Callable[[int], bytes]], ...] = (
        ("no manifest", lambda n: _small(n)[0])
        if manifest_required
        else ("manifest of another picture", _of_another),
        ("signed by a stranger", lambda n: sign(*_small(n), _ours("Stranger"))),
    )
    return tuple(
        KnownPicture(f"{name} {n + 1}", True, functools.partial(make, n), Expected())
        for n in range(_EACH)
        for name, make in kinds
    )


def _small(number: int) -> tuple[bytes, str]:
    """Return a small drawing as a file, and its type; formats take turns."""
    from tasks.checks.planted_good import pictured

    kind = _KINDS[number % len(_KINDS)]
    job = replace(pictured(0, number), width=_SIDE, height=_SIDE, text=(), brand=None)
    return _as(render(job), kind), f"image/{kind.lower()}"


def _of_another(number: int) -> bytes:
    one, other = (_as(_small(n)[0], "PNG") for n in (number, number + _EACH))
    return with_manifest_of(sign(one, "image/png", _ours("Stranger")), other)


def _as(png: bytes, kind: str) -> bytes:
    return encoded(_pixels(png), kind, quality=92)


def _pixels(file: bytes) -> Pixels:
    picture = decode(file, Expected()).picture
    if picture is None:
        raise ValueError("a picture of our own does not decode")
    return picture.rgb


def manifest_place(png: bytes) -> tuple[int, int]:
    """Return where the chunk with the manifest begins and ends.

    Raises:
        ValueError: There is none.
    """
    start = png.index(_CHUNK) - 4
    return start, start + int.from_bytes(png[start : start + 4], "big") + 12


def with_manifest_of(signed: bytes, other: bytes) -> bytes:
    """Return another PNG with the manifest of a signed one."""
    start, end = manifest_place(signed)
    head = 33  # Signature and header: where the library puts its own.
    return other[:head] + signed[start:end] + other[head:]


def stripped(good: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Leave the manifest out."""
    start, end = manifest_place(good)
    return good[:start] + good[end:]


def exchanged(good: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Put the manifest on another picture."""
    return with_manifest_of(good, other)


def damaged(good: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes within the manifest; the file stays whole."""
    start, end = manifest_place(good)
    body = bytearray(good[start + 8 : end - 4])
    for at in rng.integers(0, len(body), 16):
        body[int(at)] ^= int(rng.integers(1, 256))
    checked = zlib.crc32(_CHUNK + body).to_bytes(4, "big")
    return good[: start + 8] + bytes(body) + checked + good[end:]


def retouched(good: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change some pixels after the picture was signed; the file stays whole."""
    pixels = _pixels(good).copy()
    top, left = (int(rng.integers(0, side - 8)) for side in pixels.shape[:2])
    pixels[top : top + 8, left : left + 8] ^= 64
    return with_manifest_of(good, encoded(pixels, "PNG"))


def strange(good: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Sign by somebody whom nobody trusts; half of them take the trusted one's name."""
    who = choice((("Stranger", 0), ("Ours", 1)), rng)
    return sign(stripped(good, other, rng), "image/png", _ours(*who))


#: What is done to a picture that a trusted signer has signed.
_DEFECTS: tuple[tuple[str, Callable[[bytes, bytes, np.random.Generator], bytes]], ...] = (
    ("manifest left out", stripped),
    ("manifest of another picture", exchanged),
    ("manifest damaged", damaged),
    ("pixels changed after signing", retouched),
    ("signed by a stranger", strange),
)


def measure(goods: Iterable[Good], seed: int = 0) -> CheckHealth:
    """Sign good pictures, spoil them in each way, and count what ``safety.provenance`` says.

    Args:
        goods: The pictures, at least two.
        seed: Same seed, same defects; certificates are always new.

    Raises:
        ImportError: c2pa-python is not installed.
    """
    check = Provenance("required", _ours("Ours").root)

    def judged(data: bytes) -> tuple[CheckVerdict, str, float]:
        picture = decode(data, Expected()).picture
        started = time.process_time()
        found = None if picture is None else check.run(picture, Expected())
        spent = time.process_time() - started
        return ("skip", "", spent) if found is None else (found.verdict, found.message, spent)

    files = [(good.name, encoded(good.rgb, "PNG")) for good in goods]
    clean = CleanHealth(NAME)
    kinds = {name: DefectHealth(name, NAME, 1.0) for name, _ in _DEFECTS}
    for number, (name, file) in enumerate(files):
        signed = sign(file, "image/png", _ours("Ours"))
        verdict, why, spent = judged(signed)
        failed = verdict == "fail"
        clean = clean.plus(
            CleanHealth(NAME, failed, 1, 0, spent, (f"{name}: {why}",) if failed else ())
        )
        for kind, spoil in _DEFECTS:
            rng = generator(seed, kind, name)
            verdict, _, spent = judged(spoil(signed, files[number - 1][1], rng))
            found = verdict == "fail"
            missed = () if found else (f"{name}: {verdict}",)
            one = DefectHealth(kind, NAME, 1.0, found, 1, 0, verdict == "skip", spent, missed)
            kinds[kind] = kinds[kind].plus(one)
    return CheckHealth(NAME, clean, tuple(kinds.values()))
