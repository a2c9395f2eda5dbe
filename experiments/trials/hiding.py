"""Hide one secret of each prompt, for the attacks that know the rest (see :class:`attacks.base.TemplateAttack`).

The register holds values by the law of the secrets themselves (the generator's, or the marked secrets of the same
data), so that nothing but the transcript tells the hidden one from the others; it stands at a random place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from attacks.base import Template
from smd_research.data import synthetic
from smd_research.data.prompts import Prompt, TokenSpan, moved
from smd_research.data.sources import EVALUATION, TRAIN, DataSource, Synthetic
from smd_research.data.synthetic.registry import register

VALUES = 40_000  # drawn for a register: of those that fit into one gap there should be a thousand
_BATCH = 512


@dataclass(frozen=True, repr=False)
class Hidden:
    """A template, and which of its candidates was hidden; the second is for metrics only."""

    template: Template
    truth: int


@dataclass(frozen=True, repr=False)
class Register:
    """Public values of one type of secret.

    Attributes:
        kind: the type.
        values: their texts, distinct.
        lengths: how many tokens each has by itself.
    """

    kind: str
    values: tuple[str, ...]
    lengths: tuple[int, ...]

    @classmethod
    def of(
        cls, source: DataSource, kind: str, tokenizer: PreTrainedTokenizerBase, seed: int, size: int = VALUES
    ) -> "Register":
        """The register of a data source: drawn by the generator, or the marked secrets of other documents.

        Raises:
            ConfigError: for a type that the generator does not know.
        """
        if isinstance(source, Synthetic):
            values = register(kind, synthetic.CorpusSplit.EVALUATION, size, seed)
        else:
            documents = (d for split in (EVALUATION, TRAIN) for d in source.documents(split, size, seed))
            values = list(dict.fromkeys(d.text[s.start : s.end] for d in documents for s in d.spans if s.type == kind))
        encoded = tokenizer(values, add_special_tokens=False)["input_ids"] if values else []
        return cls(kind, tuple(values), tuple(map(len, encoded)))


def hide(
    prompt: Prompt, tokenizer: PreTrainedTokenizerBase, values: Register, n: int, rng: np.random.Generator
) -> Hidden | None:
    """Hide a prompt's longest secret of the register's type; a chat template's tokens around it are known as well.

    A value fits when the prompt with it in place has the same length, and the same tokens outside the gap: the
    length is public, and the attacker knows the template's tokens.

    Args:
        prompt: text and tokens with marked secrets.
        tokenizer: the model's.
        values: the register.
        n: candidates wanted, the hidden one included; fewer where fewer fit.
        rng: decides which, and their order.

    Returns:
        None where no such secret is wholly inside the prompt.
    """
    prompt, wrapper = prompt.unwrapped, prompt.wrapper
    spans = [s for s in prompt.spans if s.type == values.kind and s.end < len(prompt.ids)]
    span = max(spans, key=lambda s: s.end - s.start, default=None)
    cut = span and _cut(prompt, tokenizer, span)
    if span is None or cut is None:
        return None
    true = prompt.ids[span.start : span.end]
    found: dict[tuple[int, ...], None] = {}
    near = [i for i in rng.permutation(len(values.values)) if abs(values.lengths[i] - len(true)) <= 1]
    for first in range(0, len(near), _BATCH):
        texts = [values.values[i].join(cut) for i in near[first : first + _BATCH]]
        found |= dict.fromkeys(_fitting(texts, tokenizer, prompt, span))
        if len(found) >= n:
            break
    candidates = [tokens for tokens in found if tokens != true][: n - 1]
    truth = int(rng.integers(len(candidates) + 1))
    candidates.insert(truth, true)
    ids = wrapper.around((*prompt.ids[: span.start], *[-1] * len(true), *prompt.ids[span.end :]))
    (span,) = moved([span], len(wrapper.head))
    return Hidden(Template(ids, span.start, span.end, tuple(candidates)), truth)


def _cut(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, span: TokenSpan) -> tuple[str, str] | None:
    """The text before and after a secret; None when the text does not give the prompt's tokens again."""
    encoded = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    extra = len(prompt.ids) - len(encoded["input_ids"])  # a begin-of-sequence token
    if extra not in (0, 1) or tuple(encoded["input_ids"]) != prompt.ids[extra:]:
        return None
    offsets: Sequence[tuple[int, int]] = encoded["offset_mapping"]
    first, last = offsets[span.start - extra][0], offsets[span.end - 1 - extra][1]
    space = len(prompt.text[first:last]) - len(prompt.text[first:last].lstrip())
    return prompt.text[: first + space], prompt.text[last:]


def _fitting(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, prompt: Prompt, span: TokenSpan
) -> Iterator[tuple[int, ...]]:
    """What stands in the gap, for those texts that have the prompt's tokens everywhere else."""
    lead = prompt.ids[: int(prompt.ids[0] == tokenizer.bos_token_id)]
    for encoded in tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]:
        ids = (*lead, *encoded)
        same = ids[: span.start] == prompt.ids[: span.start] and ids[span.end :] == prompt.ids[span.end :]
        if same and len(ids) == len(prompt.ids):
            yield ids[span.start : span.end]
