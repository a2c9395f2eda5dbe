"""Query audit: does a vault answer a decode, or someone who reads its keys?

An honest provider asks each layer once a token, in order, with queries that look like the model's own. Three levels,
each with the ones before: the *schedule* (and with it the number of queries), the *norm* (a query of large norm leaves
one key with all the weight), and *rank*: honest queries lie in few directions, chosen ones anywhere, so a query far out
in the honest ones' Mahalanobis metric is refused. What honest queries look like is public (calibrated on public text),
and so known to an attacker: the audit bounds what a chosen query can do, it does not make the replies safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from smd_research.core.errors import ProtocolError

_SHRINKAGE = 1e-3


class AuditLevel(StrEnum):
    """How much of a query is looked at."""

    NONE = "none"
    SCHEDULE = "schedule"
    NORM = "norm"
    RANK = "rank"


@dataclass(frozen=True)
class AuditParameters:
    """What is published of an audit; where it is not published, there is none.

    Attributes:
        audit: its level.
        audit_slack: factor on what public text's queries reach.
    """

    audit: str
    audit_slack: float


@dataclass(frozen=True, repr=False)
class NormBound:
    """Largest Euclidean norm of a query ``[layers, heads]``."""

    largest: Tensor

    @classmethod
    def of(cls, queries: Tensor, slack: float) -> "NormBound":
        """The largest norm among public queries ``[layers, heads, rows, head_dim]``, times ``slack``."""
        return cls(queries.float().norm(dim=-1).amax(-1) * slack)

    def within(self, q: Tensor, layer: int) -> Tensor:
        """Queries ``[streams, heads, head_dim]`` shortened to keep the bound."""
        lengths = q.float().norm(dim=-1, keepdim=True)
        shortened: Tensor = q * (self.largest[layer].to(q.device)[:, None] / lengths).clamp(max=1)
        return shortened

    def excess(self, q: Tensor, layer: int) -> float:
        """Largest norm of queries ``[streams, heads, head_dim]`` in units of the bound; NaN where they hold one."""
        return float((q.float().norm(dim=-1) / self.largest[layer].to(q.device)).max())


@dataclass(frozen=True, repr=False)
class SpreadBound:
    """Honest queries' Mahalanobis metric and the largest distance in it.

    Attributes:
        centre: mean query ``[layers, heads, head_dim]``.
        whitener: ``W`` with ``W W^T`` the inverse covariance ``[layers, heads, head_dim, head_dim]``.
        largest: largest distance ``[layers, heads]``.
    """

    centre: Tensor
    whitener: Tensor
    largest: Tensor

    @classmethod
    def of(cls, queries: Tensor, slack: float) -> "SpreadBound":
        """Mean, covariance (shrunk towards a ball) and largest distance, times ``slack``, of public queries.

        Args:
            queries: ``[layers, heads, rows, head_dim]``.
            slack: factor on the largest distance.
        """
        x = queries.double()
        centre = x.mean(2)
        off = x - centre.unsqueeze(2)
        covariance = off.transpose(-1, -2) @ off / x.shape[2]
        size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
        ball = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device) * size[..., None, None]
        shrunk = (1 - _SHRINKAGE) * covariance + _SHRINKAGE * ball
        whitener = torch.linalg.cholesky(torch.linalg.inv(shrunk))
        largest = (off @ whitener).norm(dim=-1).amax(-1) * slack
        return cls(centre.float(), whitener.float(), largest.float())

    def distance(self, q: Tensor, layer: int) -> Tensor:
        """Mahalanobis distances ``[streams, heads]`` of queries ``[streams, heads, head_dim]``."""
        off = (q.float() - self.centre[layer].to(q.device)).transpose(0, 1)
        lengths: Tensor = torch.linalg.vector_norm(torch.bmm(off, self.whitener[layer].to(q.device)), dim=-1)
        return lengths.mT

    def within(self, q: Tensor, layer: int) -> Tensor:
        """Queries ``[streams, heads, head_dim]`` drawn towards the centre until they keep the bound."""
        share = (self.largest[layer].to(q.device) / self.distance(q, layer)).clamp(max=1)[..., None]
        return torch.lerp(self.centre[layer].to(q), q, share.to(q))

    def excess(self, q: Tensor, layer: int) -> float:
        """Largest distance of queries ``[streams, heads, head_dim]`` in units of the bound."""
        return float((self.distance(q, layer) / self.largest[layer].to(q.device)).max())


class QueryAudit:
    """Watches the queries of one request after another.

    Args:
        layers: layers whose queries an honest provider sends, in order.
        bounds: bounds that every query has to keep.
    """

    def __init__(self, layers: Sequence[int], bounds: Sequence[NormBound | SpreadBound] = ()) -> None:
        self._layers = tuple(layers)
        self._bounds = tuple(bounds)
        self._position = self._end = self._turn = 0

    def begin(self, position: int, steps: int) -> None:
        """A request begins: queries of ``steps`` positions from ``position`` on may come."""
        self._position, self._end, self._turn = position, position + steps, 0

    def check(self, q: Tensor, layer: int, position: int) -> None:
        """Let an honest query pass.

        Args:
            q: queries ``[streams, heads, head_dim]``.
            layer: the layer asked.
            position: the position asked for.

        Raises:
            ProtocolError: for any other.
        """
        if self._position >= self._end:
            raise ProtocolError("query audit: more queries than the request has tokens; the request is refused")
        due = (self._layers[self._turn], self._position)
        if (layer, position) != due:
            raise ProtocolError(
                f"query audit: layer {layer} at position {position} was asked, layer {due[0]} at position {due[1]} is "
                "due; the request is refused"
            )
        for bound in self._bounds:
            # written so that a query that holds NaN is refused too
            if not (excess := bound.excess(q, layer)) <= 1:
                what = "norm" if isinstance(bound, NormBound) else "direction"
                raise ProtocolError(
                    f"query audit: the {what} of a query of layer {layer} is {excess:.3g} times what honest queries "
                    "reach; the request is refused"
                )
        self._turn = (self._turn + 1) % len(self._layers)
        self._position += self._turn == 0
