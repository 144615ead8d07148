"""Pictures with Content Credentials, signed by authorities that the tests make up."""

from __future__ import annotations

import io
import json
from typing import Any

from tasks.checks.planted_signed import ACTION, Authority, authority

__all__ = ("Authority", "authority", "sign")


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
