"""Turns: the order, one in a turn of the loop, never while bytes come, never for ever."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tasks.providers import turns as module
from tasks.providers.turns import Turns


def test_those_that_wait_go_on_in_order_with_a_turn_of_the_loop_between() -> None:
    seen: list[str] = []

    async def main() -> None:
        turns = Turns()

        async def work(name: str) -> None:
            await turns.turn()
            seen.append(name)
            # What is ready now runs before the next one works.
            asyncio.get_running_loop().call_soon(seen.append, f"after {name}")

        await asyncio.gather(*(work(name) for name in "abc"))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert seen == ["a", "after a", "b", "after b", "c", "after c"]


def test_while_bytes_come_nobody_works() -> None:
    async def main() -> list[str]:
        turns, seen = Turns(), []
        loop = asyncio.get_running_loop()

        def bytes_come(more: int) -> None:
            turns.came()
            seen.append("bytes")
            if more:
                loop.call_soon(bytes_come, more - 1)

        async def work() -> None:
            await turns.turn()
            seen.append("work")

        bytes_come(4)
        await work()
        return seen

    assert asyncio.run(main()) == ["bytes"] * 5 + ["work"]


def test_bytes_without_end_hold_work_up_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAIT_S", 0.001)

    async def main() -> None:
        turns = Turns()

        async def drip() -> None:
            while True:
                turns.came()
                await asyncio.sleep(0)

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(60):
            await turns.turn()
        dripping.cancel()
        with suppress(asyncio.CancelledError):
            await dripping

    asyncio.run(main())


def test_who_is_cancelled_holds_up_nobody() -> None:
    async def main() -> list[int]:
        turns, seen = Turns(), []

        async def work(number: int) -> None:
            await turns.turn()
            seen.append(number)

        tasks = [asyncio.create_task(work(n)) for n in range(5)]
        await asyncio.sleep(0)
        for number in (0, 1, 3):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # All are gone: the next one does not wait for anything.
        await work(5)
        return seen

    assert asyncio.run(main()) == [2, 4, 5]
