"""The byte-level BPE tokenizer of the embedded model."""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from smd_research.core.errors import ConfigError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"

# Words with their leading space, numbers in pairs of digits (longer runs would fill a small vocabulary with numbers),
# punctuation, line breaks and other white space.
_PIECES = r" ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def train_tokenizer(texts: Iterable[str], entries: int, context: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer that prepends ``<bos>`` to every text.

    Args:
        texts: training texts.
        entries: exact size of the vocabulary, special tokens and the 256 bytes included.
        context: the model's context length, stored as the tokenizer's maximum.

    Returns:
        A Hugging Face tokenizer that encodes any text without an unknown token.

    Raises:
        ConfigError: when the texts do not hold enough different pieces for ``entries``.
    """
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = Sequence(
        [Split(Regex(_PIECES), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=entries,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() != entries:
        raise ConfigError(
            f"tokenizer: {backend.get_vocab_size()} entries instead of {entries}; give more text or a smaller number"
        )
    backend.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, backend.token_to_id(BOS))])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
