"""Held-out perplexity of a model and of a trigram model, on the same tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from smd_research.data.reference import stream
from smd_research.data.synthetic import REGISTERS, generate
from smd_research.training.trigram import Trigram

HELD_OUT_DOCUMENTS = 200


@dataclass(frozen=True)
class HeldOut:
    """Perplexity per token on one register: of the model, and of the trigram model.

    Attributes:
        register: which register.
        tokens: number of predicted tokens.
        model: perplexity of the model.
        trigram: perplexity of the trigram model.
    """

    register: str
    tokens: int
    model: float
    trigram: float


def encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """Token ids of each text, between ``<bos>`` and ``<eos>``."""
    return [[*ids, tokenizer.eos_token_id] for ids in tokenizer(list(texts))["input_ids"]]


@torch.inference_mode()
def nats(model: PreTrainedModel, ids: Sequence[int]) -> float:
    """Negative log-likelihood in nats of all tokens after the first."""
    row = torch.tensor([list(ids)], device=model.device)
    logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
    return float(torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="sum"))


def trigram_of_train(tokenizer: PreTrainedTokenizerBase, register: str, tokens: int, seed: int) -> Trigram:
    """A trigram model of at least ``tokens`` tokens of the train split."""
    documents: list[list[int]] = []
    counted = 0
    while counted < tokens:
        fresh = stream(register, "train", 2_000, seed, start=len(documents))
        encoded = encode([document.text for document in fresh], tokenizer)
        documents += encoded
        counted += sum(map(len, encoded))
    return Trigram(documents, len(tokenizer))


def held_out(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, trigram: Trigram, documents: int = HELD_OUT_DOCUMENTS
) -> tuple[HeldOut, ...]:
    """Perplexities on the first ``documents`` evaluation documents (seed 0) of each register, and on all together."""
    rows = []
    for register in REGISTERS:
        texts = [document.text for document in generate(register, "evaluation", documents, seed=0)]
        encoded = encode(texts, tokenizer)
        tokens = sum(len(ids) - 1 for ids in encoded)
        of_model = sum(nats(model, ids) for ids in encoded)
        of_trigram = -sum(float(trigram.log_probabilities(ids).sum()) for ids in encoded)
        rows.append(HeldOut(register, tokens, math.exp(of_model / tokens), math.exp(of_trigram / tokens)))
    return (*rows, _together(rows))


def _together(rows: Sequence[HeldOut]) -> HeldOut:
    tokens = sum(row.tokens for row in rows)
    model = math.exp(sum(row.tokens * math.log(row.model) for row in rows) / tokens)
    trigram = math.exp(sum(row.tokens * math.log(row.trigram) for row in rows) / tokens)
    return HeldOut("all", tokens, model, trigram)
