"""A rollback without the state database, by what this machine verified last."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from filelock import FileLock

from tasks.errors import FencedError, RefusedError, RolloutError
from tasks.mix.manifest import ResolvedMix
from tasks.mix.production import journal_of, require_production
from tasks.rollout import last_good
from tasks.rollout.change import promote, reconcile, roll_back, set_share
from tasks.rollout.decision import RolloutResult, alone, split
from tasks.rollout.last_good import LastGood, push_last_good, read_last_good
from tasks.rollout.routers.base import Desired
from tasks.rollout.routers.file import FileRouter
from tasks.state import State
from tasks.tables import mixes

NOW = datetime(2026, 9, 14, 12, tzinfo=UTC)
Change = Callable[..., RolloutResult]


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "last-good"


@pytest.fixture
def put(shop: State, router: FileRouter) -> Change:
    def call(mix: ResolvedMix, **more: object) -> RolloutResult:
        fields: dict[str, object] = {"actor": "ann", "reason": "better", "now": NOW}
        return promote(shop, router, "shop", mix, **(fields | more))  # type: ignore[arg-type]

    return call


@pytest.fixture
def push(router: FileRouter, folder: Path) -> Change:
    def call(to: str | None = None, **more: object) -> RolloutResult:
        return push_last_good(router, folder, "shop", "on-call", "it burns", to=to, **more)  # type: ignore[arg-type]

    return call


def weights(router: FileRouter) -> dict[str, float]:
    found = router.read("shop")
    assert found is not None
    return dict(found.weights)


def kept(folder: Path) -> LastGood:
    found = read_last_good(folder, "shop")
    assert found is not None
    return found


# --- what is kept -------------------------------------------------------------------------------


def test_every_verified_change_is_kept(
    shop: State,
    router: FileRouter,
    folder: Path,
    put: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    assert kept(folder).line == (winter,)
    put(summer)
    assert (kept(folder).epoch, kept(folder).line) == (2, (winter, summer))
    set_share(shop, router, "shop", autumn, 0.25, actor="a", reason="r", now=NOW)
    found = kept(folder)
    assert found.line == (winter, summer)
    assert (found.candidate_digest, found.candidate_weight) == (autumn.digest, 0.25)
    roll_back(shop, router, "shop", None, actor="a", reason="r", now=NOW)
    assert (kept(folder).epoch, kept(folder).candidate_digest) == (4, None)


def test_only_what_the_router_showed_is_kept(
    shop: State, router: FileRouter, folder: Path, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    class Deaf(FileRouter):
        def apply(self, desired: Desired) -> None:
            """Do nothing."""

    with pytest.raises(RolloutError):
        promote(shop, Deaf(router.path), "shop", summer, actor="a", reason="r", now=NOW)
    assert kept(folder).line == (winter,)


def test_only_the_newest_mixes_are_kept(
    shop: State, folder: Path, put: Change, make_mix: Callable[..., ResolvedMix]
) -> None:
    for n in range(3, 11):
        put(make_mix(f"mix-{n}", f"folio-{n}"))
    assert [mix.mix.name for mix in kept(folder).line] == [f"mix-{n}" for n in range(6, 11)]


def test_what_lies_behind_a_damaged_manifest_is_not_kept(
    shop: State, folder: Path, put: Change, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    put(summer)
    with shop.begin() as connection:
        connection.execute(sa.update(mixes).where(mixes.c.name == "winter").values(manifest="{}"))
    put(autumn)
    assert kept(folder).line == (summer, autumn)


def test_a_file_that_cannot_be_written_stops_no_change(
    shop: State, router: FileRouter, folder: Path, put: Change, summer: ResolvedMix
) -> None:
    (folder / "shop.json").unlink()
    (folder / "shop.json").mkdir()
    (folder / "shop.json" / "in-the-way").touch()
    done = put(summer)
    assert weights(router) == {summer.digest: 1.0}
    assert "without the state database was not written" in done.warning
    assert require_production(shop, "shop").settled


def test_the_same_again_is_not_written_again(shop: State, router: FileRouter, folder: Path) -> None:
    before = (folder / "shop.json").stat().st_mtime_ns
    reconcile(shop, router, "shop", now=NOW)
    assert (folder / "shop.json").stat().st_mtime_ns == before


# --- pushing ------------------------------------------------------------------------------------


def test_a_push_puts_the_mix_before_back_and_says_what_nobody_knows(
    router: FileRouter,
    folder: Path,
    put: Change,
    push: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    put(summer)
    done = push()
    assert (done.kind, done.epoch, done.changed) == ("rollback", 3, True)
    assert (done.from_digest, done.to_digest) == (summer.digest, winter.digest)
    assert "have not heard of this rollback" in done.warning
    assert weights(router) == {winter.digest: 1.0}
    found = kept(folder)
    assert found.line == (winter,)
    assert found.put_back is not None
    assert (found.put_back.epoch, found.put_back.verified) == (3, True)


def test_a_push_ends_a_canary_first(
    shop: State,
    router: FileRouter,
    put: Change,
    push: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    set_share(shop, router, "shop", autumn, 0.25, actor="a", reason="r", now=NOW)
    assert push().to_digest == summer.digest
    assert weights(router) == {summer.digest: 1.0}


def test_a_push_can_go_further_back_by_name_or_digest(
    put: Change, push: Change, winter: ResolvedMix, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    put(summer)
    put(autumn)
    with pytest.raises(RefusedError, match=r"no mix 'spring' \(known: autumn \w{12}, summer"):
        push("spring")
    assert push(winter.digest[:20]).to_digest == winter.digest
    put(summer)
    assert push("winter").to_digest == winter.digest


def test_pushes_go_further_back_and_end_at_the_first_mix(
    put: Change, push: Change, winter: ResolvedMix, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    put(summer)
    put(autumn)
    assert push().to_digest == summer.digest
    assert push().to_digest == winter.digest
    with pytest.raises(RefusedError, match="first mix that this machine knows"):
        push()


def test_a_push_is_not_repeated_at_once(
    put: Change, push: Change, router: FileRouter, summer: ResolvedMix, autumn: ResolvedMix
) -> None:
    put(summer)
    put(autumn)
    within = timedelta(minutes=10)
    first = push(once_in=within)
    again = push(once_in=within)
    assert (again.to_digest, again.epoch) == (summer.digest, first.epoch)
    assert not again.changed
    later = datetime.now(UTC) + timedelta(hours=1)
    assert push(once_in=within, now=later).mix_name == "winter"


def test_a_machine_that_did_not_see_the_last_changes_goes_by_the_router(
    router: FileRouter,
    push: Change,
    put: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    """Another machine promoted a mix that this one never heard of, or put one back."""
    put(summer)
    router.apply(Desired("shop", 5, alone(autumn)))
    done = push()
    assert (done.to_digest, done.epoch) == (summer.digest, 6)
    router.apply(Desired("shop", 7, alone(winter)))
    put_back_elsewhere = push_fails(push)
    assert "first mix" in put_back_elsewhere
    assert weights(router) == {winter.digest: 1.0}, "never forward to what was taken away"


def push_fails(push: Change) -> str:
    with pytest.raises(RefusedError) as error:
        push()
    return str(error.value)


def test_a_canary_of_another_machine_is_ended(
    router: FileRouter, push: Change, winter: ResolvedMix, summer: ResolvedMix, shop: State
) -> None:
    router.apply(Desired("shop", 5, split(winter, summer, 0.5)))
    assert push().to_digest == winter.digest
    assert weights(router) == {winter.digest: 1.0}


def test_a_push_goes_through_a_damaged_router(
    router: FileRouter, put: Change, push: Change, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    put(summer)
    router.path.write_text("not json")
    assert push().to_digest == winter.digest
    assert weights(router) == {winter.digest: 1.0}


class Broken(FileRouter):
    def apply(self, desired: Desired) -> None:
        raise RolloutError("the gateway answers 503")


def test_a_push_that_was_cut_short_is_finished_and_goes_no_further(
    router: FileRouter,
    folder: Path,
    put: Change,
    push: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    put(autumn)
    with pytest.raises(RolloutError, match="503"):
        push_last_good(Broken(router.path), folder, "shop", "on-call", "it burns")
    cut = kept(folder).put_back
    assert cut is not None
    assert (cut.mix_digest, cut.verified) == (summer.digest, False)
    assert weights(router) == {autumn.digest: 1.0}
    assert push().to_digest == summer.digest

    # Applied, but killed before the file said so.
    with pytest.raises(OSError, match="killed"):
        push_last_good(Killed(router.path), folder, "shop", "on-call", "it burns")
    assert weights(router) == {winter.digest: 1.0}
    assert push().to_digest == winter.digest


class Killed(FileRouter):
    def apply(self, desired: Desired) -> None:
        super().apply(desired)
        raise OSError("killed")


def test_a_push_that_was_cut_short_long_ago_is_not_finished_over_what_came_since(
    router: FileRouter,
    folder: Path,
    put: Change,
    push: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
    make_mix: Callable[..., ResolvedMix],
) -> None:
    put(summer)
    with pytest.raises(RolloutError, match="503"):
        push_last_good(Broken(router.path), folder, "shop", "on-call", "it burns")
    # Another machine promoted since; this one's file does not know.
    router.apply(Desired("shop", 9, alone(autumn)))
    assert push().to_digest == summer.digest


def test_what_cannot_be_done_says_why(
    router: FileRouter, folder: Path, put: Change, push: Change, summer: ResolvedMix
) -> None:
    put(summer)
    path = folder / "shop.json"
    text = path.read_text()
    with pytest.raises(RefusedError, match="no name of a product"):
        push_last_good(router, folder, "../shop", "a", "r")
    with pytest.raises(RolloutError, match="never verified a change of 'other'"):
        push_last_good(router, folder, "other", "a", "r")
    path.write_text(text.replace("folio-1", "folio-9"))
    with pytest.raises(RolloutError, match="a manifest was altered"):
        push()
    path.write_text("{half")
    with pytest.raises(RolloutError, match="damaged"):
        push()
    path.write_text(text.replace('"product":"shop","put_back"', '"product":"other","put_back"'))
    with pytest.raises(RolloutError, match="of product 'other'"):
        push()
    assert weights(router) == {summer.digest: 1.0}


def test_who_holds_the_file_is_waited_for_only_so_long(
    folder: Path, put: Change, push: Change, summer: ResolvedMix, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(summer)
    monkeypatch.setattr(last_good, "_LOCK_S", 0.05)
    with FileLock(folder / "shop.json.lock"), pytest.raises(RolloutError, match="another process"):
        push()


def test_a_full_disk_before_the_push_changes_nothing(
    router: FileRouter,
    put: Change,
    push: Change,
    summer: ResolvedMix,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(summer)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RolloutError, match="disk is full"):
        push()
    monkeypatch.undo()
    assert weights(router) == {summer.digest: 1.0}


# --- when the database is back ------------------------------------------------------------------


def test_the_database_takes_the_push_over_with_its_actor_and_reason(
    shop: State,
    router: FileRouter,
    folder: Path,
    put: Change,
    push: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    put(summer)
    push()
    done = reconcile(shop, router, "shop", now=NOW)
    assert (done.to_digest, done.epoch) == (winter.digest, 3)
    assert weights(router) == {winter.digest: 1.0}
    pointer = require_production(shop, "shop")
    assert (pointer.mix_digest, pointer.epoch, pointer.settled) == (winter.digest, 3, True)
    line, verified = journal_of(shop, "shop")[-2:]
    assert (line.kind, line.epoch, line.actor) == ("rollback", 3, "on-call")
    assert line.reason.startswith("it burns (made at ")
    assert line.from_digest == summer.digest
    assert (verified.kind, verified.epoch) == ("verified", 3)
    assert kept(folder).put_back is None
    assert reconcile(shop, router, "shop", now=NOW).epoch == 3


def test_another_machines_watchdog_takes_it_over_too(
    shop: State,
    router: FileRouter,
    folder: Path,
    put: Change,
    push: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
) -> None:
    put(summer)
    push()
    shop.last_good = folder.with_name("elsewhere")
    reconcile(shop, router, "shop", now=NOW)
    assert weights(router) == {winter.digest: 1.0}
    line = journal_of(shop, "shop")[-2]
    assert (line.kind, line.actor) == ("rollback", "router")
    assert "taken over as a rollback made without the database" in line.reason


def test_a_pushed_end_of_a_canary_is_taken_over(
    shop: State, router: FileRouter, push: Change, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    set_share(shop, router, "shop", summer, 0.25, actor="a", reason="r", now=NOW)
    push()
    reconcile(shop, router, "shop", now=NOW)
    assert weights(router) == {winter.digest: 1.0}
    assert require_production(shop, "shop").candidate_digest is None
    assert journal_of(shop, "shop")[-2].from_digest == summer.digest


def test_the_next_rollback_without_a_name_finishes_the_push_and_goes_no_further(
    shop: State,
    router: FileRouter,
    put: Change,
    push: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    put(autumn)
    push()
    done = roll_back(shop, router, "shop", None, actor="on-call", reason="again", now=NOW)
    assert done.to_digest == summer.digest


def test_what_was_decided_before_the_push_is_fenced(
    shop: State,
    router: FileRouter,
    put: Change,
    push: Change,
    winter: ResolvedMix,
    summer: ResolvedMix,
    autumn: ResolvedMix,
) -> None:
    put(summer)
    push()
    with pytest.raises(FencedError):
        put(autumn, expected_epoch=2)
    with pytest.raises(FencedError):
        put(autumn, expected_mixes=(summer.digest, autumn.digest))
    with pytest.raises(FencedError):
        set_share(
            shop, router, "shop", autumn, 0.05, actor="a", reason="r", expected_epoch=2, now=NOW
        )
    assert weights(router) == {winter.digest: 1.0}


def test_a_router_ahead_on_a_mix_that_never_served_is_put_right(
    shop: State,
    router: FileRouter,
    put: Change,
    summer: ResolvedMix,
    autumn: ResolvedMix,
    winter: ResolvedMix,
) -> None:
    """Only going back is taken over; whatever else was done by hand is undone."""
    put(summer)
    router.apply(Desired("shop", 7, alone(autumn)))
    assert reconcile(shop, router, "shop", now=NOW).epoch == 8
    assert weights(router) == {summer.digest: 1.0}
    router.apply(Desired("shop", 9, split(winter, summer, 0.5)))
    assert reconcile(shop, router, "shop", now=NOW).epoch == 10
    assert weights(router) == {summer.digest: 1.0}


def test_an_earlier_mix_that_was_put_there_under_an_old_epoch_is_put_right(
    shop: State, router: FileRouter, put: Change, winter: ResolvedMix, summer: ResolvedMix
) -> None:
    before = router.path.read_bytes()
    put(summer)
    router.path.write_bytes(before)
    reconcile(shop, router, "shop", now=NOW)
    assert weights(router) == {summer.digest: 1.0}


def test_the_file_is_plain_json(folder: Path, put: Change, summer: ResolvedMix) -> None:
    put(summer)
    found = json.loads((folder / "shop.json").read_text())
    assert found["schema_version"] == 1
    assert [entry["mix"]["name"] for entry in found["line"]] == ["winter", "summer"]
