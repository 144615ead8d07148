"""The verdict: pure functions from evidence to PROMOTE, ROLLBACK or HOLD; no input, no output."""

from tasks.verdict.bounds import Decision, FailureTest
from tasks.verdict.decide import GateState, decide

__all__ = ["Decision", "FailureTest", "GateState", "decide"]
