"""Training a small masked language model on public text, kept for the next cell of the process."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from smd_research.core.errors import ConfigError
from smd_research.core.seeds import generator
from smd_research.models.bundle import Bundle
from smd_research.models.pair_reader import PairReader
from smd_research.training.causal_lm import OnRows, Optimisation
from smd_research.training.reader_recipe import SHORTEST, ReaderRecipe
from smd_research.training.recovery import packed
from smd_research.training.short import fit


class MaskedPairs(OnRows):
    """Cross-entropy of masked tokens, given the text in a first reading that is spoilt in places (reconstructed).

    DP-MLM takes a masked model off the shelf and shows it pairs at inference only. A model trained here on clean pairs
    would learn to copy and nothing else; some tokens of the first reading are therefore hidden or replaced.
    """

    def __init__(self, reader: PairReader, recipe: ReaderRecipe, barred: Tensor) -> None:
        super().__init__(Optimisation(recipe.learning_rate, max(1, recipe.steps // 10), recipe.steps))
        self.reader = reader
        self.recipe = recipe
        self.register_buffer("barred", barred)

    def loss(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy in nats over what is masked of ``ids [rows, length]``, cut to a drawn length."""
        n = int(torch.randint(min(SHORTEST, ids.shape[1]), ids.shape[1] + 1, ()))
        text = ids[:, :n]
        free = ~torch.isin(text, self.barred)
        masked, hidden, replaced = (
            (torch.rand(text.shape, device=text.device) < share) & free
            for share in (self.recipe.masked, self.recipe.hidden, self.recipe.replaced)
        )
        others = text.flatten()[torch.randperm(text.numel(), device=text.device)].view_as(text)
        logits = self.reader(torch.where(replaced, others, text), hidden, text, masked, masked)
        return functional.cross_entropy(logits, text[masked], reduction="sum") / masked.sum().clamp(min=1)


def reader_of(bundle: Bundle, corpus: Sequence[Sequence[int]], recipe: ReaderRecipe) -> PairReader:
    """A reader trained on public text over the bundle's tokens; the same request is trained once in a process.

    Args:
        bundle: whose embedding and tokens are used.
        corpus: token ids of public documents.
        recipe: of network and training.

    Raises:
        ConfigError: for public text that is shorter than two of the reader's texts.
    """
    return _trained(bundle, tuple(map(tuple, corpus)), recipe)


@lru_cache(maxsize=4)
def _trained(bundle: Bundle, corpus: tuple[tuple[int, ...], ...], recipe: ReaderRecipe) -> PairReader:
    tokens = sum(map(len, corpus))
    if tokens < 2 * recipe.shape.tokens:
        raise ConfigError(
            f"a masked model of defense.reader_tokens={recipe.shape.tokens} needs more public text than {tokens} "
            "tokens: lower it, or take data with more documents"
        )
    rows = packed(corpus, recipe.shape.tokens, bundle.end_id)
    held_back = max(1, min(64, len(rows) // 10))
    barred = torch.tensor(sorted(bundle.special_ids), dtype=torch.long)
    seed = int(generator(0, "reader").integers(2**62))  # the reader is public: no seed of a user's decides it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = MaskedPairs(PairReader(bundle.embedding, recipe.shape), recipe, barred)
        fit(module.to(bundle.device), rows[held_back:], rows[:held_back], recipe.batch, seed, "masked model")
    return module.reader.to(bundle.device).eval().requires_grad_(False)
