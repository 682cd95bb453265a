"""Files, samples, budgets and resumption of an evaluation, with an engine that is scripted."""

import json
import threading
from dataclasses import asdict

import pytest
from scripted_engine import ScriptedEngine, echo, numbered, read_lines

from rac.errors import UserError
from rac.evaluation import Conditions, EvalResult, Question, evaluate, grading, runner
from rac.evaluation.conditions import request_seed
from rac.evaluation.graders import ExactGrader, Grade

CONDITIONS = Conditions(max_new_tokens=40)


def test_evaluate_grades_counts_and_writes(tmp_path):
    ticks = []
    engine = ScriptedEngine(echo)
    result = evaluate(engine, numbered(8), CONDITIONS, out_dir=tmp_path, progress=ticks.append)
    assert result.n == 8 and result.accuracy == 6 / 8  # 3 is wrong, 4 is unfinished
    assert result.unfinished_share == result.limit_share == 1 / 8
    assert sum(ticks) == 8
    assert (result.pattern, result.calibration, result.sparsity) == ("dense", "dense", 0.0)
    written = json.loads((tmp_path / "eval" / "jsonl.json").read_text())
    assert EvalResult(**written) == result
    header, *lines = read_lines(tmp_path)
    assert header["settings"] == result.settings
    assert [line["index"] for line in lines] == [7, 6, 5, 4, 3, 2, 1, 0]
    by_index = {line["index"]: line for line in lines}
    assert by_index[3]["predicted"] == "0" and not by_index[3]["correct"]
    assert by_index[4]["predicted"] is None and not by_index[4]["finished"]
    assert by_index[5]["text"] == "so \\boxed{9}</think>\\boxed{5}"
    assert result.output_tokens == pytest.approx(sum(len(line["text"]) for line in lines) / 8)
    assert sorted(p.name for p in (tmp_path / "eval").iterdir()) == ["jsonl.json", "jsonl.jsonl"]


def test_a_killed_evaluation_generates_nothing_twice(tmp_path):
    first, second = ScriptedEngine(echo, dies_after=5), ScriptedEngine(echo)
    with pytest.raises(KeyboardInterrupt):
        evaluate(first, numbered(8), CONDITIONS, out_dir=tmp_path)
    path = tmp_path / "eval" / "jsonl.jsonl"
    with open(path, "ab") as file:  # killed while it wrote another line
        file.write(b'{"index": 2, "prompt": "say')
    before = max(line["seconds"] for line in read_lines_whole(path))
    result = evaluate(second, numbered(8), CONDITIONS, out_dir=tmp_path)
    assert len(first.asked) == 5 and len(second.asked) == 3
    assert not set(first.asked) & set(second.asked)
    assert result.n == 8 and result.accuracy == 6 / 8
    assert result.minutes * 60 > before + 0.03  # parts add up: 3 more responses of 10 ms
    assert len(path.read_text().splitlines()) == 9
    third = ScriptedEngine(echo)
    assert evaluate(third, numbered(8), CONDITIONS, out_dir=tmp_path) == result
    assert third.asked == []
    third.batch_size = 2  # may change
    assert evaluate(third, numbered(8), CONDITIONS, out_dir=tmp_path).n == 8 and third.asked == []


def read_lines_whole(path):
    return [json.loads(x) for x in path.read_text().split("\n")[1:-1]]


class StuckGrader(ExactGrader):
    """Grades nothing until it is told to; then fails."""

    go = threading.Event()

    def grade(self, final, question):
        self.go.wait(10)
        raise UserError("the grader is broken")


def test_a_response_that_was_not_graded_is_not_asked_for_again(tmp_path, monkeypatch):
    """The engine is paid for all responses, then grading stops: they are on disk."""
    monkeypatch.setattr(runner, "make_grader", lambda name: StuckGrader())

    def respond(prompt, seed):
        if prompt == "say 0":  # the last one asked
            StuckGrader.go.set()
        return echo(prompt)

    first, second = ScriptedEngine(respond), ScriptedEngine(echo)
    with pytest.raises(UserError, match="the grader is broken"):
        evaluate(first, numbered(4), CONDITIONS, out_dir=tmp_path)
    assert len(first.asked) == 4 and len(read_lines(tmp_path)) == 1
    monkeypatch.undo()
    result = evaluate(second, numbered(4), CONDITIONS, out_dir=tmp_path)
    assert second.asked == [] and result.n == 4 and result.accuracy == 3 / 4


