"""What an OpenAI-compatible server replies: whole, or as a stream of events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx


class Passing(Exception):
    """An error that may pass: the request is sent again, after `after_s` seconds if given."""

    def __init__(self, message: str, after_s: float | None = None) -> None:
        super().__init__(message)
        self.after_s = after_s


@dataclass
class Reply:
    """What a server said; tokens are None where it did not count them.

    `pieces` is how many parts of the text came one by one, 0 when it came whole.
    """

    reasoning: str = ""
    content: str = ""
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    pieces: int = 0

    def add(self, event: dict[str, Any]) -> None:
        """Take in a whole reply, or one event of a stream.

        Raises:
            Passing: it is an error, or not what the protocol says.
        """
        if event.get("error"):
            raise Passing(f"the server reported {server_message(event)!r}")
        try:
            for choice in event["choices"]:
                part = choice.get("delta") or choice.get("message") or {}
                text = part.get("content") or choice.get("text") or ""
                thought = part.get("reasoning_content") or part.get("reasoning") or ""
                self.content, self.reasoning = self.content + text, self.reasoning + thought
                self.pieces += bool(text or thought)
                self.finish_reason = choice.get("finish_reason") or self.finish_reason
            if usage := event.get("usage"):
                self.prompt_tokens = int(usage["prompt_tokens"])
                self.output_tokens = int(usage["completion_tokens"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise Passing("the reply is not what the protocol says") from error


def read_reply(response: httpx.Response) -> Reply:
    """Read a reply to its end.

    Raises:
        Passing: it is cut short, damaged, or reports an error.
    """
    streamed = "event-stream" in response.headers.get("content-type", "")
    return _read_stream(response) if streamed else _read_whole(response)


def _read_whole(response: httpx.Response) -> Reply:
    reply = Reply()
    reply.add(_parse(response.read()))
    if reply.finish_reason is None:
        raise Passing("the reply has no finish_reason")
    reply.pieces = 0
    return reply


def _read_stream(response: httpx.Response) -> Reply:
    """Join the events of a stream (text/event-stream, `data:` lines, `[DONE]` at the end)."""
    reply, done = Reply(), False
    for line in _lines(response):
        if line.startswith(b"data:"):
            data = line[5:].strip()
            done = done or data == b"[DONE]"
            if data and data != b"[DONE]":
                reply.add(_parse(data))
    if reply.finish_reason is None and not done:
        raise Passing("the stream ended in the middle of a reply")
    return reply


def _lines(response: httpx.Response) -> Iterator[bytes]:
    rest = b""
    for block in response.iter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
    yield rest


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Passing("the reply is not valid UTF-8") from error
    except ValueError as error:
        raise Passing("the reply is not valid JSON") from error
    if not isinstance(value, dict):
        raise Passing("the reply is not what the protocol says")
    return value


def server_message(body: Any) -> str:
    """The server's own words on an error, wherever its JSON has them."""
    while isinstance(body, dict):
        body = next((body[k] for k in ("error", "message", "detail") if body.get(k)), "")
    return body if isinstance(body, str) else json.dumps(body)
