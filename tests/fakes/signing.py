"""Pictures with Content Credentials, signed by authorities that the tests make up."""

from __future__ import annotations

import datetime
import io
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ACTION = {
    "action": "c2pa.created",
    "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
}


@dataclass(frozen=True)
class Authority:
    """PEM of its own certificate, of the signer's with the chain, and of the signer's key."""

    root: str
    chain: str
    key: str


def authority(organization: str) -> Authority:
    """A certificate authority with one signer, both valid for some years around today."""
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


def sign(
    data: bytes,
    mime: str,
    by: Authority,
    *,
    remote: str | None = None,
    parent: bytes | None = None,
) -> bytes:
    """Return the picture with a manifest; with ``remote`` the manifest is only named by address."""
    import c2pa

    info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, by.chain.encode(), by.key.encode(), None)
    manifest: dict[str, Any] = {
        "claim_generator_info": [{"name": "imagegate tests", "version": "1"}],
        "assertions": [{"label": "c2pa.actions", "data": {"actions": [ACTION]}}],
    }
    if parent is not None:
        del manifest["assertions"]
    out = io.BytesIO()
    with c2pa.Builder.from_json(json.dumps(manifest)) as builder:
        if parent is not None:
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            builder.add_ingredient(
                json.dumps({"title": "before", "relationship": "parentOf"}),
                mime,
                io.BytesIO(parent),
            )
        if remote is not None:
            builder.set_remote_url(remote)
            builder.set_no_embed()
        builder.sign(c2pa.Signer.from_info(info), mime, io.BytesIO(data), out)
    return out.getvalue()
