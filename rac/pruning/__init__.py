"""Hessians become sparse weights."""

from rac.pruning.scope import select_linears
from rac.pruning.solve import LayerResult, solve_group

__all__ = ["LayerResult", "select_linears", "solve_group"]
