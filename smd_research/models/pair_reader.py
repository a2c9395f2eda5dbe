"""A small masked language model that reads a text, a separator, and the text again with tokens masked."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_HIDDEN, _MASKED, _SEPARATOR = range(3)
_LOUD, _SHARPNESS = 2.0, 2.5


@dataclass(frozen=True)
class ReaderShape:
    """Sizes of a reader.

    Attributes:
        width: of its states.
        layers: transformer blocks.
        heads: of each.
        tokens: longest text, read twice.
    """

    width: int
    layers: int
    heads: int
    tokens: int


class PairReader(nn.Module):
    """Predicts the masked tokens of a text's second reading from both readings, in both directions.

    The form of its input is DP-MLM's (arXiv 2407.00637, section 3): text, separator, text with a mask. Tokens enter and
    leave through a language model's public embedding table, which stays as it is; both readings share the vectors of
    places, so that a mask finds what stands in its place of the first.

    Args:
        table: public embedding rows ``[vocab, d]``.
        shape: of the network.
    """

    table: Tensor

    def __init__(self, table: Tensor, shape: ReaderShape) -> None:
        super().__init__()
        vocab, d = table.shape
        plain = table.detach().float().cpu()
        centred = plain - plain.mean(0)
        self.shape = shape
        self.register_buffer("table", centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6) * d**0.5)
        self.enter = nn.Linear(d, shape.width, bias=False)
        self.marks = nn.Parameter(torch.randn(3, shape.width) / 2)
        self.readings = nn.Parameter(torch.randn(2, shape.width) / 2)
        self.places = nn.Embedding(shape.tokens, shape.width)
        block = nn.TransformerEncoderLayer(
            shape.width, shape.heads, 4 * shape.width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(block, shape.layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.width)
        self.leave = nn.Linear(shape.width, d)
        self.bias = nn.Parameter(torch.zeros(vocab))
        self._begin()

    @torch.no_grad()
    def _begin(self) -> None:
        """Start where a short training else has to arrive.

        Places attend to themselves in both readings, the first block passes on what stands there, and what entered can
        leave.
        """
        nn.init.normal_(self.places.weight, std=_LOUD)
        nn.init.normal_(self.enter.weight, std=_LOUD / self.table.shape[1] ** 0.5)
        self.leave.weight.copy_(self.enter.weight.T / self.shape.width)
        nn.init.zeros_(self.leave.bias)
        for number, block in enumerate(self.body.layers):
            queries, keys, values = block.self_attn.in_proj_weight.view(3, self.shape.width, self.shape.width)
            if number == 0:
                queries *= _SHARPNESS
                values.copy_(_LOUD * torch.eye(self.shape.width))
                nn.init.eye_(block.self_attn.out_proj.weight)
            keys.copy_(queries)

    def forward(self, first: Tensor, hidden: Tensor, second: Tensor, masked: Tensor, asked: Tensor) -> Tensor:
        """Logits ``[asked, vocab]`` of tokens of the second reading.

        Args:
            first: token ids of the first reading ``[rows, n]``.
            hidden: which of them cannot be read ``[rows, n]``.
            second: token ids of the second ``[rows, n]``.
            masked: which of them are masked ``[rows, n]``.
            asked: where the logits are wanted ``[rows, n]``; in the order of rows, then of places.
        """
        n = first.shape[1]
        places = self.places.weight[:n]
        halves = (
            self._entered(first, hidden, _HIDDEN) + places + self.readings[0],
            self.marks[_SEPARATOR].expand(len(first), 1, -1),
            self._entered(second, masked, _MASKED) + places + self.readings[1],
        )
        alone = torch.eye(2 * n + 1, dtype=torch.bool, device=first.device)  # the residual carries a place itself
        states = self.body(torch.cat(halves, 1), mask=alone)[:, n + 1 :][asked]
        logits: Tensor = self.leave(self.norm(states)) @ self.table.T + self.bias
        return logits

    def _entered(self, ids: Tensor, marked: Tensor, mark: int) -> Tensor:
        """Vectors ``[rows, n, width]`` of token ids, a mark in the place of some."""
        return torch.where(marked[..., None], self.marks[mark], self.enter(self.table[ids]))

    @torch.inference_mode()
    def one_masked(self, texts: Tensor, places: Tensor, hide: bool = False) -> Tensor:
        """Logits ``[rows, vocab]`` of one token of each text, masked alone in its second reading.

        Args:
            texts: token ids ``[rows, n]``.
            places: of the token ``[rows]``.
            hide: whether the first reading hides it too, so that the context alone speaks.
        """
        masked = torch.zeros_like(texts, dtype=torch.bool)
        masked[torch.arange(len(texts), device=texts.device), places] = True
        hidden = masked if hide else torch.zeros_like(masked)
        logits: Tensor = self(texts, hidden, texts, masked, masked)
        return logits
