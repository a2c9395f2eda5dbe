"""Values that tokens would have after a prefix, expected from those of the tokens that were tried there.

To run every token of a vocabulary through many blocks after every prefix takes long, and few need be run: after one
prefix a value is nearly a linear function of what the first blocks make of the token, wherever that is measured once
and for all. Kernel ridge regression on these states, fitted to the tokens that were tried, says where the values of
the others may be, and its leave-one-out errors (Allen, Technometrics 16(1), 1974) how far off that is. The part of them
outside the span of the replies then ranks the vocabulary together with the language model. Tokens that become attention
sinks after a prefix follow a law of their own, so that groups of values are fitted by themselves as well. All this
proposes, and proves nothing: whatever stands first is run.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from attacks.prompts.partial_attention_inversion.row_space import RowSpace
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine

_BLOCKS = 2  # that states are taken after: the context mixes in later, and each costs its run over the vocabulary
_RIDGE = 1.0  # over the median square length of a centred state
_FLOOR = 0.1  # of the mean variance, added to that of each direction
_PASSES = 10  # over the values to group them
_LEAST = 4  # values that a law is fitted to


class Expectation:
    """Which tokens' values are likely to lie in a span, by those that were tried.

    Args:
        bundle: the public model.
        layer: whose values are asked for.
    """

    def __init__(self, bundle: Bundle, layer: int) -> None:
        engine = ExtensionEngine(bundle, min(layer, _BLOCKS))
        before = engine.start()
        engine.advance(before, bundle.tokenizer.bos_token_id or 0)  # a first token's states are like no others
        tokens = torch.arange(bundle.geometry.vocab, device=bundle.device)
        states = torch.cat(
            [engine.extend(before, some).hidden.float().cpu() for some in torch.split(tokens, engine.batch)]
        )
        states -= states.mean(0)
        self._states = states / states.square().sum(1).median().sqrt()  # some tokens have states of their own size
        self.spent = engine.spent

    def log_likelihoods(self, space: RowSpace, tokens: Tensor, values: Tensor, grouped: bool) -> Tensor:
        """How likely each token's value lies in a span, up to a constant, by each law ``[laws, vocab]``.

        Args:
            space: the span.
            tokens: that were tried after a prefix ``[tried]``.
            values: theirs ``[tried, kv_heads, head_dim]``.
            grouped: whether groups of them are fitted by themselves as well.

        Returns:
            First by the law of all that were tried, then by those of the groups.
        """
        outside = space.outer(values).float()
        groups = [torch.ones(len(tokens), dtype=torch.bool), *(_groups(values.flatten(1)) if grouped else ())]
        return torch.stack([self._log_likelihood(tokens[group], outside[group]) for group in groups])

    def _log_likelihood(self, tokens: Tensor, outside: Tensor) -> Tensor:
        """The same by one law, from the parts outside ``[tried, dims]`` of some tokens' values."""
        known, middle = self._states[tokens], outside.mean(0)
        inverse = torch.linalg.inv(known @ known.T + _RIDGE * torch.eye(len(known)))
        weights = inverse @ (outside - middle)
        errors = weights / inverse.diagonal()[:, None]
        spread = errors.T @ errors / len(errors)
        floor = _FLOOR * spread.diagonal().mean() + torch.finfo(spread.dtype).tiny
        root = torch.linalg.cholesky(spread + floor * torch.eye(len(spread)))
        law = torch.cat([known.T @ weights, middle[None]])  # from states, and the constant
        white: Tensor = torch.linalg.solve_triangular(root, law.T, upper=False).T
        return -0.5 * (self._states @ white[:-1] + white[-1]).square().sum(1)


def _groups(values: Tensor) -> Iterator[Tensor]:
    """Which values ``[tokens, dims]`` belong together, by k-means from the shortest, the longest and a middling one."""
    length, off = values.norm(dim=1), (values - values.mean(0)).norm(dim=1)
    centres = values[torch.stack([length.argmin(), length.argmax(), off.argmin()])]
    for _ in range(_PASSES):
        nearest = torch.cdist(values, centres).argmin(1)
        centres = torch.stack([values[nearest == i].mean(0) for i in set(nearest.tolist())])
    return (group for i in set(nearest.tolist()) if int((group := nearest == i).sum()) >= _LEAST)
