"""Where the answer stands in a response, whether it is right, and the numbers made from that."""

import math
import threading
import time

import pytest

from rac.assets.tokenizer import build_tokenizer
from rac.engines.text import decode, knows_thinking
from rac.evaluation import Question
from rac.evaluation.answers import (
    final_text,
    last_boxed,
    predicted_answer,
)
from rac.evaluation.graders import ExactGrader, Grade, MathGrader
from rac.evaluation.metrics import standard_error, summarize
from rac.evaluation.responses import Response


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(512)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} rest", r"\frac{1}{2}"),
        (r"\boxed{\left\{1, \{2\}\right\}}", r"\left\{1, \{2\}\right\}"),
        (r"\boxed {x}", "x"),
        (r"\boxed{3} and a cut one \boxed{4", "3"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed{}", ""),
        (r"\boxed{1\\", None),
        ("boxed{5}", None),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


def test_predicted_answer_without_box_is_the_text():
    assert predicted_answer("\n Paris \n") == "Paris"


def test_final_text():
    assert final_text("a</think>b</think>c", thinks=True) == "b</think>c"
    assert final_text("never done", thinks=True) is None
    assert final_text("never done", thinks=False) == "never done"
    assert final_text("a</think>b", thinks=False) == "b"


def test_decode_keeps_a_special_end_of_thinking(tokenizer):
    special = build_tokenizer(512)
    special.add_special_tokens({"additional_special_tokens": ["</think>"]})
    text = "2*2 is 4</think>\n\\boxed{4}"
    for each in (tokenizer, special):
        assert decode(each, each(text + "<|end|>")["input_ids"]) == text


def test_knows_thinking(tokenizer):
    class Plain:
        chat_template = "{{ messages }}"

        def get_vocab(self):
            return {"a": 0}

    plain = Plain()
    assert knows_thinking(tokenizer)
    assert not knows_thinking(plain)
    plain.chat_template = "{{ messages }}<think></think>"
    assert knows_thinking(plain)


def test_exact_grader_strips_and_nothing_else():
    grader, question = ExactGrader(), Question("", "12")
    assert grader.grade(" 12\n", question) == Grade(True, "12")
    assert grader.grade("so \\boxed{12.0}", question) == Grade(False, "12.0")


def test_math_grader_survives_hangs_and_works_off_the_main_thread(caplog):
    cases = [
        ("0.5", r"\frac{1}{2}", True),
        ("The answer is 42.", "42", True),
        (r"9^{9^{9^{9}}}", "5", False),  # no signal interrupts it: the worker is killed
        ("x+1", "1+x", True),
        ("(1, 2)", "(1,2)", True),
        ("41", "42", False),
        ("}{", "5", False),
        ("", "5", False),
    ]
    verdicts = []
    with MathGrader(seconds=2.0) as grader:
        work = threading.Thread(
            target=lambda: verdicts.extend(
                grader.grade(p, Question("", a)).correct for p, a, _ in cases
            )
        )
        start = time.monotonic()
        work.start()
        work.join()
        assert time.monotonic() - start < 20
        assert verdicts == [right for *_, right in cases]
        assert grader.timeouts == 1
        process = grader._worker
    assert process.poll() is not None, "the worker must not outlive the grader"


def test_standard_error_by_hand():
    assert standard_error(0.8, 50) == pytest.approx(math.sqrt(0.8 * 0.2 / 50))
    assert standard_error(0.8, 50) == pytest.approx(0.05656854)
    assert standard_error(1.0, 7) == 0.0


def test_summarize_by_hand():
    def response(index):
        done = index != 0
        reason = "stop" if index > 1 else "length"
        return Response(index, "q", "a", "t", "a", index >= 5, done, reason, 3, index + 1, 1.0)

    numbers = summarize([response(i) for i in range(20)], seconds=30.0, thinks=True)
    assert numbers.n == 20
    assert numbers.accuracy == 0.75
    assert numbers.stderr == pytest.approx(0.09682458)
    assert numbers.minutes == 0.5
    assert numbers.output_tokens == 10.5
    assert numbers.output_tokens_median == 10.5
    assert numbers.output_tokens_p95 == pytest.approx(19.05)
    assert numbers.tokens_per_second == 210 / 30
    assert numbers.limit_share == 0.1
    assert numbers.unfinished_share == 0.05
    assert summarize([response(1)], 1.0, thinks=False).unfinished_share is None
