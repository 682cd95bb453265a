"""Who generates: the dense model decodes its own chains of thought."""

from rac.engines.base import Sampling, Trace
from rac.engines.transformers import Generation, generate

__all__ = ["Generation", "Sampling", "Trace", "generate"]
