"""Word vectors from a text file in the place of a model's embedding table: a word and its numbers a line."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from smd_research.core.errors import ConfigError
from smd_research.data.reading import text_of
from smd_research.mechanisms.privacy.embedding_space import Floats, Ids

SETTING = "defense.vectors_path"


@dataclass(frozen=True, eq=False, repr=False)
class TokenVectors:
    """Public vectors of tokens.

    Attributes:
        rows: ``[V, d]`` float64; zeros where a token has none.
        known_ids: ``[K]`` ids of tokens that have one, ascending.
    """

    rows: Floats
    known_ids: Ids

    def __repr__(self) -> str:
        return f"TokenVectors({len(self.known_ids)} of {len(self.rows)} tokens)"


def read_vectors(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Words and their vectors ``[n, d]``; a first line of two whole numbers, as word2vec writes it, is passed over.

    Raises:
        ConfigError: for a file that cannot be read, or has a line that is not a word and as many finite numbers as the
            first.
    """
    words: list[str] = []
    vectors: list[npt.NDArray[np.float64]] = []
    for number, line in enumerate(text_of(path, SETTING).split("\n"), 1):
        word, *numbers = line.rstrip().split(" ")
        if not word or (number == 1 and len(numbers) == 1 and word.isdigit()):
            continue
        try:
            vector = np.array(numbers, dtype=np.float64)
        except ValueError:
            raise ConfigError(f"{path}, line {number}: after the word stand numbers, parted by single spaces") from None
        if not len(vector) or not np.isfinite(vector).all() or (vectors and len(vector) != len(vectors[0])):
            asked = f"{len(vectors[0])} finite numbers, as on the first" if vectors else "finite numbers"
            raise ConfigError(f"{path}, line {number}: {asked} after the word, not {len(vector)}")
        words.append(word)
        vectors.append(vector)
    if not words:
        raise ConfigError(f"{path}: no word vectors in it; {SETTING} names a text file of lines 'word 0.1 -0.2 ...'")
    return words, np.stack(vectors)


def token_vectors(path: Path, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> TokenVectors:
    """The vectors of tokens that are whole words, with or without the space before; of words alike the first counts.

    Args:
        path: the file.
        tokenizer: of the model.
        vocab_size: ``V``.

    Raises:
        ConfigError: as :func:`read_vectors`, or where fewer than two words are one token of the vocabulary.
    """
    words, vectors = read_vectors(path)
    rows, known = np.zeros((vocab_size, vectors.shape[1])), np.zeros(vocab_size, dtype=bool)
    special = set(tokenizer.all_special_ids)
    for before in (" ", ""):
        encoded = tokenizer([before + word for word in words], add_special_tokens=False)["input_ids"]
        for ids, vector in zip(encoded, vectors, strict=True):
            if len(ids) == 1 and ids[0] < vocab_size and ids[0] not in special and not known[ids[0]]:
                rows[ids[0]], known[ids[0]] = vector, True
    if known.sum() < 2:
        raise ConfigError(
            f"{path}: vocabulary and vectors do not match: {int(known.sum())} of its {len(words)} words are one token "
            "of this model; give vectors of its language, or leave defense.vectors_path out"
        )
    return TokenVectors(rows, np.flatnonzero(known))
