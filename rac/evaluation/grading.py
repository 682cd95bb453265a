"""Grading beside generation: a verdict on every completion, and at every budget of tokens."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from threading import Lock

from rac.engines import Completion
from rac.evaluation.answers import final_text
from rac.evaluation.graders import Grade, Grader
from rac.evaluation.responses import Cut, Log, Response, Ungraded
from rac.evaluation.tasks import Question, Task


def judge(
    grader: Grader, question: Question, text: str, thinks: bool | None, reason: str
) -> tuple[Grade, bool]:
    """The grade of a response's final text, and whether it has one; unfinished is wrong."""
    final = final_text(text, thinks, reason)
    return (Grade(False, None), False) if final is None else (grader.grade(final, question), True)


def grade_response(
    grader: Grader, question: Question, ungraded: Ungraded, thinks: bool | None
) -> Response:
    """Grade one response, whole and cut at its budgets."""
    completion = ungraded.completion
    reason = completion.finish_reason
    grade, finished = judge(grader, question, completion.text, thinks, reason)
    return Response(
        index=ungraded.index,
        prompt=question.prompt,
        answer=question.answer,
        text=completion.text,
        predicted=grade.predicted,
        correct=grade.correct,
        finished=finished,
        finish_reason=reason,
        prompt_tokens=completion.prompt_tokens,
        output_tokens=completion.output_tokens,
        seconds=ungraded.seconds,
        sample=ungraded.sample,
        scores=grade.scores,
        note=grade.note or completion.note,
        budgets={
            budget: _cut(grader, question, completion, position, thinks)
            for budget, position in completion.cuts.items()
        },
    )


def _cut(
    grader: Grader, question: Question, completion: Completion, position: int, thinks: bool | None
) -> Cut:
    if position < 0:  # nobody knows what the first tokens said
        return Cut(False, None, False)
    text = completion.text[:position]
    grade, finished = judge(grader, question, text, thinks, "length")
    return Cut(grade.correct, grade.predicted, finished)


class GradingPool:
    """Grades in threads beside the engine and writes each response as its grade is known.

    As many threads as the grader allows (its `workers`, one where it does not say). The order in
    which grades become known changes nothing in the result. On an error or an interrupt grades in
    work are finished, and those not begun are left to the next run.
    """

    def __init__(
        self,
        grader: Grader,
        task: Task,
        log: Log[Response],
        thinks: bool | None,
        clock: Callable[[], float],
        report: Callable[[int], None],
    ) -> None:
        self.grader, self.task, self.log, self.thinks = grader, task, log, thinks
        self.clock, self.report = clock, report
        self._lock = Lock()
        self._futures: deque[Future[None]] = deque()
        self._threads = ThreadPoolExecutor(getattr(grader, "workers", 1), "grading")

    def submit(self, ungraded: Ungraded) -> None:
        """Grade and write it soon; raises what an earlier one met with."""
        self._futures.append(self._threads.submit(self._grade, ungraded))
        while self._futures and self._futures[0].done():
            self._futures.popleft().result()

    def _grade(self, ungraded: Ungraded) -> None:
        question = self.task.questions[ungraded.index]
        response = grade_response(self.grader, question, ungraded, self.thinks)
        with self._lock:
            self.log.append(replace(response, seconds=self.clock()))
            self.report(1)

    def __enter__(self) -> "GradingPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            while kind is None and self._futures:
                self._futures.popleft().result()
        finally:
            self._threads.shutdown(cancel_futures=True)
