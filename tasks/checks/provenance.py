"""Content Credentials (C2PA): who says that a model made this picture, and may he be believed?

Verified by ``c2pa-python`` (MIT or Apache-2.0; the optional extra ``provenance``), always offline:
by itself it would fetch manifests from any address that a picture names.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tasks.checks.base import Expected, KnownPicture, Picture
from tasks.records import Finding, digest_json

NAME = "safety.provenance"
MISSING = (
    "the policy asks for provenance and c2pa-python is not installed: "
    "pip install 'imagegate[provenance]'"
)
#: Status codes by C2PA 2.x, section "Validation states": what a trusted manifest must show.
_TRUSTED = "signingCredential.trusted"
_UNTRUSTED = "signingCredential.untrusted"
_SIGNED = "claimSignature.validated"
#: One of these binds the manifest to the bytes of this very file.
_BOUND = frozenset(
    {"assertion.dataHash.match", "assertion.boxesHash.match", "assertion.bmffHash.match"}
)
#: Errors of the library itself; all others speak of the file. ``Io`` too: the stream is in
#: memory, and reading one fails only where the file ends too early.
_OWN_FAULTS = ("Encoding", "UntrackedPointer", "WrongPointerType")


@dataclass(frozen=True, slots=True)
class Signed:
    """What a manifest says, in the file's own words: untrusted unless ``trusted``."""

    #: Nothing but the trust in the signer was found wanting.
    valid: bool
    trusted: bool
    #: Codes of what is wrong, the signer's trust aside.
    failures: tuple[str, ...] = ()
    #: Organisation and common name of the signing certificate.
    organization: str = ""
    signer: str = ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """A manifest is there, valid, and by a signer whom the policy trusts."""

    #: ``required``, or ``if_present``: pictures without a manifest are not judged.
    mode: Literal["required", "if_present"]
    #: PEM of the trusted authorities, one after the other.
    anchors: str = field(repr=False)
    #: Organisations that may sign; empty: all that a trusted authority vouches for.
    signed_by: tuple[str, ...] = ()
    higher_is_better: bool = True

    def __post_init__(self) -> None:
        # Fails here, by name, rather than with every picture.
        _context(self.anchors)

    @property
    def name(self) -> str:
        """``safety.provenance``."""
        return NAME

    @property
    def version(self) -> str:
        """Changes with the mode and with who is trusted."""
        return "1-" + digest_json([self.mode, self.anchors, self.signed_by])[7:15]

    def run(self, picture: Picture, expected: Expected) -> Finding:
        """No score: a signature holds or it does not."""
        found = read(picture.data, picture.mime, self.anchors)
        if found is None and self.mode == "if_present":
            return self._finding("skip", "no C2PA manifest")
        if wrong := self._wrong(found):
            return self._finding("fail", wrong)
        return self._finding("pass", f"signed by {_who(found)}")

    def known(self) -> tuple[KnownPicture, ...]:
        """Return pictures that nobody whom the policy trusts has signed; all must fail.

        A picture that passes cannot be made here: that takes the key of somebody who is trusted.
        """
        from tasks.checks.planted_signed import strangers

        return strangers(manifest_required=self.mode == "required")

    def _wrong(self, found: Signed | str | None) -> str:
        """Return what is wrong with a manifest, "" when nothing is."""
        if found is None:
            return "no C2PA manifest, and the policy asks for one"
        if isinstance(found, str):
            return found
        if found.failures or not found.valid:
            codes = ", ".join(found.failures[:4]) or "the library calls it invalid"
            return f"the C2PA manifest is not valid: {codes}"
        who = f"the C2PA manifest is signed by {_who(found)}"
        if not found.trusted:
            return f"{who}, whom the policy does not trust"
        if self.signed_by and found.organization not in self.signed_by:
            return f"{who}, the policy wants {', '.join(map(repr, self.signed_by))}"
        return ""

    def _finding(self, verdict: Literal["pass", "fail", "skip"], message: str) -> Finding:
        return Finding(check=NAME, version=self.version, verdict=verdict, message=message[:300])


