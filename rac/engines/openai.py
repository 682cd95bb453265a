"""Any OpenAI-compatible server as an engine: vLLM, SGLang, llama.cpp, a provider's API."""

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rac.engines.base import Completion, Messages, Request, Sampling
from rac.engines.describe import (
    describe_checkpoint,
    described_folder,
    digest_prompts,
    fingerprint_files,
)
from rac.engines.server import Reply, Server, Stopped
from rac.engines.text import END_THINK, knows_thinking
from rac.errors import UserError
from rac.prompts import render

logger = logging.getLogger(__name__)

KEYS = ("RAC_API_KEY", "OPENAI_API_KEY")


def api_key() -> str | None:
    """The key in the environment: RAC_API_KEY, else OPENAI_API_KEY."""
    return next((os.environ[name] for name in KEYS if os.environ.get(name)), None)


class OpenAIEngine:
    """Sends `concurrency` requests at once, streamed unless `extra` says otherwise.

    Args:
        model: the name that the server knows it by.
        server: where it is.
        concurrency: requests in flight.
        raw_prompts: ask `/completions` with the prompt as it is, not `/chat/completions`.
        described: the folder (or run) of the model that is served, for its pattern, calibration and
            tokenizer; or a name for a dense model. None: the served name.
        extra: fields of every request's body; None removes one.

    Raises:
        UserError: `described` is a path where no folder is.
    """

    name = "openai"
    device = "server"

    def __init__(
        self,
        model: str,
        server: Server,
        *,
        concurrency: int = 32,
        raw_prompts: bool = False,
        described: str | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.server, self.batch_size = model, server, concurrency
        self.raw_prompts, self.extra = raw_prompts, extra or {}
        self.folder, self.label = described_folder(described), described or model
        self.tokenizer = _tokenizer(self.folder)
        self.thinks = knows_thinking(self.tokenizer) if self.tokenizer else None

    def check(self) -> None:
        """Ask the server whether it is there and knows the model, before any work.

        One that does not list the model is asked for a single token.

        Raises:
            UserError: it is not there, or refuses.
        """
        names = self.server.models()
        if self.model in names:
            return
        try:
            self.server.ask(*self._body(Request(0, "1"), Sampling(1, 0.0)))
        except UserError as error:
            listed = f"; it lists {', '.join(names[:5])}" if names else ""
            raise UserError(f"--model {self.model}: {error}{listed}") from error

    def describe(self) -> dict[str, Any]:
        """What was told about the served model; `model` is its name on the server."""
        found = describe_checkpoint(str(self.folder or ""))
        source = found["source_model"] or self.label
        return found | {"model": self.model, "source_model": source}

    def settings(self, prompts: Sequence[str | Messages]) -> dict[str, Any]:
        """Hashes of the prompts and of the described weights; the served name.

        With a described tokenizer the prompts are hashed as token ids, as the other engines do.
        """
        if self.tokenizer is not None:
            prompts = [render(self.tokenizer, prompt, self.raw_prompts) for prompt in prompts]
        return {
            "raw_prompts": self.raw_prompts,
            "prompts": digest_prompts(prompts),
            "weights": fingerprint_files(self.folder) if self.folder else self.model,
            "served_model": self.model,
            "engine_args": self.extra,
            "device": self.device,
        }

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, budgets: Sequence[int] = ()
    ) -> Iterator[Completion]:
        """Answer the requests as the server does.

        When one fails for good, those that are done are given first; the rest is not sent.
        """
        waiting, done = deque(requests), queue.SimpleQueue[Completion | Exception]()
        halt = threading.Event()

        def work() -> None:
            while not halt.is_set():
                try:
                    request = waiting.popleft()
                except IndexError:
                    return
                try:
                    reply = self.server.ask(*self._body(request, sampling), halt)
                    done.put(self._completion(request, reply, budgets))
                except Stopped:
                    return
                except Exception as error:
                    done.put(error)
                    halt.set()

        for _ in range(min(self.batch_size, len(requests))):
            threading.Thread(target=work, daemon=True).start()
        try:
            for _ in requests:
                result = done.get()
                if isinstance(result, Exception):
                    yield from _completions(done)
                    raise result
                yield result
        except BaseException:  # also when the caller stops asking
            halt.set()
            self.server.drop()
            raise

    def _body(self, request: Request, sampling: Sampling) -> tuple[str, dict[str, Any]]:
        """The path and the body of one request."""
        prompt = request.prompt
        if self.raw_prompts:
            text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
            asked: dict[str, Any] = {"prompt": text}
        else:
            text = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            asked = {"messages": text}
        body = asked | {
            "model": self.model,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.extra,
        }
        if not body["stream"]:
            body.pop("stream_options")
        path = "/completions" if self.raw_prompts else "/chat/completions"
        return path, {name: value for name, value in body.items() if value is not None}

    def _completion(self, request: Request, reply: Reply, budgets: Sequence[int]) -> Completion:
        text = _join(reply)
        tokens, note = reply.output_tokens, ""
        if tokens is None:
            tokens, note = self._count(text, reply)
        reason = {"length": "length", "content_filter": "error"}.get(reply.finish_reason, "stop")
        return Completion(
            index=request.index,
            text=text,
            finish_reason=reason,
            prompt_tokens=reply.prompt_tokens or 0,
            output_tokens=tokens,
            cuts={budget: -1 for budget in budgets if tokens > budget},
            note=note,
        )

    def _count(self, text: str, reply: Reply) -> tuple[int, str]:
        """Tokens of a reply whose server did not count them, and how they were counted."""
        if self.tokenizer is not None:
            count = len(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            return count, "tokens counted by the tokenizer"
        if reply.pieces:
            return reply.pieces, "tokens counted as pieces of the stream"
        return len(text.split()), "tokens counted as words"


def _completions(done: queue.SimpleQueue) -> Iterator[Completion]:
    """Those that wait in the queue."""
    while not done.empty():
        result = done.get()
        if isinstance(result, Completion):
            yield result


def _join(reply: Reply) -> str:
    """The text as the model wrote it: servers may give the thoughts in a field of their own."""
    if not reply.reasoning:
        return reply.content
    if not reply.content:
        return f"<think>{reply.reasoning}"  # opened and not closed: unfinished
    return f"{reply.reasoning}{END_THINK}{reply.content}"


def _tokenizer(folder: Path | None) -> Any:
    """The tokenizer in a described folder; None where there is none."""
    if folder is None or not any(folder.glob("tokenizer*")):
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
