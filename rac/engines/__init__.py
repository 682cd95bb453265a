"""Who generates: our own decoding, vLLM, or a server."""

from rac.engines.base import Completion, Engine, Messages, Request, Sampling, Trace
from rac.engines.transformers import Generation, generate

__all__ = [
    "Completion",
    "Engine",
    "Generation",
    "Messages",
    "Request",
    "Sampling",
    "Trace",
    "generate",
]
