"""From documents to the prompts that a model reads."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import PromptError
from smd_research.data.prompts import Document, Prompt, token_spans


def prompts(
    documents: Sequence[Document],
    tokenizer: PreTrainedTokenizerBase,
    prompt_tokens: int | None = None,
    continuation_tokens: int = 0,
) -> list[Prompt]:
    """Encode documents, cut them to a length, and snap their secrets to tokens.

    A beginning-of-sequence token stands first where the tokenizer puts one before every text; it counts as a token of
    the prompt. Secrets that begin behind the cut are
    left out; one that the cut divides is kept as far as it is in the prompt.

    Args:
        documents: texts with marked secrets.
        tokenizer: a fast tokenizer (offsets are needed).
        prompt_tokens: where to cut, the beginning-of-sequence token included; None keeps whole documents.
        continuation_tokens: how many of the document's next tokens to keep for perplexity.

    Returns:
        One prompt for each document.

    Raises:
        PromptError: if a text is empty, a whole document is longer than the context, or ``prompt_tokens`` is too small.
    """
    if prompt_tokens is not None and prompt_tokens < 1:
        raise PromptError(f"prompt_tokens={prompt_tokens}: a prompt needs at least one token")
    return [_prompt(document, tokenizer, prompt_tokens, continuation_tokens) for document in documents]


def _prompt(
    document: Document, tokenizer: PreTrainedTokenizerBase, prompt_tokens: int | None, continuation_tokens: int
) -> Prompt:
    if not document.text.strip():
        raise PromptError(f"document {document.id!r} is empty; give a text or remove it")
    ids, offsets = _encode(document.text, tokenizer)
    context = tokenizer.model_max_length
    length = len(ids) if prompt_tokens is None else min(prompt_tokens, len(ids))
    if length > context:
        raise PromptError(
            f"document {document.id!r} has {length} tokens, the model's context is {context}; cut it: prompt_tokens=N"
        )
    end = max(offset[1] for offset in offsets[:length])
    return Prompt(
        id=document.id,
        text=document.text[:end],
        ids=tuple(ids[:length]),
        spans=token_spans(document.spans, offsets[:length]),
        continuation=tuple(ids[length : min(length + continuation_tokens, context)]),
        source=document.register,
    )


def _encode(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids and character offsets, special tokens that the tokenizer puts in front included, none behind."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids: list[int] = list(encoded["input_ids"])
    offsets: list[tuple[int, int]] = [(start, end) for start, end in encoded["offset_mapping"]]
    with_special = tokenizer("", add_special_tokens=True)["input_ids"]
    begin = tokenizer.bos_token_id
    if begin is not None and begin in with_special:
        return [begin, *ids], [(0, 0), *offsets]
    return ids, offsets
