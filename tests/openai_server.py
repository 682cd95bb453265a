"""A local server that speaks the protocol, and misbehaves as a test asks of it."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rac.engines import Request, Sampling
from rac.engines.openai import OpenAIEngine
from rac.engines.server import Server


class Handler(BaseHTTPRequestHandler):
    """GET /v1/models, and POST of everything else to `server.answer(handler, body)`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.headers.append(dict(self.headers))
        models = [{"id": name} for name in self.server.models]
        self.send_json({"data": models} if self.path == "/v1/models" else {}, self.server.status)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body))
            self.server.headers.append(dict(self.headers))
        self.server.answer(self, body)

    def send_json(self, value, status=200, **headers):
        self.send_bytes(json.dumps(value).encode(), status, **headers)

    def send_bytes(self, data, status=200, kind="application/json", length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def send_events(self, *events, done=True):
        """A stream that ends with the connection."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            line = event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode()
            self.wfile.write(line + b"\n\n")
            self.wfile.flush()
        if done:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def delta(content=None, finish=None, usage=None, **more):
    """One event of a streamed chat completion."""
    event = {"choices": [{"index": 0, "delta": {"content": content, **more}}]}
    event["choices"][0]["finish_reason"] = finish
    return event | ({"usage": usage} if usage else {})


def usage(prompt, output):
    return {"prompt_tokens": prompt, "completion_tokens": output}


def question(body):
    """The text that was asked."""
    return body["messages"][-1]["content"] if "messages" in body else body["prompt"]


def echo(handler, body):
    """The number that was asked for, in a box after a thought of ten tokens."""
    number = question(body).removeprefix("say ")
    text = f"\\boxed{{{number}}}"
    handler.send_events(
        delta("hm</think>"), delta(text), delta(finish="stop"), delta(usage=usage(5, 10))
    )


def complete(engine, *prompts, budgets=()):
    """What `engine` answers, in the order of the prompts."""
    requests = [Request(i, prompt, 7 + i) for i, prompt in enumerate(prompts)]
    return sorted(engine.complete(requests, Sampling(40), budgets), key=lambda c: c.index)


class LocalServer(ThreadingHTTPServer):
    """Runs in a thread; `answer` may be exchanged at any time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer=echo):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer, self.models, self.status = answer, ["m"], 200
        self.asked, self.headers, self.lock = [], [], threading.Lock()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def questions(self):
        return [question(body) for _, body in self.asked]

    def engine(self, concurrency=4, key=None, retries=2, timeout_s=5.0, **options):
        """An engine that asks this server, and is quick to try again."""
        limits = {"retries": retries, "timeout_s": timeout_s, "backoff_s": 0.01}
        at = Server(self.url, key, connections=concurrency, **limits)
        return OpenAIEngine("m", at, concurrency=concurrency, **options)

    def handle_error(self, request, client_address):
        pass  # a client that went away

    def stop(self):
        self.shutdown()
        self.server_close()
