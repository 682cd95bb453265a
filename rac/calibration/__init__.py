"""Traces become Hessians: `decode` in one pass, `replay` one decoder layer at a time."""

from rac.calibration.capture import HessianCollector
from rac.calibration.groups import Group, find_groups
from rac.calibration.replay import Replay, collect_in_one_pass
from rac.calibration.sequences import Batch, Sequence, batches, cut_to_budget, from_traces

__all__ = [
    "Batch",
    "Group",
    "HessianCollector",
    "Replay",
    "Sequence",
    "batches",
    "collect_in_one_pass",
    "cut_to_budget",
    "find_groups",
    "from_traces",
]
