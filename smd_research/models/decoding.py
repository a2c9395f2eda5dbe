"""Step-by-step decoding with a stock model, its own attention and its own cache."""

import inspect

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from smd_research.models.bundle import Bundle
from smd_research.models.sampling import GREEDY, Sampling


def with_cache(model: PreTrainedModel, cache: DynamicCache) -> dict[str, DynamicCache]:
    """The argument that hands a cache to a model, by the name that the installed transformers has for it.

    Up to 5.23 it is ``past_key_values``, from 5.24 on ``cache``; the old name goes with 5.40.
    """
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: cache}


class StockDecoder:
    """A stock model with its cache: the unprotected reference for outputs and for time."""

    def __init__(self, bundle: Bundle) -> None:
        self._model = bundle.model
        self._cache = DynamicCache(config=self._model.config)
        self._cached = with_cache(self._model, self._cache)

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """Feed ``ids [1, rows]`` and return the logits ``[vocab]`` of the last row."""
        out = self._model(input_ids=ids, **self._cached, use_cache=True, logits_to_keep=1)
        logits: Tensor = out.logits[0, -1]
        return logits

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held."""
        held = (layer for layer in self._cache.layers if layer.is_initialized)
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in held)


@torch.inference_mode()
def plain_logits(bundle: Bundle, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> Tensor:
    """Teacher-forced logits ``[len(continuation), vocab]`` of the unprotected model in one forward pass (fp32, CPU)."""
    ids = torch.tensor([[*prompt, *continuation]], device=bundle.device)
    logits = bundle.model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.float().cpu()  # type: ignore[no-any-return]


def plain_greedy(bundle: Bundle, prompt: tuple[int, ...], max_new_tokens: int) -> tuple[int, ...]:
    """The unprotected model's greedy continuation, up to an end token."""
    return plain_generate(bundle, prompt, max_new_tokens)


def plain_generate(
    bundle: Bundle, prompt: tuple[int, ...], max_new_tokens: int, sampling: Sampling = GREEDY, seed: int = 0
) -> tuple[int, ...]:
    """The unprotected model's continuation under a sampling law and a request's seed, up to an end token."""
    decoder = StockDecoder(bundle)
    feed = torch.tensor([list(prompt)], device=bundle.device)
    ids: list[int] = []
    while len(ids) < max_new_tokens:
        (token,) = sampling.choose(decoder.step(feed)[None], seed, len(ids))
        ids.append(token)
        if token in bundle.end_ids:
            break
        feed = torch.tensor([[token]], device=bundle.device)
    return tuple(ids)
