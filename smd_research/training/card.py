"""The model card of an exported model: every number comes from the run that it describes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from smd_research.data.pinned import PINNED_FAKER
from smd_research.data.reference import REFERENCE
from smd_research.data.synthetic import REGISTERS, generate
from smd_research.data.tokenise import prompts
from smd_research.training.heldout import HELD_OUT_DOCUMENTS, HeldOut
from smd_research.training.loop import Run, Trained

_PROMPT_TOKENS, _NEW_TOKENS, _TEMPERATURE = 24, 64, 0.7


@dataclass(frozen=True)
class Sample:
    """A continuation that the model wrote."""

    register: str
    prompt: str
    continuation: str


def samples(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> tuple[Sample, ...]:
    """One sampled continuation for each register, from the opening of the first evaluation document."""
    written = []
    for register in REGISTERS:
        prompt = prompts(generate(register, "evaluation", 1), tokenizer, _PROMPT_TOKENS)[0]
        set_seed(seed)
        ids = torch.tensor([prompt.ids])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_NEW_TOKENS,
            do_sample=True,
            temperature=_TEMPERATURE,
            top_k=0,
        )
        continuation = tokenizer.decode(output[0, len(prompt.ids) :], skip_special_tokens=True)
        written.append(Sample(register, prompt.text, continuation))
    return tuple(written)


def card(
    run: Run,
    trained: Trained,
    held: Sequence[HeldOut],
    written: Sequence[Sample],
    trigram_tokens: int,
    weights: Path,
    title: str,
    note: str = "",
) -> str:
    """The card in Markdown, with the metadata block that Hugging Face reads.

    Args:
        run: what was trained.
        trained: what came out, and what it took.
        held: perplexities on held-out text.
        written: continuations to show.
        trigram_tokens: training tokens of the trigram model.
        weights: the exported weights.
        title: headline of the card.
        note: what the configuration does not tell about this run, e.g. how it was interrupted.
    """
    of_its_own = f"trained on {run.tokenizer_documents:,} documents of the train split"
    tokenizer = of_its_own if run.tokenizer == "train" else "that of the embedded model"
    data = (
        "paragraphs of Python's reference manual (`smd_research.data.reference`), gone through again and again"
        if run.register == REFERENCE
        else f"`smd_research.data.synthetic`, register `{run.register}`, split `train`, values from faker "
        f"{PINNED_FAKER} and own word lists; every row is fresh text"
    )
    remark = f"\n\nNote: {note}" if note else ""
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    size = weights.stat().st_size / 1e6
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    table = "\n".join(
        f"| {row.register} | {row.tokens:,} | {row.model:.2f} | {row.trigram:.2f} | {row.trigram / row.model:.2f} |"
        for row in held
    )
    shown = "\n\n".join(
        f"**{sample.register}**\n\n```text\n{sample.prompt} ⟶ {sample.continuation}\n```" for sample in written
    )
    return f"""---
license: apache-2.0
language: en
pipeline_tag: text-generation
tags: [privacy-research, synthetic-data]
---

# {title}

A small causal language model of synthetic clinical notes, financial messages and personal letters, made for
smd-research so that defenses and attacks run on a real trained transformer without a download. It is research
material: it knows no medicine and no finance, and every person, number and address in its training text is made up.

| | |
| --- | --- |
| Architecture | {run.architecture.family} |
| Shape | {run.architecture.shape} |
| Parameters | {parameters:,} |
| Tokenizer | byte-level BPE, {run.architecture.vocabulary:,} entries, `<bos>` before every text; {tokenizer} |
| Data | {data} |
| Training | {trained.steps:,} steps of {run.batch} x {run.row_tokens} tokens = \
{trained.steps * run.batch * run.row_tokens:,} tokens, seed {run.seed} |
| Optimiser | AdamW, peak learning rate {run.learning_rate:g}, {run.warmup} steps of warm-up, cosine; gradients \
clipped at {run.clip:g}; {run.precision} |
| Time | {trained.seconds / 60:.0f} minutes of wall time on {trained.hardware} |
| Weights | fp16, {size:.2f} MB, sha256 `{digest}` |{remark}

## Held-out perplexity

Per token, on the first {HELD_OUT_DOCUMENTS} evaluation documents of each register (seed 0): no template of theirs
and no secret value is one of the train split. Beside it an interpolated Kneser-Ney trigram model with the same
tokenizer, counted on {trigram_tokens:,} tokens of the train split. Names, numbers and addresses are most of what is
hard to predict.

| register | tokens | this model | trigram | ratio |
| --- | ---: | ---: | ---: | ---: |
{table}

## Samples

The first {_PROMPT_TOKENS} tokens of an evaluation document, and what the model wrote after the arrow (sampled at
temperature {_TEMPERATURE}, {_NEW_TOKENS} tokens at most, seed {run.seed}).

{shown}

## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

Made again with `smd train architecture={run.architecture.name}`.
"""
