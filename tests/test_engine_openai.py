"""`rac eval --engine openai` against a local server that misbehaves."""

import os
import signal
import threading
import time
from email.utils import formatdate

import pytest
from openai_server import LocalServer, complete, delta, echo, question, usage

from rac.errors import UserError
from rac.evaluation import Conditions, Question, Task, evaluate

CONDITIONS = Conditions(max_new_tokens=40)


def numbered(count):
    return Task("jsonl", tuple(Question(f"say {i}", str(i)) for i in range(count)))


@pytest.fixture
def server():
    server = LocalServer()
    yield server
    server.stop()


def once(failure):
    """Fails the first time that each question is asked, then echoes."""
    seen, lock = set(), threading.Lock()

    def answer(handler, body):
        with lock:
            new = question(body) not in seen
            seen.add(question(body))
        (failure if new else echo)(handler, body)

    return answer


def test_a_whole_evaluation(server, tmp_path):
    result = evaluate(server.engine(), numbered(9), CONDITIONS, out_dir=tmp_path)
    assert (result.accuracy, result.n, result.output_tokens) == (1.0, 9, 10.0)
    assert (result.engine, result.device, result.batch_size) == ("openai", "server", 4)
    assert (result.model, result.source_model, result.pattern) == ("m", "m", "dense")
    assert sorted(server.questions) == sorted(f"say {i}" for i in range(9))
    seeds = {body["seed"] for _, body in server.asked}
    assert len(seeds) == 9
    path, body = server.asked[0]
    expected = {"model": "m", "max_tokens": 40, "temperature": 0.6, "top_p": 0.95, "stream": True}
    assert path == "/v1/chat/completions" and expected.items() <= body.items()
    again = evaluate(server.engine(), numbered(9), CONDITIONS, out_dir=tmp_path)
    assert again == result and len(server.asked) == 9


def lost(handler, body):
    """The connection breaks in the middle of the stream."""
    handler.send_events(delta("hm</think>\\bo"), done=False)


def short(handler, body):
    """Fewer bytes than promised."""
    handler.send_bytes(b'{"choices": [', length=1000)
    handler.close_connection = True


PASSING = {
    "429": lambda h, b: h.send_json({"error": {"message": "slow down"}}, 429, Retry_After="0"),
    "500": lambda h, b: h.send_bytes(b"oops", 500, "text/plain"),
    "503": lambda h, b: h.send_json({"error": "worker died"}, 503),
    "lost stream": lost,
    "lost bytes": short,
    "not UTF-8": lambda h, b: h.send_events(b'data: {"choices": [{"delta": {"content": "\xff"}}]}'),
    "not JSON": lambda h, b: h.send_events(b"data: {choices"),
    "not the protocol": lambda h, b: h.send_json({"choices": "none"}),
    "no choices": lambda h, b: h.send_json({"object": "chat.completion", "choices": []}),
    "no reply": lambda h, b: h.send_bytes(b""),
    "error event": lambda h, b: h.send_events(delta("hm"), {"error": {"message": "gone"}}),
    "timeout": lambda h, b: time.sleep(0.6),
}


@pytest.mark.parametrize("failure", PASSING)
def test_what_may_pass_is_tried_again(failure, server, tmp_path):
    server.answer = once(PASSING[failure])
    engine = server.engine(timeout_s=0.3)
    result = evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path)
    assert result.accuracy == 1.0
    assert sorted(server.questions) == sorted(2 * [f"say {i}" for i in range(3)])
    assert len((tmp_path / "eval" / "jsonl.jsonl").read_text().splitlines()) == 4


LAST = {
    "429": "429 slow down",
    "500": "500 oops",
    "not UTF-8": "the reply is not valid UTF-8",
    "not JSON": "the reply is not valid JSON",
    "lost stream": "the stream ended in the middle of a reply",
    "error event": "the server reported 'gone'",
    "timeout": "timed out (ReadTimeout)",
}


@pytest.mark.parametrize("failure", LAST)
def test_what_does_not_pass_is_one_line(failure, server, tmp_path):
    server.answer = PASSING[failure]
    engine = server.engine(concurrency=1, timeout_s=0.3)
    with pytest.raises(UserError) as caught:
        evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path)
    assert str(caught.value) == (
        f"{server.url}: {LAST[failure]}, after 3 tries; 0 of 3 responses are on disk in "
        f"{tmp_path}/eval, and the same command continues"
    )
    assert server.questions == 3 * ["say 0"]


