"""Would the tokenizer have written it so? A sampler that draws token by token also writes words as no tokenizer does.

The user's prompt was tokenised whole, so its ids are what its text encodes to. A fake whose ids are not is no prompt.
"""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from attacks.prompts.pick_stream.lineup import Lineup

# Log weight of a prompt that its own tokenizer would have written otherwise.
_NEVER = -8.0


def canonical(lineup: Lineup, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Whether each prompt's ids are what its text encodes to ``[streams]`` (bool).

    The last word is left out: a prompt that is cut within a word encodes otherwise at its end.
    """
    special = set(tokenizer.all_special_ids)
    rows = [[token for token in row if token not in special] for row in lineup.ids.tolist()]
    texts = tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False)
    again = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    pairs = zip(rows, again, strict=True)
    return torch.tensor([_agree(row, other, tokenizer) for row, other in pairs])


def _agree(ids: list[int], again: list[int], tokenizer: PreTrainedTokenizerBase) -> bool:
    pieces = tokenizer.batch_decode([[token] for token in ids], clean_up_tokenization_spaces=False)
    starts = [position for position, piece in enumerate(pieces) if piece[:1].isspace()]
    last = starts[-1] if starts else 0
    return ids[:last] == again[:last]


def weights(lineup: Lineup, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """Log weights ``[streams]``: far lower for a prompt that is not written as its tokenizer writes."""
    return torch.where(canonical(lineup, tokenizer), 0.0, _NEVER)
