"""A way to people that keeps what it carries and fails as told."""

from __future__ import annotations

from collections.abc import Callable

from tasks.alerts.chain import Chain
from tasks.alerts.parcel import Anchor, Parcel, Receipt
from tasks.state import State


class Post:
    """Threads as Slack does: a first message or an update becomes the place of its thread."""

    def __init__(
        self,
        fails: Callable[[Parcel], Exception | None] = lambda _parcel: None,
        name: str = "slack",
    ) -> None:
        self.fails, self.name = fails, name
        self.sent: list[str] = []
        self.parcels: list[Parcel] = []

    def send(self, parcel: Parcel) -> Receipt:
        error = self.fails(parcel)
        if error is not None:
            raise error
        self.sent.append(parcel.message.dedup_key)
        self.parcels.append(parcel)
        anchor = None
        if parcel.message.kind != "reply" and self.name == "slack":
            anchor = parcel.anchor or Anchor("C1", f"{len(self.sent)}.0")
        return Receipt(self.name, {"of": parcel.message.dedup_key}, anchor)


def by(state: State, *ways: Post) -> Chain:
    """Return a chain of such ways."""
    return Chain(state, ways)