def test_a_refusal_stops_at_once_and_shows_no_key(server, tmp_path):
    def refuse(handler, body):
        message = {"error": {"message": "key sk-secret cannot use\nthis model", "type": "x"}}
        handler.send_json(message, 403)

    server.answer = refuse
    engine = server.engine(concurrency=1, key="sk-secret")
    with pytest.raises(UserError, match=r"refused a request: 403 key \*\*\* cannot use this model"):
        evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path)
    assert len(server.asked) == 1
    assert server.headers[-1]["Authorization"] == "Bearer sk-secret"
    for path in (tmp_path / "eval").iterdir():
        assert "sk-secret" not in path.read_text()


def test_a_server_that_dies_half_way(server, tmp_path):
    """What it answered is on disk, and is not asked for again when it is back."""
    dead = threading.Event()

    def answer(handler, body):
        if len(server.asked) > 5:
            dead.set()
        if dead.is_set():
            handler.close_connection = True
        else:
            echo(handler, body)

    server.answer = answer
    with pytest.raises(UserError, match="5 of 12 responses are on disk"):
        evaluate(server.engine(concurrency=1), numbered(12), CONDITIONS, out_dir=tmp_path)
    assert server.questions == [f"say {i}" for i in (0, 1, 2, 3, 4, 5, 5, 5)]
    del server.asked[:]
    server.answer = echo
    result = evaluate(server.engine(), numbered(12), CONDITIONS, out_dir=tmp_path)
    assert result.n == 12 and result.accuracy == 1.0
    assert sorted(server.questions) == sorted(f"say {i}" for i in range(5, 12))


def test_what_others_got_before_one_failed_is_kept(server, tmp_path):
    """The first question is refused once the three others are answered."""
    answered = threading.Semaphore(0)

    def answer(handler, body):
        if question(body) == "say 0":
            for _ in range(3):
                assert answered.acquire(timeout=5)
            time.sleep(0.1)
            handler.send_json({"detail": "no"}, 400)
        else:
            echo(handler, body)
            answered.release()

    server.answer = answer
    with pytest.raises(UserError, match="400 no; 3 of 4 responses are on disk"):
        evaluate(server.engine(), numbered(4), CONDITIONS, out_dir=tmp_path)


def test_an_empty_answer_is_wrong_and_counted_once(server, tmp_path):
    server.answer = lambda h, b: h.send_events(delta(finish="stop"), delta(usage=usage(5, 1)))
    result = evaluate(server.engine(), numbered(2), CONDITIONS, out_dir=tmp_path)
    assert (result.n, result.accuracy, result.output_tokens) == (2, 0.0, 1.0)
    assert len(server.asked) == 2


def test_retry_after_is_obeyed(server):
    times = []

    def busy(handler, body):
        times.append(time.monotonic())
        if len(times) == 1:
            handler.send_json({}, 429, Retry_After="1")
        elif len(times) == 2:
            handler.send_json({}, 429, Retry_After=formatdate(time.time() + 2, usegmt=True))
        else:
            echo(handler, body)

    server.answer = busy
    assert complete(server.engine(), "say 1")[0].text == "hm</think>\\boxed{1}"
    assert 1.0 <= times[1] - times[0] < 1.5 and 0.9 <= times[2] - times[1] < 2.5


def test_requests_are_in_flight_together(server):
    together = threading.Barrier(3, timeout=5)

    def answer(handler, body):
        together.wait()
        echo(handler, body)

    server.answer = answer
    assert len(complete(server.engine(concurrency=3), *[f"say {i}" for i in range(6)])) == 6


@pytest.fixture
def interruptible():
    """Ctrl-C raises, even where the tests run as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_waits_for_no_server(server, tmp_path, interruptible):
    """The second question hangs; Ctrl-C stops at once, and the first one's response is kept."""

    def answer(handler, body):
        if question(body) == "say 0":
            echo(handler, body)
        else:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)

    server.answer = answer
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        evaluate(server.engine(timeout_s=60), numbered(2), CONDITIONS, out_dir=tmp_path)
    assert time.monotonic() - start < 5
    assert len((tmp_path / "eval" / "jsonl.jsonl").read_text().splitlines()) == 2
