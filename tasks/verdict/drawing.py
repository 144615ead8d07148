"""Which shard comes next: the headline sample in its order, extra cases of a bad slice before it.

The choice depends on the plan and on looks alone, never on what happened to end first, so that a
resumed run draws the same shards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tasks.harness.route import steps
from tasks.plan import RunPlan, Shard
from tasks.records import Case, SequentialResult
from tasks.verdict.slices import next_top_up


def slices_of_plan(plan: RunPlan) -> tuple[str, ...]:
    """Return the slices that are judged, as ``dimension=value``: those with enough planned cases.

    Only the plan says which: choosing slices by what was seen would spend alpha on the unlucky.
    """
    counts: dict[str, int] = {}
    for case in plan.cases:
        for name in slices_of_case(plan, case):
            counts[name] = counts.get(name, 0) + 1
    enough = plan.policy.slices.min_images
    return tuple(sorted(name for name, count in counts.items() if count >= enough))


def slices_of_case(plan: RunPlan, case: Case) -> tuple[str, ...]:
    """Return the slices that a case of the candidate is in; several models make several."""
    values: Mapping[str, Iterable[str]] = {
        "subtask": (case.subtask,),
        "locale": (case.locale,),
        "origin": (case.origin,),
        "model": dict.fromkeys(step.model.name for step in steps(plan.candidate, case)),
    }
    return tuple(
        f"{dimension}={value}"
        for dimension in dict.fromkeys(plan.policy.slices.dimensions)
        for value in values[dimension]
    )


class Drawer:
    """Hands out the shards of a run.

    Args:
        plan: The plan of the run.
    """

    def __init__(self, plan: RunPlan) -> None:
        self._headline = plan.shards()
        self._size = plan.policy.sampling.shard_size
        self._reserve = {case.case_id: slices_of_case(plan, case) for case in plan.reserve}
        self._count = 0

    @property
    def left(self) -> bool:
        """Whether shards of the headline sample are left."""
        return bool(self._headline)

    def tops_up(self, tests: Sequence[SequentialResult]) -> str | None:
        """Return the slice that looks bad and has extra cases left, if there is one."""
        left: dict[str, int] = {}
        for names in self._reserve.values():
            for name in names:
                left[name] = left.get(name, 0) + 1
        return next_top_up([t for t in tests if t.kind == "slice"], left)

    def next(self, tests: Sequence[SequentialResult]) -> Shard | None:
        """Return the next shard, ``None`` when there is none.

        Args:
            tests: The tests at the last look that may be used.
        """
        wanted = self.tops_up(tests)
        if wanted is not None:
            ids = [case_id for case_id, names in self._reserve.items() if wanted in names]
            taken = tuple(ids[: self._size])
            for case_id in taken:
                del self._reserve[case_id]
            shard = Shard(number=self._count, case_ids=taken, top_up=wanted)
        elif self._headline:
            shard = self._headline.pop(0).model_copy(update={"number": self._count})
        else:
            return None
        self._count += 1
        return shard
