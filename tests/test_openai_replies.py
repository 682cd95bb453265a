"""What the openai engine makes of replies, and what it asks before any work."""

import json

import pytest
from openai_server import LocalServer, complete, delta, usage

from rac.engines.openai import OpenAIEngine, api_key
from rac.engines.server import Server
from rac.errors import UserError
from rac.evaluation import Conditions, Question, Task, evaluate


def numbered(count):
    return Task("jsonl", tuple(Question(f"say {i}", str(i)) for i in range(count)))


@pytest.fixture
def server():
    server = LocalServer()
    yield server
    server.stop()


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
def test_replies(case, server):
    events, expected = REPLIES[case]
    server.answer = lambda h, b: h.send_events(*events)
    (found,) = complete(server.engine(), "say 4")
    assert (found.text, found.finish_reason, found.output_tokens) == expected


def test_tokens_that_nobody_counted(server):
    server.answer = lambda h, b: h.send_events(delta("a b c d"), delta("e"), delta(finish="stop"))
    (found,) = complete(server.engine(), "say 4")
    assert (found.output_tokens, found.note) == (2, "tokens counted as pieces of the stream")
    (found,) = complete(server.engine(described="embedded"), "say 4")
    assert (found.output_tokens, found.note) == (8, "tokens counted by the tokenizer")
    reply = {"choices": [{"message": {"content": "a b c"}, "finish_reason": "stop"}]}
    server.answer = lambda h, b: h.send_json(reply)
    (found,) = complete(server.engine(extra={"stream": False}), "say 4")
    assert (found.text, found.output_tokens, found.note) == ("a b c", 3, "tokens counted as words")
    assert server.asked[-1][1]["stream"] is False and "stream_options" not in server.asked[-1][1]


def test_a_response_beyond_a_budget_is_unfinished_there(server, tmp_path):
    """Servers give no token ids, so nobody knows what stood there."""
    conditions = Conditions(max_new_tokens=40, budgets=(10, 9))
    result = evaluate(server.engine(), numbered(2), conditions, out_dir=tmp_path)
    assert result.accuracy == result.budgets[10].accuracy == 1.0
    at = result.budgets[9]
    assert (at.accuracy, at.unfinished_share, at.output_tokens) == (0.0, 1.0, 9.0)


def test_raw_prompts_and_extra_fields(server):
    server.answer = lambda h, b: h.send_json(
        {"choices": [{"text": "4", "finish_reason": "length"}], "usage": usage(2, 1)}
    )
    extra = {"top_k": 20, "seed": None}
    (found,) = complete(server.engine(raw_prompts=True, extra=extra), "say 4")
    assert (found.text, found.finish_reason, found.prompt_tokens) == ("4", "length", 2)
    path, body = server.asked[0]
    assert path == "/v1/completions" and body["prompt"] == "say 4"
    assert body["top_k"] == 20 and "seed" not in body


def test_check_before_any_work(server):
    server.engine().check()
    assert server.asked == []  # it is listed
    server.models = ["other", "names"]
    server.engine().check()
    assert [body["max_tokens"] for _, body in server.asked] == [1]  # one token tells
    server.answer = lambda h, b: h.send_json({"message": "no model m here"}, 404)
    with pytest.raises(UserError, match="--model m: .* 404 no model m here; it lists other, names"):
        server.engine().check()
    for status, message in ((401, "refuses the key .*RAC_API_KEY"), (404, "should .* end in /v1?")):
        server.status = status
        with pytest.raises(UserError, match=message):
            server.engine().check()


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


def test_a_served_pruned_model_is_described(server, tmp_path):
    folder = tmp_path / "run" / "model"
    folder.mkdir(parents=True)
    written = {"pattern": "0.5", "calibration": "rac", "solver": "sparsegpt"}
    written |= {"source_model": "dense-one", "sparsity": 0.5}
    (folder / "rac.json").write_text(json.dumps(written))
    engine = server.engine(described=str(tmp_path / "run"))
    assert engine.describe() == written | {"model": "m"}
    assert server.engine(described="org/dense-one").describe()["source_model"] == "org/dense-one"
    with pytest.raises(UserError, match="--describe ./nowhere: no such folder"):
        server.engine(described="./nowhere")
