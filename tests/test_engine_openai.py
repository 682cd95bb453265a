"""`rac eval --engine openai` against a local server that misbehaves."""

import json
import os
import signal
import threading
import time
from email.utils import formatdate

import pytest
from openai_server import LocalServer, delta, echo, question, usage

from rac.engines import Request, Sampling
from rac.engines.openai import OpenAIEngine, api_key
from rac.engines.server import Server
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


@pytest.fixture
def open_engine(server):
    def make(concurrency=4, key=None, retries=2, timeout_s=5.0, **options):
        limits = {"retries": retries, "timeout_s": timeout_s, "backoff_s": 0.01}
        at = Server(server.url, key, connections=concurrency, **limits)
        return OpenAIEngine("m", at, concurrency=concurrency, **options)

    return make


def complete(engine, *prompts, budgets=()):
    requests = [Request(i, prompt, 7 + i) for i, prompt in enumerate(prompts)]
    return sorted(engine.complete(requests, Sampling(40), budgets), key=lambda c: c.index)


def once(failure):
    """Fails the first time that each question is asked, then echoes."""
    seen, lock = set(), threading.Lock()

    def answer(handler, body):
        with lock:
            new = question(body) not in seen
            seen.add(question(body))
        (failure if new else echo)(handler, body)

    return answer


def test_a_whole_evaluation(server, open_engine, tmp_path):
    result = evaluate(open_engine(), numbered(9), CONDITIONS, out_dir=tmp_path)
    assert (result.accuracy, result.n, result.output_tokens) == (1.0, 9, 10.0)
    assert (result.engine, result.device, result.batch_size) == ("openai", "server", 4)
    assert (result.model, result.source_model, result.pattern) == ("m", "m", "dense")
    assert sorted(server.questions) == sorted(f"say {i}" for i in range(9))
    seeds = {body["seed"] for _, body in server.asked}
    assert len(seeds) == 9
    path, body = server.asked[0]
    expected = {"model": "m", "max_tokens": 40, "temperature": 0.6, "top_p": 0.95, "stream": True}
    assert path == "/v1/chat/completions" and expected.items() <= body.items()
    again = evaluate(open_engine(), numbered(9), CONDITIONS, out_dir=tmp_path)
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
def test_what_may_pass_is_tried_again(failure, server, open_engine, tmp_path):
    server.answer = once(PASSING[failure])
    engine = open_engine(timeout_s=0.3)
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
def test_what_does_not_pass_is_one_line(failure, server, open_engine, tmp_path):
    server.answer = PASSING[failure]
    engine = open_engine(concurrency=1, timeout_s=0.3)
    with pytest.raises(UserError) as caught:
        evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path)
    assert str(caught.value) == (
        f"{server.url}: {LAST[failure]}, after 3 tries; 0 of 3 responses are on disk in "
        f"{tmp_path}/eval, and the same command continues"
    )
    assert server.questions == 3 * ["say 0"]


def test_a_refusal_stops_at_once_and_shows_no_key(server, open_engine, tmp_path):
    def refuse(handler, body):
        message = {"error": {"message": "key sk-secret cannot use\nthis model", "type": "x"}}
        handler.send_json(message, 403)

    server.answer = refuse
    engine = open_engine(concurrency=1, key="sk-secret")
    with pytest.raises(UserError, match=r"refused a request: 403 key \*\*\* cannot use this model"):
        evaluate(engine, numbered(3), CONDITIONS, out_dir=tmp_path)
    assert len(server.asked) == 1
    assert server.headers[-1]["Authorization"] == "Bearer sk-secret"
    for path in (tmp_path / "eval").iterdir():
        assert "sk-secret" not in path.read_text()


def test_a_server_that_dies_half_way(server, open_engine, tmp_path):
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
        evaluate(open_engine(concurrency=1), numbered(12), CONDITIONS, out_dir=tmp_path)
    assert server.questions == [f"say {i}" for i in (0, 1, 2, 3, 4, 5, 5, 5)]
    del server.asked[:]
    server.answer = echo
    result = evaluate(open_engine(), numbered(12), CONDITIONS, out_dir=tmp_path)
    assert result.n == 12 and result.accuracy == 1.0
    assert sorted(server.questions) == sorted(f"say {i}" for i in range(5, 12))


def test_what_others_got_before_one_failed_is_kept(server, open_engine, tmp_path):
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
        evaluate(open_engine(), numbered(4), CONDITIONS, out_dir=tmp_path)


def test_an_empty_answer_is_wrong_and_counted_once(server, open_engine, tmp_path):
    server.answer = lambda h, b: h.send_events(delta(finish="stop"), delta(usage=usage(5, 1)))
    result = evaluate(open_engine(), numbered(2), CONDITIONS, out_dir=tmp_path)
    assert (result.n, result.accuracy, result.output_tokens) == (2, 0.0, 1.0)
    assert len(server.asked) == 2


def test_retry_after_is_obeyed(server, open_engine):
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
    assert complete(open_engine(), "say 1")[0].text == "hm</think>\\boxed{1}"
    assert 1.0 <= times[1] - times[0] < 1.5 and 0.9 <= times[2] - times[1] < 2.5


