"""From documents to the prompts that a model reads."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import PromptError
from smd_research.core.wrapper import Wrapper
from smd_research.data.prompts import Document, Prompt, moved, token_spans
from smd_research.models.chat import Envelope

Offset = tuple[int, int]
"""Where a token begins and ends in its text, in characters."""


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
    encoded = _encoded([document.text for document in documents], tokenizer)
    return [
        _prompt(document, ids, offsets, tokenizer.model_max_length, prompt_tokens, continuation_tokens)
        for document, (ids, offsets) in zip(documents, encoded, strict=True)
    ]


def wrapped_prompts(
    documents: Sequence[Document], tokenizer: PreTrainedTokenizerBase, prompt_tokens: int | None = None
) -> list[Prompt]:
    """Documents as the messages of a user, each in the chat template's wrapper.

    The text, without white space at its ends, is encoded in its wrapper, as the model expects it. A token that stands
    on both sides of a seam holds a part of the text and is the user's; all others around it are the wrapper's. Only the
    user's tokens count: a cut takes them off the end of the text. There is no continuation, since what follows a
    message is an answer.

    Args:
        documents: texts with marked secrets.
        tokenizer: a fast tokenizer with a chat template.
        prompt_tokens: how many tokens of the text to keep; None keeps whole documents.

    Returns:
        One prompt for each document.

    Raises:
        ConfigError: when the tokenizer has no chat template, or one that cannot be used.
        PromptError: as :func:`prompts`, and for a text that the template changes.
    """
    envelope, messages = Envelope.of(tokenizer), [document.stripped for document in documents]
    start, sealed = len(envelope.before), [envelope.around(message.text) for message in messages]
    found = []
    for message, (ids, offsets) in zip(messages, _encoded(sealed, tokenizer, begins=False), strict=True):
        own = [(first - start, last - start) for first, last in offsets]
        inside = [i for i, (first, last) in enumerate(own) if first < len(message.text) and last > 0]
        place = slice(min(inside, default=0), max(inside, default=-1) + 1)
        alone = _prompt(message, ids[place], own[place], tokenizer.model_max_length, prompt_tokens, 0)
        wrapper = Wrapper(tuple(ids[: place.start]), tuple(ids[place.stop :]))
        spans = moved(alone.spans, len(wrapper.head))
        found.append(replace(alone, ids=wrapper.around(alone.ids), spans=spans, wrapper=wrapper))
    return found


def _prompt(
    document: Document,
    ids: Sequence[int],
    offsets: Sequence[Offset],
    context: int,
    prompt_tokens: int | None,
    continuation_tokens: int,
) -> Prompt:
    if not document.text.strip():
        raise PromptError(f"document {document.id!r} is empty; give a text or remove it")
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


def _encoded(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, begins: bool = True
) -> Iterator[tuple[Sequence[int], Sequence[Offset]]]:
    """Token ids and character offsets, special tokens that the tokenizer puts in front included, none behind.

    Args:
        texts: to encode.
        tokenizer: a fast tokenizer.
        begins: whether the tokenizer may put a token in front; a template writes its own.
    """
    if not texts:
        return
    # All at once, and the special tokens asked for once: thousands of calls take several times as long.
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    begin = tokenizer.bos_token_id
    begins = begins and begin is not None and begin in tokenizer("", add_special_tokens=True)["input_ids"]
    for ids, offsets in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        yield ([begin, *ids], [(0, 0), *offsets]) if begins else (ids, offsets)
