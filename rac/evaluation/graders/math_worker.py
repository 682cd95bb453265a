r"""math-verify behind a pipe: a line of JSON in, `true` or `false` out.

A script of its own (it imports nothing of rac), so that it starts in half a second and whoever
started it can kill it. What it prints besides verdicts would corrupt the replies, so standard
output is handed to standard error once the reply channel is kept.
"""

import json
import os
import resource
import sys
from contextlib import suppress
from functools import lru_cache

MEMORY_BYTES = 4 << 30
KEPT_READINGS = 4096  # the parser is the slow part: several samples, or budgets, repeat answers


def main() -> None:
    """Answer requests until standard input closes."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    box_first = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

    @lru_cache(KEPT_READINGS)
    def read(text: str) -> list:
        return parse(text, box_first, parsing_timeout=None)

    with suppress(ValueError, OSError):  # some systems have no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = read(request["answer"])
            verdict = any(
                verify(answer, read(text), timeout_seconds=None) for text in request["texts"]
            )
        except Exception:  # sympy raises anything, MemoryError too, on hostile input
            verdict = False
        print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    main()