def test_an_engine_that_cannot_go_on_says_what_is_on_disk(tmp_path):
    engine = ScriptedEngine(echo, dies_after=3, error=UserError("the server is gone"))
    with pytest.raises(UserError) as caught:
        evaluate(engine, numbered(8), CONDITIONS, out_dir=tmp_path)
    assert str(caught.value) == (
        f"the server is gone; 3 of 8 responses are on disk in {tmp_path}/eval, "
        "and the same command continues"
    )
    assert not (tmp_path / "eval" / "jsonl.json").exists()
    assert evaluate(ScriptedEngine(echo), numbered(8), CONDITIONS, out_dir=tmp_path).n == 8


def test_samples_have_seeds_of_their_own_and_continue(tmp_path):
    """Question i is answered right by the samples whose number is at most i."""
    numbers = {request_seed(5, number): number for number in range(12)}

    def respond(prompt, seed):
        index, sample = int(prompt.removeprefix("say ")), numbers[seed] // 4
        assert numbers[seed] % 4 == index
        return f"</think>{index if sample <= index else 'x'}", "stop"

    conditions = Conditions(max_new_tokens=40, samples=3, seed=5)
    with pytest.raises(KeyboardInterrupt):
        evaluate(ScriptedEngine(respond, 7), numbered(4), conditions, out_dir=tmp_path)
    second = ScriptedEngine(respond)
    result = evaluate(second, numbered(4), conditions, out_dir=tmp_path)
    assert len(second.asked) == 5
    keys = [(line["index"], line["sample"]) for line in read_lines(tmp_path)[1:]]
    assert sorted(keys) == [(i, s) for i in range(4) for s in range(3)]
    assert (result.n, result.samples) == (4, 3)
    assert result.accuracy == pytest.approx((1 + 2 + 3 + 3) / 12)
    # by hand: pass@2 of c = 1, 2, 3, 3 of 3: 1 - C(3 - c, 2) / C(3, 2)
    assert result.pass_at == pytest.approx({1: 9 / 12, 2: (2 / 3 + 1 + 1 + 1) / 4, 3: 1.0})


def test_budgets_judge_the_same_responses_cut(tmp_path):
    """`</think>` ends at 8 characters, the answer at 9; question 2 rambles for 30 more."""

    def respond(prompt, seed):
        index = int(prompt.removeprefix("say "))
        return "</think>" + str(index) + ("!" * 30 if index == 2 else ""), "stop"

    conditions = Conditions(max_new_tokens=40, budgets=(8, 9, 39))
    engine = ScriptedEngine(respond)
    result = evaluate(engine, numbered(3), conditions, out_dir=tmp_path)
    assert result.accuracy == pytest.approx(2 / 3) and result.limit_share == 0
    assert list(result.budgets) == [39, 9, 8]
    at = result.budgets[9]  # cut there, the third is right
    assert (at.accuracy, at.output_tokens, at.unfinished_share) == (1.0, 9.0, 0.0)
    assert at.limit_share == pytest.approx(1 / 3)
    at = result.budgets[8]  # the answer is cut off
    assert (at.accuracy, at.limit_share, at.unfinished_share) == (0.0, 1.0, 0.0)
    at = result.budgets[39]  # as long as the longest: not cut
    assert (at.accuracy, at.limit_share) == (result.accuracy, 0.0)
    written = json.loads((tmp_path / "eval" / "jsonl.json").read_text())
    assert EvalResult(**written) == result
    again = evaluate(ScriptedEngine(respond), numbered(3), conditions, out_dir=tmp_path)
    assert again == result


class SlowGrader(ExactGrader):
    """Two threads; the first to come waits for the second."""

    workers = 2
    together = threading.Barrier(2, timeout=10)

    def grade(self, final, question):
        self.together.wait()
        return super().grade(final, question)


def test_grades_in_threads_change_nothing(tmp_path, monkeypatch):
    plain = evaluate(ScriptedEngine(echo), numbered(4), CONDITIONS, out_dir=tmp_path / "a")
    monkeypatch.setattr(runner, "make_grader", lambda name: SlowGrader())
    slow = evaluate(ScriptedEngine(echo), numbered(4), CONDITIONS, out_dir=tmp_path / "b")
    timed = {"minutes": 0, "tokens_per_second": 0}
    assert asdict(slow) | timed == asdict(plain) | timed


def test_an_unfinished_response_costs_no_grading(monkeypatch):
    class Refusing(ExactGrader):
        def grade(self, final, question):
            raise AssertionError("graded")

    wrong = (Grade(False, None), False)
    assert grading.judge(Refusing(), Question("", ""), "so 4", True, "length") == wrong
    assert grading.judge(Refusing(), Question("", ""), "</think>4", True, "error") == wrong
