"""Any history of two controllers, crashes, reloads and hands on HAProxy's map ends well."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tasks.errors import FencedError, RolloutError
from tasks.rollout.routers.base import Desired, Share
from tasks.rollout.routers.config import HaproxyRouterConfig
from tasks.rollout.routers.entry import Entry, parse_entry
from tasks.rollout.routers.haproxy import HaproxyRouter
from tasks.rollout.routers.haproxy_runtime import Runtime, parse_map_file
from tests.fakes import mixes
from tests.rollout.routers.runtime_api import BACKENDS, RuntimeApi

MIXES = tuple(mixes.mix(name, f"folio-{n}") for n, name in enumerate(("a", "b", "c")))
ONE_OF = st.sampled_from(range(len(MIXES)))


class Killed(BaseException):
    """What ends a controller at once."""


class Histories(RuleBasedStateMachine):
    """What may happen to one HAProxy and its map's file, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.file = Path(folder) / "imagegate.map"
        self.api = self.stack.enter_context(RuntimeApi(str(self.file)))
        self.by_hand = False

    def teardown(self) -> None:
        self.stack.close()

    def router(self) -> HaproxyRouter:
        """Return a controller that remembers nothing."""
        value = {
            "kind": "haproxy",
            "instances": [{"socket": self.api.address, "map_file": str(self.file)}],
            "products": {"shop": {"backends": [{"name": name} for name in BACKENDS]}},
            "timeout_s": 60,
        }
        return HaproxyRouter(HaproxyRouterConfig.model_validate(value))

    @property
    def memory(self) -> Entry | None:
        value = self.api.values.get("shop")
        return None if value is None else parse_entry(value)

    @property
    def kept(self) -> Entry | None:
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        value = parse_map_file(text).get("shop")
        return None if value is None else parse_entry(value)

    def epochs(self) -> list[int]:
        return [entry.epoch for entry in (self.memory, self.kept) if entry is not None]

    @rule(
        production=ONE_OF,
        candidate=ONE_OF,
        share=st.sampled_from((0.0, 0.01, 0.05, 0.25, 0.5)),
        step=st.integers(-2, 2),
        dies=st.sampled_from((None, None, "file", "memory")),
    )
    def change(
        self, production: int, candidate: int, share: float, step: int, dies: str | None
    ) -> None:
        """One controller changes the routing under an epoch near the latest, and may be killed."""
        epoch = max(1, max(self.epochs(), default=0) + step)
        shares = (Share(MIXES[production], 1.0),)
        if share and candidate != production:
            shares = (Share(MIXES[production], 1 - share), Share(MIXES[candidate], share))
        desired, router = Desired("shop", epoch, shares), self.router()
        before = (self.memory, self.kept)
        with pytest.MonkeyPatch.context() as patch:

            def killed(*_: object) -> None:
                raise Killed

            if dies == "file":
                patch.setattr("tasks.rollout.routers.haproxy.write_atomic", killed)
            elif dies == "memory":
                patch.setattr(Runtime, "set_map", killed)
            try:
                router.apply(desired)
            except Killed:
                pass
            except FencedError:
                assert (self.memory, self.kept) == before, "who is too late changes nothing"
                assert any(
                    entry is not None
                    and (entry.epoch > epoch or not entry.state("shop").shows(desired))
                    for entry in before
                )
            else:
                assert all(entry is None or entry.epoch <= epoch for entry in before), "no way back"
                shown = router.read("shop")
                assert shown is not None
                assert shown.shows(desired)
                self.by_hand = False

    @rule()
    def reload(self) -> None:
        """HAProxy reads its map's file again."""
        text = self.file.read_text(encoding="utf-8") if self.file.exists() else ""
        self.api.values = parse_map_file(text)

    @rule(cut=st.integers(0, 1_000_000))
    def hand(self, cut: int) -> None:
        """Somebody changes the share over the Runtime API."""
        value = self.api.values.get("shop")
        if value is not None:
            parts = value.split("|")
            self.api.values["shop"] = "|".join([parts[0], str(cut), *parts[2:]])
            self.by_hand = True

    @rule(text=st.sampled_from(("# empty\n", "shop hello\n", "other v1|x\n")))
    def lost_file(self, text: str) -> None:
        """Somebody's configuration management puts a file of its own there."""
        self.file.write_text(text, encoding="utf-8")
        self.by_hand = True

    @invariant()
    def what_is_shown_is_true_and_lasts(self) -> None:
        try:
            shown = self.router().read("shop")
        except RolloutError:
            assert self.by_hand, "only hands make a map that cannot be read"
            return
        memory, kept = self.memory, self.kept
        if shown is None:
            assert memory is None
            assert kept is None
        elif shown.weights:
            assert memory == kept
            assert memory is not None
            assert shown.weights == memory.weights
        else:
            assert memory != kept
            assert shown.epoch == max(self.epochs())

    @invariant()
    def what_our_changes_leave_is_a_routing(self) -> None:
        if not self.by_hand and "shop" in self.api.values:
            assert self.memory is not None


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, print_blob=True
)