REPLIES = {
    # the events, then text, finish_reason, tokens
    "thoughts apart": (
        [delta(reasoning_content="so "), delta(reasoning_content="4"), delta("4", "stop")],
        ("so 4</think>4", "stop", 3),
    ),
    "as vLLM names them": (
        [delta(reasoning="so"), delta("4", "stop", usage(1, 9))],
        ("so</think>4", "stop", 9),
    ),
    "thoughts alone": (
        [delta(reasoning_content="so"), delta(finish="length", usage=usage(1, 40))],
        ("<think>so", "length", 40),
    ),
    "keep-alive": ([b": keep-alive", delta("4", "stop", usage(1, 2))], ("4", "stop", 2)),
    "filtered": ([delta("4", "content_filter", usage(1, 2))], ("4", "error", 2)),
}


@pytest.mark.parametrize("case", REPLIES)
def test_replies(case, server, open_engine):
    events, expected = REPLIES[case]
    server.answer = lambda h, b: h.send_events(*events)
    (found,) = complete(open_engine(), "say 4")
    assert (found.text, found.finish_reason, found.output_tokens) == expected


def test_tokens_that_nobody_counted(server, open_engine):
    server.answer = lambda h, b: h.send_events(delta("a b c d"), delta("e"), delta(finish="stop"))
    (found,) = complete(open_engine(), "say 4")
    assert (found.output_tokens, found.note) == (2, "tokens counted as pieces of the stream")
    (found,) = complete(open_engine(described="embedded"), "say 4")
    assert (found.output_tokens, found.note) == (8, "tokens counted by the tokenizer")
    reply = {"choices": [{"message": {"content": "a b c"}, "finish_reason": "stop"}]}
    server.answer = lambda h, b: h.send_json(reply)
    (found,) = complete(open_engine(extra={"stream": False}), "say 4")
    assert (found.text, found.output_tokens, found.note) == ("a b c", 3, "tokens counted as words")
    assert server.asked[-1][1]["stream"] is False and "stream_options" not in server.asked[-1][1]


def test_a_response_beyond_a_budget_is_unfinished_there(server, open_engine, tmp_path):
    """Servers give no token ids, so nobody knows what stood there."""
    conditions = Conditions(max_new_tokens=40, budgets=(10, 9))
    result = evaluate(open_engine(), numbered(2), conditions, out_dir=tmp_path)
    assert result.accuracy == result.budgets[10].accuracy == 1.0
    at = result.budgets[9]
    assert (at.accuracy, at.unfinished_share, at.output_tokens) == (0.0, 1.0, 9.0)


def test_raw_prompts_and_extra_fields(server, open_engine):
    server.answer = lambda h, b: h.send_json(
        {"choices": [{"text": "4", "finish_reason": "length"}], "usage": usage(2, 1)}
    )
    extra = {"top_k": 20, "seed": None}
    (found,) = complete(open_engine(raw_prompts=True, extra=extra), "say 4")
    assert (found.text, found.finish_reason, found.prompt_tokens) == ("4", "length", 2)
    path, body = server.asked[0]
    assert path == "/v1/completions" and body["prompt"] == "say 4"
    assert body["top_k"] == 20 and "seed" not in body


def test_requests_are_in_flight_together(server, open_engine):
    together = threading.Barrier(3, timeout=5)

    def answer(handler, body):
        together.wait()
        echo(handler, body)

    server.answer = answer
    assert len(complete(open_engine(concurrency=3), *[f"say {i}" for i in range(6)])) == 6


def test_an_interrupt_waits_for_no_server(server, open_engine, tmp_path):
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
        evaluate(open_engine(timeout_s=60), numbered(2), CONDITIONS, out_dir=tmp_path)
    assert time.monotonic() - start < 5
    assert len((tmp_path / "eval" / "jsonl.jsonl").read_text().splitlines()) == 2


def test_check_before_any_work(server, open_engine):
    open_engine().check()
    assert server.asked == []  # it is listed
    server.models = ["other", "names"]
    open_engine().check()
    assert [body["max_tokens"] for _, body in server.asked] == [1]  # one token tells
    server.answer = lambda h, b: h.send_json({"message": "no model m here"}, 404)
    with pytest.raises(UserError, match="--model m: .* 404 no model m here; it lists other, names"):
        open_engine().check()
    for status, message in ((401, "refuses the key .*RAC_API_KEY"), (404, "should .* end in /v1?")):
        server.status = status
        with pytest.raises(UserError, match=message):
            open_engine().check()


def test_no_server_and_no_address():
    with pytest.raises(UserError, match="no server answers at http://127.0.0.1:9/v1 .*--base-url"):
        OpenAIEngine("m", Server("http://user:secret@127.0.0.1:9/v1")).check()
    for address in ("localhost:8000/v1", "ftp://host/v1", "http:///v1", "http://h:port"):
        with pytest.raises(UserError, match="--base-url"):
            Server(address)


def test_keys_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("RAC_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert api_key() is None
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    assert api_key() == "a"
    monkeypatch.setenv("RAC_API_KEY", "b")
    assert api_key() == "b"


def test_a_served_pruned_model_is_described(server, open_engine, tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    written = {"pattern": "0.5", "calibration": "rac", "solver": "sparsegpt"}
    written |= {"source_model": "dense-one", "sparsity": 0.5}
    (folder / "rac.json").write_text(json.dumps(written))
    engine = open_engine(described=str(tmp_path / "run"))
    assert engine.describe() == written | {"model": "m"}
    assert open_engine(described="org/dense-one").describe()["source_model"] == "org/dense-one"
    with pytest.raises(UserError, match="--describe ./nowhere: no such folder"):
        open_engine(described="./nowhere")