def _who(found: Signed | str | None) -> str:
    """Return organisation and name; quoted, so that no odd character reaches a terminal."""
    if not isinstance(found, Signed):
        return "nobody"
    return f"{found.organization[:80]!r} ({found.signer[:80]!r})"


def read(data: bytes, mime: str, anchors: str) -> Signed | str | None:
    """Return what the manifest of a file says.

    Args:
        data: The file.
        mime: Its type.
        anchors: PEM of the trusted authorities.

    Returns:
        ``None`` without a manifest, a sentence about one that cannot be verified.

    Raises:
        ImportError: c2pa-python is not installed.
        Exception: The library broke.
    """
    c2pa, context = library(), _context(anchors)
    try:
        with c2pa.Reader(mime, io.BytesIO(data), context=context) as reader:
            state = reader.get_validation_state()
            results = reader.get_validation_results() or {}
            store = json.loads(reader.json())
    except c2pa.C2paError as error:
        kind, _, said = str(error).partition(":")
        if kind in ("ManifestNotFound", "NotSupported"):
            return None
        if kind in _OWN_FAULTS:
            raise
        if kind in ("Remote", "RemoteManifest"):
            return "the C2PA manifest lies at another address, and nothing is fetched"
        return f"the C2PA manifest cannot be read: {kind.strip()[:40]}: {said.strip()[:160]!r}"
    return _signed(state, results, store)


def _signed(state: str | None, results: dict[str, Any], store: dict[str, Any]) -> Signed:
    """Return the library's answer in short; everything that it does not say counts as wrong."""
    active = results.get("activeManifest") or {}
    success = _codes(active.get("success"))
    failures = _codes(active.get("failure"))
    wrong = [code for code in failures if code != _UNTRUSTED]
    if _SIGNED not in success:
        wrong.append(f"no {_SIGNED}")
    if not _BOUND & set(success):
        wrong.append("nothing binds it to this file")
    manifest = (store.get("manifests") or {}).get(store.get("active_manifest")) or {}
    info = manifest.get("signature_info") or {}
    return Signed(
        # Covers the ingredients too. An untrusted signer still says ``Valid``.
        valid=state in ("Valid", "Trusted"),
        trusted=state == "Trusted" and _TRUSTED in success and _UNTRUSTED not in failures,
        failures=tuple(dict.fromkeys(wrong)),
        organization=str(info.get("issuer") or ""),
        signer=str(info.get("common_name") or ""),
    )


def _codes(entries: Sequence[dict[str, Any]] | None) -> tuple[str, ...]:
    return tuple(str(entry.get("code")) for entry in entries or ())


def library() -> Any:
    """Return the module ``c2pa``, an optional one.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module("c2pa")
    except ImportError:
        raise ImportError(MISSING) from None


@functools.lru_cache(maxsize=8)
def _context(anchors: str) -> Any:
    """Return the library's settings: these authorities and no network.

    Raises:
        ImportError: c2pa-python is not installed.
        ValueError: There is something else than certificates of authorities.
    """
    c2pa = library()
    _check_authorities(anchors)
    return c2pa.Context.from_dict(
        {
            "verify": {
                "verify_trust": True,
                # Both would send requests to addresses that the picture names.
                "remote_manifest_fetch": False,
                "ocsp_fetch": False,
            },
            "core": {"allowed_network_hosts": []},
            "trust": {"user_anchors": anchors},
        }
    )


def _check_authorities(pem: str) -> None:
    from cryptography import x509

    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise ValueError(f"trusted_signers: not certificates in PEM: {error}") from None
    for certificate in certificates:
        try:
            basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            authority = basic.value.ca
        except x509.ExtensionNotFound:
            authority = False
        if not authority:
            raise ValueError(
                f"trusted_signers: {certificate.subject.rfc4514_string()!r} is no certificate "
                "authority; give the one that issued it"
            )
