"""The verdict: pure functions from evidence to PROMOTE, ROLLBACK or HOLD; no input, no output."""

from tasks.verdict.decide import GateState, decide
from tasks.verdict.finite import FiniteTest
from tasks.verdict.paired import PairedTest
from tasks.verdict.sequential import Decision, FailureTest

__all__ = ["Decision", "FailureTest", "FiniteTest", "GateState", "PairedTest", "decide"]
