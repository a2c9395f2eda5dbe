"""Every random choice of a key, from its secret: a keyed extendable-output function (SHAKE-256, FIPS 202).

Streams are told apart by words (domain separation), never by an order of calls: one stream always gives the same
values, and a second set of values comes from a child of another name.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtri

VERSION = "smd-research shaking stream 1"
LEAST_BYTES = 16

Floats = NDArray[np.float64]


class KeyStream:
    """A stream of a secret and of the words that name a purpose.

    Args:
        secret: at least 16 bytes.
        words: the purpose.

    Raises:
        ValueError: for a shorter secret.
    """

    def __init__(self, secret: bytes, words: tuple[str | int, ...] = ()) -> None:
        if len(secret) < LEAST_BYTES:
            raise ValueError(f"a key's secret has at least {LEAST_BYTES} bytes, not {len(secret)}")
        self._secret = secret
        self._words = words

    def child(self, *words: str | int) -> "KeyStream":
        """The independent stream of a purpose within this one."""
        return KeyStream(self._secret, (*self._words, *words))

    def octets(self, count: int) -> bytes:
        """The first ``count`` bytes."""
        return self._read("octets", count)

    def words(self, count: int) -> NDArray[np.uint64]:
        """Uniform 64-bit words ``[count]``."""
        return np.frombuffer(self._read("words", 8 * count), dtype="<u8").astype(np.uint64)

    def uniform(self, *shape: int) -> Floats:
        """Uniform in the open interval (0, 1), 53 bits."""
        return self._uniform("uniform", shape)

    def normal(self, *shape: int) -> Floats:
        """Standard normal, by the inverse of its distribution function."""
        return np.asarray(ndtri(self._uniform("normal", shape)), dtype=np.float64)

    def gamma(self, shape: float, scale: float, size: int) -> Floats:
        """Gamma with a shape and a scale, ``[size]``, by the inverse of its distribution function."""
        return np.asarray(scale * gammaincinv(shape, self._uniform("gamma", (size,))), dtype=np.float64)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """A uniform permutation of ``0 .. count - 1`` (two of its 64-bit sort keys coincide with chance n^2 / 2^65)."""
        keys = np.frombuffer(self._read("permutation", 8 * count), dtype="<u8")
        return np.argsort(keys, kind="stable").astype(np.int64)

    def _uniform(self, purpose: str, shape: tuple[int, ...]) -> Floats:
        words = np.frombuffer(self._read(purpose, 8 * math.prod(shape)), dtype="<u8")
        centred: Floats = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return centred.reshape(shape)

    def _read(self, purpose: str, count: int) -> bytes:
        """The stream of this secret, these words and a way of use; each part is preceded by its kind and length."""
        hashed = hashlib.shake_256()
        parts = [VERSION.encode(), self._secret, *(_encoded(word) for word in self._words), purpose.encode()]
        for part in parts:
            hashed.update(len(part).to_bytes(8, "little") + part)
        return hashed.digest(count)

    def __repr__(self) -> str:
        return f"KeyStream({'/'.join(map(str, self._words))})"


def _encoded(word: str | int) -> bytes:
    return b"i" + str(word).encode() if isinstance(word, int) else b"s" + word.encode()
