"""The trusted side (Charlie): the secret part, attention, norms and everything else that is not linear."""

from functools import partial

import torch
from torch import Tensor, nn

from smd_research.boundary.messages import HiddenStates, LowRankInput, LowRankOutput, Message, PromptIds, Tokens
from smd_research.core.errors import ProtocolError
from smd_research.defenses.base import Client
from smd_research.defenses.slip.fused import stands, with_modules
from smd_research.defenses.slip.products import Product
from smd_research.defenses.slip.rounds import Rounds, Secret
from smd_research.mechanisms.integers.row_digests import RowDigests
from smd_research.models.attention import LocalAttention
from smd_research.models.bundle import Bundle
from smd_research.models.hooked import HookedModel


class Keeper(Client):
    """Runs the model with the device's help: every linear layer and the head are rounds of the protocol.

    Token ids go to the device, which looks their embeddings up; the rest of what crosses is masked. Batches decode
    together: rows of equal length, one message for all of them.

    Args:
        bundle: the whole model; its linear weights are not used.
        products: its fused products.
        rounds: runs them.
        verify: whether look-ups are checked too: a device that may choose what a token means asks the model questions
            that no prompt can ask.
    """

    def __init__(self, bundle: Bundle, products: tuple[Product, ...], rounds: Rounds, verify: bool = True) -> None:
        super().__init__()
        self._bundle = bundle
        self._rounds = rounds
        table = bundle.model.get_input_embeddings()
        self._rows = RowDigests(table, bundle.embedding.shape[0], bundle.device) if verify else None
        modules: dict[str, nn.Module] = {_embedding_name(bundle): _Lookup(self)}
        for product in products:
            modules |= stands(product, partial(rounds.run, product.number))
        held = with_modules(bundle, modules)
        self.weight_bytes = held.weight_bytes + (self._rows.nbytes if self._rows else 0)
        self._model = HookedModel(held)
        self.start(0)

    def start(self, max_new_tokens: int) -> None:
        """Begin a request; its prompt comes with the next ``forward``."""
        self._attention = LocalAttention()
        self._position = 0
        self._max_new_tokens = max_new_tokens

    @torch.inference_mode()
    def forward(self, ids: Tensor, *, last_only: bool = True) -> Tensor:
        """Run new tokens, after those of earlier calls.

        Args:
            ids: ``[B, rows]``, every row of the batch equally long.
            last_only: logits of the last row alone.

        Returns:
            Logits ``[B, rows or 1, vocab]``.

        Raises:
            ProtocolError: when the device failed; the session is over.
            FixedPointOverflowError: for an activation that is not finite; this request cannot be served.
            MasksExhaustedError: when the masks do not suffice.
        """
        ids = ids.to(self._bundle.device)
        positions = torch.arange(self._position, self._position + ids.shape[1], device=ids.device)
        logits = self._model.forward(self._attention, positions, ids=ids, last_only=last_only)
        self._position += ids.shape[1]
        return logits

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings ``[B, rows, width]`` of token ids ``[B, rows]``, looked up by the device."""
        flat = ids.flatten().to(torch.int32)
        asked = Tokens(flat) if self._position else PromptIds(flat, self._max_new_tokens)
        answer = self._rounds.ask(asked)
        due = (len(flat), self._bundle.embedding.shape[1])
        if not isinstance(answer, HiddenStates) or answer.hidden.shape != due:
            self._rounds.abort(f"the device answered {due[0]} token ids with something else than their embeddings")
        if self._rows and not self._rows.accepts(flat, answer.hidden):
            self._rounds.abort(f"the device's answer to {due[0]} token ids is not their embeddings")
        return answer.hidden.to(ids.device, self._bundle.dtype).view(*ids.shape, -1)

    @property
    def kv_bytes(self) -> int:
        """Bytes of keys and values held."""
        return self._attention.store.nbytes


class LowRankKeeper(Client):
    """The trusted side in ``boundary`` visibility: it answers plain inputs with the secret part's product.

    Args:
        secrets: by product.
        device: where they are.
    """

    def __init__(self, secrets: dict[int, Secret], device: torch.device) -> None:
        super().__init__()
        self._secrets = secrets
        self._device = device
        self.pairs: dict[int, int] = dict.fromkeys(secrets, 0)

    @torch.inference_mode()
    def handle(self, message: Message) -> Message | None:
        if not isinstance(message, LowRankInput):
            return super().handle(message)
        secret = self._secrets.get(message.product)
        if secret is None or message.x.dim() != 2 or message.x.shape[1] != secret.product.width:
            raise ProtocolError(f"there is no product {message.product} for inputs {list(message.x.shape)}")
        self.pairs[message.product] += len(message.x)
        return LowRankOutput(secret.low_rank(message.x.to(self._device).float()), message.product)


class _Lookup(nn.Module):
    """Stands in place of the token embedding, which is the device's."""

    def __init__(self, keeper: Keeper) -> None:
        super().__init__()
        self._ask = keeper.embed

    def forward(self, ids: Tensor) -> Tensor:
        """``[B, rows]`` to ``[B, rows, width]``."""
        return self._ask(ids)

    def __deepcopy__(self, memo: object) -> "_Lookup":
        return self


def _embedding_name(bundle: Bundle) -> str:
    table = bundle.model.get_input_embeddings()
    return next(str(name) for name, module in bundle.model.named_modules() if module is table)
