"""Chosen queries against a vault's layer 0: where to aim the next one, and what its answer gives away.

A query of large norm leaves one key with all the weight: ``A`` is then that key's value vector, which names the token,
and ``m`` its score, which names the position. A key that no such query has isolated is aimed at along Fisher's
direction between it and all keys known or expected elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attacks.transcript import Exchanges
from smd_research.models.bundle import Bundle
from smd_research.models.extension import ExtensionEngine
from smd_research.models.rotation import rotation_of

_ALONE = 1e-4  # largest share of the weight that other keys may have beside an isolated one
_SHORTLIST = 4
_SCORE_UNITS = 8.0  # rounding of a score, in machine epsilons of |q| |k|
_RIDGE = 1e-3


class LayerZero:
    """What every token contributes at layer 0: its key at any position, its value.

    One table that can be turned to all positions; with learned positions there is one a position, kept once made.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._engine = ExtensionEngine(bundle, 1)
        self._turns = self._engine.one_table
        self._base = self._engine.layer0(0)
        self._tables = {0: (self._base.k, self._base.v)}
        self.bundle = bundle
        self.spec = self._base.spec
        self.kv_heads = self._base.k.shape[1]

    def at(self, position: int) -> tuple[Tensor, Tensor]:
        """Keys (rotated) and values ``[vocab, kv_heads, head_dim]`` of all tokens at a position."""
        if not self._turns and position not in self._tables:
            self._tables[position] = self._engine.layer0_keys(position)
        if not self._turns:
            return self._tables[position]
        return self._rotated(self._base.k, [position]).squeeze(-2), self._base.v

    def keys(self, tokens: Tensor, position: int) -> Tensor:
        """Keys ``[*tokens, kv_heads, head_dim]`` of some tokens at a position."""
        if self._turns:
            return self._rotated(self._base.k[tokens], [position]).squeeze(-2)
        return self.at(position)[0][tokens]

    def values(self, tokens: Tensor, position: int) -> Tensor:
        """Values ``[*tokens, kv_heads, head_dim]`` of some tokens at a position."""
        return self._base.v[tokens] if self._turns else self.at(position)[1][tokens]

    def _rotated(self, keys: Tensor, positions: Sequence[int]) -> Tensor:
        where = torch.tensor(positions, device=keys.device)
        spread = keys.unsqueeze(-2).expand(*keys.shape[:-1], len(positions), -1)
        return rotation_of(self.bundle, 1).keys(0, spread, where)

    def fits(self, answers: "Isolated", positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """How well tokens and positions explain isolated answers.

        Args:
            answers: one row each.
            positions: where the key may stand.

        Returns:
            Shortlisted tokens ``[rows, positions, c]``, and the larger of the errors of score and value, in units of
            what rounding explains, same shape.
        """
        tokens: list[Tensor] = []
        errors: list[Tensor] = []
        for position in positions:
            if not tokens or not self._turns:
                named, value_error = self._nearest(answers, position)
            keys = self.keys(named, position).gather(2, _head_index(answers.head, named, self._base.k.shape[-1]))
            score = torch.einsum("rcd,rd->rc", keys[:, :, 0].float(), answers.q.float())
            off = (score - answers.score[:, None]).abs() / answers.score_slack(keys[:, :, 0])
            tokens.append(named)
            errors.append(torch.maximum(off, value_error))
        return torch.stack(tokens, 1), torch.stack(errors, 1)

    def _nearest(self, answers: "Isolated", position: int) -> tuple[Tensor, Tensor]:
        """The tokens with the nearest values ``[rows, c]`` and their errors in units of rounding."""
        _, values = self.at(position)
        named = torch.zeros(len(answers.head), _SHORTLIST, dtype=torch.long, device=values.device)
        errors = torch.zeros(len(answers.head), _SHORTLIST, device=values.device)
        for head in sorted(set(answers.head.tolist())):
            rows = answers.head == head
            table = values[:, head].float()
            near = torch.cdist(answers.a[rows], table).topk(_SHORTLIST, largest=False).indices
            named[rows] = near
            off = (answers.a[rows][:, None] - table[near]).abs().amax(-1)
            errors[rows] = off / answers.value_slack(float(table.abs().amax()))[rows][:, None]
        return named, errors


def _head_index(head: Tensor, tokens: Tensor, width: int) -> Tensor:
    return head[:, None, None, None].expand(-1, tokens.shape[1], 1, width)


@dataclass(frozen=True)
class Isolated:
    """Answers in which one key has all the weight, one row each.

    Attributes:
        q: the query, scaled ``[rows, head_dim]``.
        head: key/value head ``[rows]``.
        score: the key's score ``[rows]``.
        a: the key's value ``[rows, head_dim]``.
        wire: machine epsilon of ``a`` on the wire.
        computed: machine epsilon of the vault's arithmetic.
    """

    q: Tensor
    head: Tensor
    score: Tensor
    a: Tensor
    wire: float
    computed: float

    @classmethod
    def among(cls, seen: Exchanges, layer: LayerZero) -> "Isolated":
        """The isolated answers of some exchanges at layer 0."""
        alone = (seen.g - 1 < _ALONE) & seen.m.isfinite()
        if layer.spec.softcap:
            alone &= seen.m.abs() < 0.9 * layer.spec.softcap
        group = seen.q.shape[1] // layer.kv_heads
        step, head = alone.nonzero(as_tuple=True)
        dtype = layer.bundle.dtype
        score = seen.m[step, head].float()
        if layer.spec.softcap:
            score = layer.spec.softcap * torch.atanh(score / layer.spec.softcap)
        return cls(
            q=(seen.q[step, head].to(dtype) * layer.spec.scale).float(),
            head=head // group,
            score=score,
            a=seen.a[step, head].float(),
            wire=torch.finfo(seen.a.dtype).eps,
            computed=torch.finfo(dtype).eps,
        )

    def score_slack(self, keys: Tensor) -> Tensor:
        """Error of a score that rounding explains ``[rows, c]``, for keys ``[rows, c, head_dim]``."""
        sizes: Tensor = self.q.norm(dim=-1)[:, None] * keys.float().norm(dim=-1)
        return self.computed * (_SCORE_UNITS * sizes + 1)

    def value_slack(self, largest: float) -> Tensor:
        """Error of a value that rounding and the rest of the weight explain ``[rows]``."""
        return self.wire * self.a.abs().amax(-1) + (8 * self.computed + 2 * _ALONE) * largest


def read(answers: Isolated, layer: LayerZero, positions: Sequence[int]) -> dict[int, int]:
    """Tokens by position, as far as isolated answers name them: each by exactly one token at one position.

    Args:
        answers: rows to read.
        layer: tables of layer 0.
        positions: positions whose keys are in the vault.
    """
    if not len(answers.head) or not positions:
        return {}
    tokens, errors = layer.fits(answers, positions)
    fits = errors <= 1
    found: dict[int, int] = {}
    for row in (fits.flatten(1).sum(1) == 1).nonzero()[:, 0].tolist():
        place, rank = divmod(int(fits[row].flatten().nonzero()), tokens.shape[2])
        found[positions[place]] = int(tokens[row, place, rank])
    return found


def last_one(seen: Exchanges, layer: LayerZero, known: Mapping[int, int], position: int) -> tuple[int, bool]:
    """The token at the only position that is not known, from what the others leave unexplained.

    ``exp(l) = sum over known keys + exp(s)`` leaves one unknown score an answer; every token is tried.

    Returns:
        The token, and whether it alone explains all answers to rounding.
    """
    group = seen.q.shape[1] // layer.kv_heads
    keys, _ = layer.at(position)
    q = seen.q.to(layer.bundle.dtype).float() * layer.spec.scale
    others = torch.stack([layer.keys(torch.tensor(token, device=q.device), at) for at, token in known.items()])
    rest = _capped(torch.einsum("thd,phd->thp", q, others.float().repeat_interleave(group, 1)), layer).logsumexp(-1)
    own = _capped(torch.einsum("thd,xhd->xth", q, keys.float().repeat_interleave(group, 1)), layer)
    longest = keys.float().norm(dim=-1).amax()
    slack = torch.finfo(layer.bundle.dtype).eps * (_SCORE_UNITS * (q.norm(dim=-1) * longest + 1) + 4 * seen.m.abs())
    off = (torch.logaddexp(own, rest) - seen.log_weight.float()).abs() / slack
    error = off.flatten(1).square().mean(1)
    best = error.topk(2, largest=False)
    return int(best.indices[0]), bool(off[best.indices[0]].max() <= 1) and bool(off[best.indices[1]].max() > 1)


def _capped(scores: Tensor, layer: LayerZero) -> Tensor:
    cap = layer.spec.softcap
    return cap * torch.tanh(scores / cap) if cap else scores


def aim(
    layer: LayerZero, known: Mapping[int, int], positions: Iterable[int], heads: int, rng: np.random.Generator
) -> Tensor:
    """Directions ``[heads, head_dim]`` of unit length, each along one key that is not known.

    The key is that of a random token at a random open position; it is told apart from the known keys and from what
    keys at the other open positions look like (Fisher's linear discriminant).
    """
    device, vocabulary = layer.bundle.device, layer.bundle.geometry.vocab
    open_ones = [p for p in positions if p not in known]
    targets = rng.choice(open_ones, heads)
    guesses = torch.from_numpy(rng.integers(0, vocabulary, heads)).to(device)
    stand_ins = torch.from_numpy(rng.integers(0, vocabulary, (len(open_ones), 8))).to(device)
    expected = torch.stack([layer.keys(stand_ins[i], p) for i, p in enumerate(open_ones)]).float()
    taken = [layer.keys(torch.tensor([token], device=device), p).float() for p, token in known.items()]
    group, rows = heads // layer.kv_heads, []
    for head in range(heads):
        kv = head // group
        elsewhere = [i for i, p in enumerate(open_ones) if p != targets[head]] or [0]
        others = torch.cat([*(k[:, kv] for k in taken), expected[elsewhere, :, kv].mean(1)])
        spread = expected[:, :, kv] - expected[:, :, kv].mean(1, keepdim=True)
        spread = torch.einsum("pcd,pce->de", spread, spread) / spread.shape[1]
        centre = others.mean(0)
        scatter = (others - centre).T @ (others - centre) + spread / 2
        scatter += _RIDGE * scatter.trace() / len(scatter) * torch.eye(len(scatter), device=device)
        toward = layer.keys(guesses[head], int(targets[head])).float()[kv] - centre
        rows.append(torch.linalg.solve(scatter, toward))
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1)
