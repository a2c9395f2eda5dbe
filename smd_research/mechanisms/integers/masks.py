"""One-time masks: uniform residues from a keyed cryptographic stream (ChaCha20, RFC 8439).

A mask belongs to a use and a product; the same key, use and product always give the same mask, so that a mask can be
made again when it is needed and only its image under the weights has to be stored. As masks come from a 32-byte key
they hide computationally, not information-theoretically.
"""

import hashlib
import secrets
from collections.abc import Sequence

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from numpy.typing import NDArray
from torch import Tensor

KEY_BYTES = 32
WORD_BYTES = 8


class MaskStream:
    """Masks in ``[0, prime)``, a stream of its own for every use and product."""

    def __init__(self, key: bytes):
        """Take a secret key.

        Raises:
            ValueError: for a key that is not 32 bytes long.
        """
        if len(key) != KEY_BYTES:
            raise ValueError(f"a mask key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key

    def child(self, name: str) -> "MaskStream":
        """An independent stream for another purpose."""
        return MaskStream(hashlib.blake2b(name.encode(), key=self._key, digest_size=KEY_BYTES).digest())

    def opening(self) -> "MaskStream":
        """A stream that no one had before: a fresh nonce of the operating system goes into its key."""
        return self.child(f"opening {secrets.token_hex(KEY_BYTES)}")

    def uniform(self, use: int, product: int, count: int, prime: int) -> Tensor:
        """The mask of one use, int64 ``[count]``: see ``rows``."""
        return self.rows((use,), product, count, prime)[0]

    def rows(self, uses: Sequence[int], product: int, count: int, prime: int) -> Tensor:
        """The masks of many uses, int64 ``[len(uses), count]``, exactly uniform over ``[0, prime)`` for a true stream.

        Words of the stream are cut to the prime's bits and those beyond it left out (rejection sampling).

        Args:
            uses: numbers of the uses, each below 2^64.
            product: number of the product, below 2^32.
            count: residues of a mask, below 2^33.
            prime: the modulus, below 2^63.
        """
        block = np.empty((len(uses), count * WORD_BYTES), dtype=np.uint8)
        zeros = bytes(count * WORD_BYTES)
        for row, use in zip(block, uses, strict=True):
            self._keystream(use, product).update_into(zeros, row.data)
        words = block.view("<u8")
        words &= np.uint64(2 ** prime.bit_length() - 1)
        # one in 2^36 words of the shipped primes: masks are drawn whole, and again word by word where that happens
        for index in np.flatnonzero((words >= prime).any(1)):
            words[index] = self._accepted(uses[int(index)], product, count, prime)
        return torch.from_numpy(words.view(np.int64))

    def _accepted(self, use: int, product: int, count: int, prime: int) -> NDArray[np.uint64]:
        """The first ``count`` words of a stream that lie below the prime."""
        keystream = self._keystream(use, product)
        accepted = np.empty(0, dtype=np.uint64)
        while len(accepted) < count:
            words = np.frombuffer(keystream.update(bytes((count - len(accepted)) * WORD_BYTES)), dtype="<u8")
            words = words & np.uint64(2 ** prime.bit_length() - 1)
            accepted = np.concatenate([accepted, words[words < prime]])
        return accepted

    def _keystream(self, use: int, product: int) -> CipherContext:
        # RFC 8439: a 32-bit block counter from zero, then 96 bits of nonce
        nonce = bytes(4) + use.to_bytes(8, "little") + product.to_bytes(4, "little")
        return Cipher(algorithms.ChaCha20(self._key, nonce), mode=None).encryptor()
