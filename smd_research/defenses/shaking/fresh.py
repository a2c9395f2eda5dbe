"""Fresh noise for every occurrence of a token, before the text is coded under the key.

Under a substitution alone equal plaintext is equal ciphertext. Here each occurrence first becomes a fresh draw of the
word mechanism over the public embedding table (exponential mechanism, SanText's form), and only ids cross as before.
What is promised is the word mechanism's metric differential privacy alone: coding its output under the key is
post-processing of it, and the key adds nothing to the guarantee.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smd_research.core.guarantee import Guarantee
from smd_research.mechanisms.privacy.channels import bundle_space
from smd_research.mechanisms.privacy.token_channel import ExponentialChannel
from smd_research.mechanisms.shaking import Key, KeyStream
from smd_research.models.bundle import Bundle


@dataclass(frozen=True, repr=False, eq=False)
class FreshNoise:
    """A word mechanism, and the key's stream that decides its draws.

    Attributes:
        channel: what each token may become; special ids pass.
        draws: the stream.
    """

    channel: ExponentialChannel
    draws: KeyStream

    @classmethod
    def of(cls, key: Key, bundle: Bundle, epsilon: float) -> "FreshNoise":
        """The noise of a key.

        Args:
            key: has the stream.
            bundle: the public model, whose embedding rows at norm one are the metric.
            epsilon: of one token and unit of distance.

        Raises:
            ConfigError: for an epsilon that is not positive and finite.
        """
        return cls(ExponentialChannel(bundle_space(bundle), epsilon), key.stream("fresh"))

    def replaced(self, texts: Sequence[Sequence[int]], first: int = 0) -> list[list[int]]:
        """A fresh draw for every token of texts; all of them at once.

        A draw belongs to a text, its number and a place in it: a command that is resumed sends what it had sent, and a
        key that is used again draws anew for other texts.

        Args:
            texts: token ids of each.
            first: number of the first text.

        Raises:
            ConfigError: for an id outside the vocabulary.
        """
        if not texts:
            return []
        arrays = [np.asarray(text, dtype=np.int64) for text in texts]
        uniforms = [
            self.draws.child(first + number, hashlib.sha256(ids.tobytes()).hexdigest()).uniform(len(ids))
            for number, ids in enumerate(arrays)
        ]
        drawn = self.channel.drawn(np.concatenate(arrays), np.concatenate(uniforms))
        ends = np.cumsum([len(ids) for ids in arrays])
        return [part.tolist() for part in np.split(drawn, ends[:-1])]

    def guarantee(self) -> Guarantee:
        """The word mechanism's."""
        promise = self.channel.guarantee()
        kept = "draws from the key's stream, pseudo-random to who has not its secret; labels are not covered"
        return replace(promise, assumptions=f"{promise.assumptions}; {kept}")
