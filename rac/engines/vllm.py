"""vLLM in this process as an engine."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rac.engines.base import Completion, Messages, Request, Sampling
from rac.engines.describe import (
    describe_checkpoint,
    digest_prompts,
    fingerprint_files,
    require_fit,
)
from rac.engines.text import cut_positions, decode, knows_thinking
from rac.errors import UserError, first_line
from rac.models import load_tokenizer, resolve_model
from rac.prompts import render

REASONS = {"stop": "stop", "length": "length"}  # what else vLLM says, "abort", is an error


class VllmEngine:
    """An offline `vllm.LLM`; it gets our token ids, so that all engines answer the same prompts.

    Args:
        model: folder, hub name or "embedded".
        engine_args: of `vllm.LLM`, such as tensor_parallel_size or max_num_seqs.
        raw_prompts: no chat template.

    Raises:
        UserError: vLLM is not installed, or refuses the model or the arguments.
    """

    name = "vllm"

    def __init__(
        self, model: str, *, engine_args: dict[str, Any] | None = None, raw_prompts: bool = False
    ) -> None:
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"--engine vllm: vLLM cannot be imported ({first_line(error)}); "
                "pip install 'rac-prune[vllm]'"
            ) from error
        self.folder: Path = resolve_model(model)
        self.tokenizer = load_tokenizer(self.folder)
        self.raw_prompts, self.engine_args = raw_prompts, engine_args or {}
        try:
            self.llm = vllm.LLM(model=str(self.folder), **self.engine_args)
        except Exception as error:  # of many kinds, from the arguments to the device
            raise UserError(f"--engine vllm: {first_line(error)}") from error
        self._vllm = vllm
        self.thinks = knows_thinking(self.tokenizer)
        self.batch_size = self.engine_args.get("max_num_seqs")
        config = self.llm.llm_engine.vllm_config
        self.context = int(config.model_config.max_model_len)
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.device = str(config.device_config.device_type)

    def describe(self) -> dict[str, Any]:
        """Read the rac.json beside the weights."""
        return describe_checkpoint(str(self.folder))

    def settings(self, prompts: Sequence[str | Messages]) -> dict[str, Any]:
        """Hashes of the prompts' token ids and of the weights' files; dtype and device."""
        ids = [render(self.tokenizer, prompt, self.raw_prompts) for prompt in prompts]
        require_fit(ids, self.context)
        return {
            "raw_prompts": self.raw_prompts,
            "prompts": digest_prompts(ids),
            "weights": fingerprint_files(self.folder),
            "dtype": self.dtype,
            "device": self.device,
        }

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, budgets: Sequence[int] = ()
    ) -> Iterator[Completion]:
        """Hand all requests to vLLM's scheduler, give each response as it finishes."""
        engine = self.llm.llm_engine
        asked = {str(request.index): request for request in requests}
        try:
            for name, request in asked.items():
                prompt = {
                    "prompt_token_ids": render(self.tokenizer, request.prompt, self.raw_prompts)
                }
                engine.add_request(name, prompt, self._parameters(request, sampling))
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished and (request := asked.pop(output.request_id, None)):
                        yield self._completion(request, output, budgets)
        except GeneratorExit:
            raise
        except Exception as error:  # a worker died, a value that vLLM does not take
            raise UserError(f"vLLM: {first_line(error)}") from error
        finally:
            if asked:
                engine.abort_request(list(asked))

    def _parameters(self, request: Request, sampling: Sampling) -> Any:
        return self._vllm.SamplingParams(
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=request.seed,
            detokenize=False,  # done here, as for the other engines
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, request: Request, output: Any, budgets: Sequence[int]) -> Completion:
        best = output.outputs[0]
        ids = list(best.token_ids)
        text = decode(self.tokenizer, ids)
        return Completion(
            index=request.index,
            text=text,
            finish_reason=REASONS.get(best.finish_reason, "error"),
            prompt_tokens=len(output.prompt_token_ids),
            output_tokens=len(ids),
            cuts=cut_positions(self.tokenizer, ids, text, budgets),
        )
