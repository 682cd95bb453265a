"""What rac uses of vLLM 0.32, with the same names and arguments; greedy decoding by transformers.

It stands in where vLLM cannot be installed. It is strict: an argument that the real classes do not
have is a TypeError here too.
"""

import enum
import types
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


class RequestOutputKind(enum.Enum):
    CUMULATIVE, DELTA, FINAL_ONLY = range(3)


sampling_params = types.SimpleNamespace(RequestOutputKind=RequestOutputKind)


@dataclass
class SamplingParams:
    max_tokens: int = 16
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE


@dataclass
class CompletionOutput:
    token_ids: tuple[int, ...]
    finish_reason: str | None


@dataclass
class RequestOutput:
    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass
class EngineArgs:
    model: str
    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1


@dataclass
class LLMEngine:
    model: torch.nn.Module
    vllm_config: types.SimpleNamespace
    waiting: dict = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)

    def add_request(self, request_id, prompt, params):
        assert params.output_kind is RequestOutputKind.FINAL_ONLY
        self.waiting[request_id] = prompt["prompt_token_ids"], params

    def has_unfinished_requests(self):
        return bool(self.waiting)

    def abort_request(self, request_ids):
        self.aborted += request_ids
        for request_id in request_ids:
            self.waiting.pop(request_id, None)

    @torch.inference_mode()
    def step(self):
        """Answer the request that came last."""
        request_id, (prompt, params) = self.waiting.popitem()
        ids = torch.tensor([prompt])
        output = self.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, top_p=None, temperature=None,
            max_new_tokens=params.max_tokens,
        )[0, len(prompt) :].tolist()  # fmt: skip
        stopped = output[-1] == self.model.generation_config.eos_token_id
        done = CompletionOutput(tuple(output), "stop" if stopped else "length")
        return [RequestOutput(request_id, prompt, [done])]


class LLM:
    def __init__(self, **arguments):
        args = EngineArgs(**arguments)
        assert Path(args.model).is_dir()
        model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
        length = args.max_model_len or model.config.max_position_embeddings
        config = types.SimpleNamespace(
            model_config=types.SimpleNamespace(max_model_len=length, dtype=torch.float32),
            device_config=types.SimpleNamespace(device_type="cpu"),
        )
        self.llm_engine = LLMEngine(model, config)
