"""The two parties of a weight decomposition, deployed: masked throughout, or with the device in the clear."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from smd_research.boundary import Boundary
from smd_research.boundary.messages import PromptIds, Tokens, token_tensor
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import Deployment, Generation, Memory
from smd_research.defenses.slip.clear_device import ClearDevice, shell_of
from smd_research.defenses.slip.device import MaskedDevice
from smd_research.defenses.slip.keeper import Keeper, LowRankKeeper
from smd_research.defenses.slip.parts import Halves
from smd_research.defenses.slip.rounds import Rounds
from smd_research.mechanisms.integers.field import Field
from smd_research.models.bundle import Bundle


class SlipDeployment(Deployment):
    """``visibility=strict``: the device sees token ids, residues and nothing else.

    Args:
        bundle: the whole model.
        boundary: joins the parties.
        parts: the two halves of every product.
        rounds: of the protocol.
        field: of the residues.
        shows: what the device sees.

    Attributes:
        keeper: the trusted side; ``keeper.start`` and ``keeper.forward`` decode batches of equal length.
        rounds: its rounds, with the masks and what they cost ahead of time.
    """

    def __init__(
        self,
        bundle: Bundle,
        boundary: Boundary,
        parts: Halves,
        rounds: Rounds,
        field: Field,
        shows: frozenset[Observable],
    ) -> None:
        self.keeper = Keeper(bundle, parts.products, rounds, rounds.checked)
        super().__init__(bundle, boundary, self.keeper, shows)
        self.parts = parts
        self.rounds = rounds
        embedding = bundle.model.get_input_embeddings()
        factory = partial(MaskedDevice, embedding, parts.products, field)
        self._channel = rounds.channel = boundary.open(self.keeper, factory)
        for message in parts.messages():
            self._channel.notify(message)

    def reserve(self, rows: int, last: int) -> None:
        """Prepare masks ahead of a request: offline work.

        Args:
            rows: token rows that will run through the blocks, batch entries counted one by one.
            last: rows whose logits will be wanted.

        Raises:
            MasksExhaustedError: when they may not be prepared.
        """
        *blocks, head = (product.number for product in self.parts.products)
        self.rounds.masking.reserve({**dict.fromkeys(blocks, rows), head: last})

    def generate(self, prompt: Prompt, max_new_tokens: int, draw: int | None = None) -> Generation:
        """As every deployment; the masks are prepared before the clock starts."""
        self.bundle.check_prompt(len(prompt.ids), max_new_tokens)
        self.reserve(len(prompt.ids) + max_new_tokens - 1, max_new_tokens)
        return super().generate(prompt, max_new_tokens, draw)

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        self.rounds.masking.begin(self.draw)
        self.rounds.rows = dict.fromkeys(self.rounds.rows, 0)

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        self.keeper.start(max_new_tokens)
        if forced is not None:
            whole = torch.tensor([[*ids, *forced[:-1]]])
            return list(self.keeper.forward(whole, last_only=False)[0, len(ids) - 1 :])
        feed = torch.tensor([list(ids)])
        for step in range(max_new_tokens):
            token = int(self.keeper.forward(feed)[0, -1].argmax())
            self.keeper.take(token)
            if token in self.bundle.end_ids or step + 1 == max_new_tokens:
                self._channel.notify(Tokens(token_tensor([token])))  # the user reads it at the device
                break
            feed = torch.tensor([[token]])
        return []

    @property
    def facts(self) -> Mapping[str, float]:
        """Offline work of the last request's masks: a share, by operations, of all that was prepared."""
        masking, offline = self.rounds.masking, self.rounds.masking.offline
        if not offline.rows:
            return {}
        sizes = {product.number: product.height for product in self.parts.products}
        weights = {product.number: product.height * product.width for product in self.parts.products}
        flops = sum(2 * rows * weights[number] for number, rows in self.rounds.rows.items())
        return {
            "offline_s": offline.seconds * flops / offline.flops,
            "offline_gflop": flops / 1e9,
            "masks_mb": sum(8 * rows * sizes[number] for number, rows in self.rounds.rows.items()) / 1e6,
            "bank_mb": masking.nbytes / 1e6,
        }

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        secret = sum(one.nbytes for one in self.parts.secrets.values())
        exposed = sum(one.weights.nbytes + one.scale.nbytes for one in self.parts.exposed.values())
        ours = self.keeper.weight_bytes + secret + exposed
        return Memory(held["weights"] + ours, self.keeper.kv_bytes, held["kv"])

    def __exit__(self, *details: object) -> None:
        self.rounds.masking.close()
        self.boundary.close()


class BoundaryDeployment(Deployment):
    """``visibility=boundary``: the device generates in the clear and asks for the secret part's products.

    Args:
        bundle: the whole model.
        boundary: joins the parties.
        parts: the two halves of every product.
        shows: what the device sees.
    """

    def __init__(self, bundle: Bundle, boundary: Boundary, parts: Halves, shows: frozenset[Observable]) -> None:
        secrets = {number: one for number, one in parts.secrets.items() if one.right is not None}
        self._keeper = LowRankKeeper(secrets, bundle.device)
        super().__init__(bundle, boundary, self._keeper, shows)
        self.parts = parts
        shell = shell_of(bundle, parts.products)
        factory = partial(ClearDevice, shell, parts.products, frozenset(secrets))
        self._channel = boundary.open(self._keeper, factory)
        for message in parts.messages():
            self._channel.notify(message)

    def _begin(self, draw: int | None = None) -> None:
        super()._begin(draw)
        self._keeper.pairs = dict.fromkeys(self._keeper.pairs, 0)

    def _request(self, ids: Sequence[int], max_new_tokens: int, forced: Sequence[int] | None) -> list[Tensor]:
        self._channel.request(PromptIds(token_tensor(tuple(ids)), max_new_tokens))
        return [] if forced is None else self.tapped()

    @property
    def facts(self) -> Mapping[str, float]:
        """Plain pairs of input and output that one secret product gave away in the last request."""
        return {"plain_pairs": float(max(self._keeper.pairs.values(), default=0))}

    def memory(self) -> Memory:
        held = self.boundary.tap("memory")
        secret = sum(one.nbytes for one in self.parts.secrets.values())
        return Memory(held["weights"] + secret, 0, held["kv"])
