"""An engine by name."""

import json
from collections.abc import Sequence
from typing import Any

from rac.engines.base import Engine
from rac.errors import UserError

ENGINES = ("transformers", "vllm", "openai")


def parse_engine_args(given: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` into a dict; a value is JSON where it can be, else text.

    Raises:
        UserError: one has no `=`, or a name is given twice.
    """
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or not name:
            raise UserError(f"--engine-args {text}: expected key=value")
        if name in values:
            raise UserError(f"--engine-args {name} is given twice")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = {"true": True, "false": False, "none": None}.get(value.lower(), value)
    return values


def check_engine(name: str, base_url: str | None, describe: str | None, args: dict) -> None:
    """Refuse flags that do not fit the engine.

    Raises:
        UserError: names the flag.
    """
    if name not in ENGINES:
        raise UserError(f"--engine {name}: expected one of {', '.join(ENGINES)}")
    if name == "transformers" and args:
        raise UserError("--engine-args are for --engine vllm and --engine openai")
    if name == "openai" and base_url is None:
        raise UserError("--engine openai needs --base-url, such as http://localhost:8000/v1")
    for flag, value in (("--base-url", base_url), ("--describe", describe)):
        if name != "openai" and value is not None:
            raise UserError(f"{flag} is for --engine openai")


def open_engine(
    name: str,
    model: str,
    *,
    batch_size: int | None = None,
    raw_prompts: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    args: dict[str, Any] | None = None,
    base_url: str | None = None,
    describe: str | None = None,
    timeout_s: float = 600.0,
    retries: int = 6,
) -> Engine:
    """Load a model, or find a server, ready to answer; `batch_size` None is the engine's own.

    Raises:
        UserError: it cannot be loaded or reached, or a flag does not fit.
    """
    args = dict(args or {})
    check_engine(name, base_url, describe, args)
    if name == "openai":
        from rac.engines.openai import OpenAIEngine, api_key
        from rac.engines.server import Server

        limits = {"connections": batch_size or 32, "timeout_s": timeout_s, "retries": retries}
        server = Server(base_url or "", api_key(), **limits)
        options = {"concurrency": batch_size or 32, "raw_prompts": raw_prompts}
        engine = OpenAIEngine(model, server, described=describe, extra=args, **options)
        engine.check()
        return engine
    if name == "vllm":
        from rac.engines.vllm import VllmEngine

        if dtype != "auto":
            args["dtype"] = dtype
        if batch_size is not None:
            args["max_num_seqs"] = batch_size
        return VllmEngine(model, engine_args=args, raw_prompts=raw_prompts)
    from rac.engines.local import TransformersEngine
    from rac.models import load_model, load_tokenizer

    options = {"batch_size": batch_size or 64, "raw_prompts": raw_prompts}
    return TransformersEngine(load_model(model, device, dtype), load_tokenizer(model), **options)
