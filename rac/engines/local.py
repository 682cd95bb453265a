"""A transformers model in this process as an engine."""

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rac.engines.base import Completion, Messages, Request, Sampling
from rac.engines.describe import describe_checkpoint, digest_prompts, fingerprint, require_fit
from rac.engines.inputs import context_length
from rac.engines.text import cut_positions, decode, knows_thinking
from rac.engines.transformers import generate
from rac.prompts import render


class TransformersEngine:
    """Continuous batching with `rac.engines.generate`.

    A response is drawn by its request's own seed, whatever is decoded beside it: a continued
    evaluation has the responses of an uninterrupted one, but for what the rounding of logits in
    another batch changes.

    Args:
        model: in eval mode, on its device.
        tokenizer: of that model.
        batch_size: the most responses decoded at once.
        raw_prompts: no chat template.
    """

    name = "transformers"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 64,
        raw_prompts: bool = False,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.batch_size, self.raw_prompts = batch_size, raw_prompts
        self.thinks = knows_thinking(tokenizer)
        self.device = model.device.type

    def describe(self) -> dict[str, Any]:
        """Read the rac.json beside the weights."""
        return describe_checkpoint(str(self.model.name_or_path))

    def settings(self, prompts: Sequence[str | Messages]) -> dict[str, Any]:
        """Hashes of the prompts' token ids and of the weights; dtype and device."""
        ids = [render(self.tokenizer, prompt, self.raw_prompts) for prompt in prompts]
        require_fit(ids, context_length(self.model))
        return {
            "raw_prompts": self.raw_prompts,
            "prompts": digest_prompts(ids),
            "weights": fingerprint(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.device,
        }

    def complete(
        self, requests: Sequence[Request], sampling: Sampling, budgets: Sequence[int] = ()
    ) -> Iterator[Completion]:
        """Answer the requests; short prompts and long ones share the batch."""
        if not requests:
            return
        prompts = [render(self.tokenizer, r.prompt, self.raw_prompts) for r in requests]
        seeds = [request.seed for request in requests]
        options = {"seeds": seeds, "batch_size": self.batch_size}
        for trace in generate(self.model, prompts, sampling, **options):
            text = decode(self.tokenizer, trace.output_ids)
            yield Completion(
                index=requests[trace.index].index,
                text=text,
                finish_reason=trace.finish_reason,
                prompt_tokens=len(trace.prompt_ids),
                output_tokens=len(trace.output_ids),
                cuts=cut_positions(self.tokenizer, trace.output_ids, text, budgets),
            )
