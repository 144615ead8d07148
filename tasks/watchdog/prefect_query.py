"""Filtered reads from Prefect's API, without the nulls that its own client sends.

The client sends ``null`` for every filter that is not given; a server with FastAPI 0.154 refuses
that (422), an older one takes both. Our lock has an older one, but a team's server at
``PREFECT_API_URL`` is not installed from our lock, and the watchdog must see it all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

M = TypeVar("M", bound=BaseModel)


def read_filtered(
    client: SyncPrefectClient, path: str, model: type[M], *, limit: int = 200, **filters: Any
) -> list[M]:
    """Return what a ``…/filter`` route finds.

    Args:
        client: An open client.
        path: The route below ``/api``.
        model: What one answer is.
        limit: How many at the most; 200 is Prefect's own limit.
        filters: Fields of the request's body; filter models, and plain values as they are.

    Raises:
        httpx.HTTPError: The server does not answer, or refuses.
    """
    body: dict[str, Any] = {"limit": limit}
    for name, value in filters.items():
        if isinstance(value, BaseModel):
            body[name] = value.model_dump(mode="json", exclude_none=True)
        elif value is not None:
            body[name] = value
    # The client's own transport: it knows the server's credentials and certificates.
    answer = client._client.post(path, json=body)
    answer.raise_for_status()
    return [model.model_validate(row) for row in answer.json()]
