"""A shaking key: 128 secret bits, what they decide, and the model they belong to (reconstructed; arXiv 2403.07283).

The file is JSON with a checksum keyed by the secret (BLAKE2b), so that an altered, truncated or foreign file is named
as such before anything is encoded with it.
"""

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from smd_research.core.errors import ConfigError
from smd_research.mechanisms.shaking.operators import Vertical, check_vertical
from smd_research.mechanisms.shaking.streams import KeyStream
from smd_research.models.bundle import Bundle
from smd_research.models.tables import input_table

VERSION = 1
SECRET_BYTES = 16
FORMAT = "smd-research shaking key"


def tokenizer_digest(bundle: Bundle) -> str:
    """A short digest of a tokenizer's vocabulary and special ids."""
    vocabulary = sorted(bundle.tokenizer.get_vocab().items())
    content = json.dumps([vocabulary, sorted(bundle.special_ids)], ensure_ascii=True)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, repr=False)
class Key:
    """A key; its repr never shows the secret.

    Attributes:
        version: of the format and of what is derived from the secret.
        secret: 16 bytes.
        model: fingerprint of the model it belongs to.
        tokenizer: digest of the model's vocabulary.
        vocab: rows of the model's table.
        width: columns of the model's table.
        fraction: share of the ids that are not special that horizontal shaking permutes, 0 to 1.
        homophones: cipher ids of each frequent id, from 1.
        frequent: the ids that have so many, by public text.
        vertical: vertical operators with their strengths, in order.
        labels: whether the labels of tuning and classification are permuted.

    Raises:
        ConfigError: for a value out of range.
    """

    version: int
    secret: bytes
    model: str
    tokenizer: str
    vocab: int
    width: int
    fraction: float
    homophones: int
    frequent: tuple[int, ...]
    vertical: Vertical
    labels: bool

    def __post_init__(self) -> None:
        if len(self.secret) != SECRET_BYTES:
            raise ConfigError(f"a key's secret has {SECRET_BYTES} bytes ({2 * SECRET_BYTES} hexadecimal digits)")
        if not 0 <= self.fraction <= 1:
            raise ConfigError(f"fraction={self.fraction:g} is out of range: it is a share of the ids, 0 to 1")
        if self.homophones < 1:
            raise ConfigError(f"homophones={self.homophones} is out of range: 1 is an id of its own for each token")
        check_vertical(self.vertical)

    @classmethod
    def draw(
        cls,
        bundle: Bundle,
        *,
        vertical: Vertical = (),
        fraction: float = 1.0,
        homophones: int = 1,
        frequent: tuple[int, ...] = (),
        labels: bool = False,
        secret: bytes | None = None,
    ) -> "Key":
        """A key for a model.

        Args:
            bundle: the model.
            vertical: see the attributes, as for the next four.
            fraction: of the ids.
            homophones: of each frequent id.
            frequent: ids.
            labels: whether labels are permuted.
            secret: 16 bytes; None: from the operating system.

        Raises:
            ConfigError: for a value out of range.
            UnsupportedModelError: for a model without a separable embedding.
        """
        vocab, width = input_table(bundle).shape
        drawn = secrets.token_bytes(SECRET_BYTES) if secret is None else secret
        belongs = bundle.fingerprint(), tokenizer_digest(bundle), vocab, width
        frequent = frequent if homophones > 1 else ()
        return cls(VERSION, drawn, *belongs, float(fraction), homophones, frequent, vertical, labels)

    def stream(self, *words: str | int) -> KeyStream:
        """The key's stream for a purpose."""
        return KeyStream(self.secret, ("key", self.version, *words))

    @property
    def public(self) -> Mapping[str, Any]:
        """Everything but the secret (Kerckhoffs)."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "secret"}

    @property
    def name(self) -> str:
        """A short name of the whole key that says nothing of its secret."""
        return hashlib.blake2b(_canonical(self.public), key=self.secret, digest_size=8).hexdigest()

    def check(self, bundle: Bundle) -> None:
        """Checks that the key belongs to a model.

        Raises:
            ConfigError: saying whether tokenizer or model is another.
        """
        if self.tokenizer != tokenizer_digest(bundle):
            raise ConfigError(f"this key belongs to another tokenizer than that of {bundle.name}: draw a key for it")
        if self.model != bundle.fingerprint():
            raise ConfigError(
                f"this key belongs to another model than {bundle.name} (weights {self.model}, not "
                f"{bundle.fingerprint()}): load that model, or draw a key for this one"
            )

    def save(self, path: Path) -> None:
        """Write the key to a file that only its owner may read, whole or not at all.

        Raises:
            ConfigError: when it cannot be written.
        """
        content = {"format": FORMAT, **self.public, "secret": self.secret.hex()}
        text = json.dumps({**content, "check": _check(content, self.secret)}, indent=1) + "\n"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                Path(part).replace(path)
            except OSError:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ConfigError(f"the key file {path} cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> "Key":
        """Read a key; ``check`` then says whether it belongs to a model.

        Raises:
            ConfigError: for a file that is missing, truncated, altered, of another version, or no key at all; the
                message quotes nothing of its content.
        """
        content = _read(path)
        if content.get("format") != FORMAT:
            raise ConfigError(f"{path} is no shaking key: give the file that a key was saved to")
        if content.get("version") != VERSION:
            raise ConfigError(f"the key file {path} is of a version that is unknown here (known: {VERSION})")
        found = content.pop("check", None)
        try:
            secret = bytes.fromhex(content["secret"])
            intact = found == _check(content, secret)
        except (KeyError, TypeError, ValueError):
            intact = False
        if not intact:
            raise ConfigError(f"the key file {path} was altered: its checksum does not hold; take a copy of it")
        values = {field.name: content[field.name] for field in fields(cls)}
        vertical = tuple((str(name), float(strength)) for name, strength in content["vertical"])
        return cls(**{**values, "secret": secret, "vertical": vertical, "frequent": tuple(content["frequent"])})

    def __repr__(self) -> str:
        return f"Key({self.name}, vertical={self.vertical}, fraction={self.fraction:g}, homophones={self.homophones})"


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"the key file {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ConfigError(f"the key file {path} is truncated or no key at all: it is not JSON") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no shaking key: give the file that a key was saved to")
    return content


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _check(content: Mapping[str, Any], secret: bytes) -> str:
    return hashlib.blake2b(_canonical(content), key=secret[:64], digest_size=16).hexdigest()
