"""Run code that a model wrote so that it harms nothing and cannot fake its result.

Every program is a process of its own, bound by what the kernel offers, layer over layer: seccomp
(no processes, sockets, signals to others), Landlock (only Python's files can be read), namespaces
(no network, nothing else to see, all read-only but a small folder in memory), a user of its own
when root starts it, and resource limits. What it prints, or the values it returns, are compared
outside of its process.
"""

from rac.evaluation.sandbox.jail import Jail, Limits, describe_layers
from rac.evaluation.sandbox.runs import Outcome, Sandbox, Verdict

__all__ = ["Jail", "Limits", "Outcome", "Sandbox", "Verdict", "describe_layers"]
