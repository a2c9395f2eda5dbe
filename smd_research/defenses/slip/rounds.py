"""A round of the protocol at the trusted side: encode, mask, ask, check, unmask, add the secret part.

Reconstructed from the abstracts of arXiv 2407.10886 and 2510.24999 (the papers' protocol text was out of reach):

    x~ = round(a / step) + r mod p   ->   y~ = W_exposed x~ mod p   ->   s^T y~ = q^T x~ mod p ?
    z  = lift(y~ - c) step scale + left (right a) + bias

What crosses is ``x~``, ``y~`` and the numbers of product and masks: with a uniform ``r`` that is used once, ``x~`` is
uniform in the field and independent of ``a``, and ``y~`` is what the device makes of it. ``step``, one for each row
(see ``FixedPoint``), tells how long a row is; it is made and used here, and no message, shape or refusal depends on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from smd_research.boundary import Channel
from smd_research.boundary.messages import MaskedInput, MaskedOutput, Message
from smd_research.core.errors import LabError, PeerLostError, ProtocolError
from smd_research.defenses.slip.masking import Masking
from smd_research.defenses.slip.products import Product
from smd_research.mechanisms.integers.field import Field
from smd_research.mechanisms.integers.fixed_point import FixedPoint, FixedPointOverflowError
from smd_research.mechanisms.integers.freivalds import Challenge

MESSAGE_BYTES = 8 * 2**20
"""Rows that would make a longer message go in several: larger ones are no faster and take room several times over."""


@dataclass(frozen=True, repr=False)
class Secret:
    """What the trusted side keeps of one fused product ``[rows, n] -> [rows, m]``.

    Attributes:
        product: which one.
        right: secret directions of all its layers ``[K, n]`` (fp32), or None where no layer has any.
        left: their images ``[K, m]`` (fp32), zero where a direction belongs to another layer.
        bias: ``[m]`` (fp32), or None.
    """

    product: Product
    right: Tensor | None
    left: Tensor | None
    bias: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(part.nbytes for part in (self.right, self.left, self.bias) if part is not None)

    def low_rank(self, a: Tensor) -> Tensor:
        """What the secret part makes of plain inputs ``[rows, n]``: ``[rows, m]`` (fp32)."""
        if self.right is None or self.left is None:
            return torch.zeros(len(a), self.product.height, device=a.device)
        return (a @ self.right.T) @ self.left

    def complete(self, z: Tensor, a: Tensor) -> Tensor:
        """Bias and secret part added to the exposed part's product ``[rows, m]`` (fp32)."""
        if self.bias is not None:
            z += self.bias
        if self.right is not None and self.left is not None:
            z = torch.addmm(z, a @ self.right.T, self.left)
        return z


class Rounds:
    """Runs rounds with the device until one fails; then the session is over.

    Args:
        field: of the residues.
        secrets: by product.
        points: how numbers become integers and back, by product.
        masking: hides the inputs.
        challenges: by product; empty leaves replies unchecked.
    """

    def __init__(
        self,
        field: Field,
        secrets: Mapping[int, Secret],
        points: Mapping[int, FixedPoint],
        masking: Masking,
        challenges: Mapping[int, Challenge],
    ) -> None:
        self._field = field
        self._secrets = secrets
        self._points = points
        self._challenges = challenges
        self.masking = masking
        self.channel: Channel | None = None
        self.rows: dict[int, int] = dict.fromkeys(secrets, 0)
        self._over: str | None = None

    @property
    def checked(self) -> bool:
        """Whether replies are checked."""
        return bool(self._challenges)

    def accepts(self, number: int, sent: Tensor, y: Tensor) -> bool:
        """Whether residues ``[rows, m]`` pass for the exposed product of what was sent, residues ``[rows, n]``.

        A session asks this of every reply, and ends at the first that does not pass.
        """
        challenge = self._challenges.get(number)
        return challenge is None or challenge.accepts(sent, y)

    def run(self, number: int, a: Tensor) -> Tensor:
        """The whole product of plain inputs ``[rows, n]``: ``[rows, m]`` (fp32).

        Raises:
            ProtocolError: when the device answers wrongly or has gone; the session is over, its masks are burnt.
            FixedPointOverflowError: for an activation that is not finite; nothing of it was sent.
            MasksExhaustedError: when the masks do not suffice.
        """
        product = self._secrets[number].product
        most = max(1, MESSAGE_BYTES // (8 * max(product.height, product.width)))
        parts = [self._round(number, part) for part in torch.split(a.float(), most)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def ask(self, message: Message) -> Message:
        """Send the device a request of another kind; its failure ends the session as well."""
        self._check_open()
        assert self.channel is not None
        try:
            return self.channel.request(message)
        except PeerLostError as error:
            self.abort(f"the device was lost ({error})", PeerLostError)
        except ProtocolError as error:
            self.abort(f"the device refused {type(message).__name__} ({error})")

    def abort(self, reason: str, kind: type[LabError] = ProtocolError) -> NoReturn:
        """End the session: burn its masks and say why.

        Raises:
            LabError: of that kind, always.
        """
        self._over = reason
        self.masking.abort(reason)
        raise kind(f"{reason}: the session is aborted and its masks are burnt; deploy again")

    def _check_open(self) -> None:
        if self._over is not None:
            raise ProtocolError(f"the session is over ({self._over}): deploy again")

    def _round(self, number: int, a: Tensor) -> Tensor:
        self._check_open()
        secret, point = self._secrets[number], self._points[number]
        try:
            x, step = point.encode(a)
        except FixedPointOverflowError as error:
            raise FixedPointOverflowError(f"product {secret.product.name}: {error}") from None
        masks = self.masking.take(number, len(x))
        self.rows[number] += len(x)
        sent = self.masking.hide(x, masks)
        reply = self.ask(MaskedInput(sent, number, masks.use))
        y = self._checked(reply, sent, secret.product, masks.use)
        return secret.complete(point.decode(self.masking.reveal(y, masks), step), a)

    def _checked(self, reply: Message, sent: Tensor, product: Product, use: int) -> Tensor:
        """The residues ``[rows, m]`` of a reply that holds what was asked for."""
        if not isinstance(reply, MaskedOutput):
            self.abort(f"the device answered product {product.name} with {type(reply).__name__}")
        if (reply.product, reply.use) != (product.number, use):
            self.abort(
                f"the device answered product {product.number}, use {use} with product {reply.product}, use {reply.use}"
            )
        if reply.y.shape != (len(sent), product.height) or reply.y.dtype != sent.dtype:
            self.abort(
                f"the device answered product {product.name} with {reply.y.dtype} {list(reply.y.shape)} where "
                f"{sent.dtype} {[len(sent), product.height]} is due"
            )
        y = reply.y.to(sent.device)
        if not sent.is_floating_point():
            low, high = torch.aminmax(y)
            if int(low) < 0 or int(high) >= self._field.prime:  # an honest device never sends such
                y = self._field.reduce(y)
            if not self.accepts(product.number, sent, y):
                self.abort(f"the device's answer to product {product.name} is not the product")
        return y
