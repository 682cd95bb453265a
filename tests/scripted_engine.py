"""An engine that answers by a function of the prompt's text, and counts what it was asked."""

import json
import time

from rac.engines import Completion
from rac.evaluation import Question, Task


class ScriptedEngine:
    """Finishes in reverse order, and stops with `error` after `dies_after` responses.

    `respond(prompt, seed)` gives the text and why it ended. A token is a character; a budget's cut
    is therefore the budget.
    """

    name, device, batch_size = "scripted", "cpu", 4

    def __init__(self, respond, dies_after=None, error=KeyboardInterrupt, thinks=True):
        self.respond, self.dies_after, self.error = respond, dies_after, error
        self.thinks, self.weights, self.asked = thinks, "w", []

    def describe(self):
        dense = {"pattern": "dense", "calibration": "dense", "solver": None, "sparsity": 0.0}
        return dense | {"model": "m", "source_model": "m"}

    def settings(self, prompts):
        return {"prompts": "".join(map(str, prompts)), "weights": self.weights}

    def complete(self, requests, sampling, budgets=()):
        for count, request in enumerate(reversed(requests)):
            if count == self.dies_after:
                raise self.error
            self.asked.append((request.index, request.seed))
            text, reason = self.respond(request.prompt, request.seed)
            time.sleep(0.01)
            cuts = {b: b for b in budgets if b < len(text)}
            yield Completion(request.index, text, reason, len(request.prompt), len(text), cuts)


def numbered(count):
    return Task("jsonl", tuple(Question(f"say {i}", str(i)) for i in range(count)))


def echo(prompt, seed=0):
    """The right answer, but 3 is wrong and 4 never stops thinking."""
    number = prompt.removeprefix("say ")
    if number == "4":
        return "4 4 \\boxed{4}", "length"
    answer = "0" if number == "3" else number
    return f"so \\boxed{{9}}</think>\\boxed{{{answer}}}", "stop"


def read_lines(folder):
    return [json.loads(x) for x in (folder / "eval" / "jsonl.jsonl").read_text().splitlines()]
