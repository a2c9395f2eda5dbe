"""What happens to states at a cut before they cross: public but for its draws."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from smd_research.core.errors import NotApplicableError
from smd_research.mechanisms.privacy.gaussian import GaussianParameters, clip_frobenius, clip_rows
from smd_research.mechanisms.privacy.radial import RadialMechanism, RadialParameters
from smd_research.mechanisms.privacy.vector_likelihood import GaussianLikelihood, RadialLikelihood


class Release(nn.Module, ABC):
    """From the states of one message to what is sent; what is trained of it, a module's parameters, is public.

    Attributes:
        noisy: whether two releases of the same states differ.
    """

    noisy: ClassVar[bool] = False

    @abstractmethod
    def centre(self, states: Tensor) -> Tensor:
        """What is sent of states ``[rows, width]`` but for the noise."""

    def release(self, states: Tensor, rng: np.random.Generator) -> Tensor:
        """What is sent of states ``[rows, width]``, with fresh noise; gradients pass through it."""
        return self.centre(states)

    def log_density(self, states: Tensor, sent: Tensor) -> Tensor:
        """Log density ``[...]``, up to a constant, of a row sent ``[width]`` given its state, for ``[..., width]``.

        Raises:
            NotApplicableError: where there is no noise, or a row's depends on the others of its message.
        """
        raise NotApplicableError(f"{type(self).__name__} has no density of a row")


class PlainRelease(Release):
    """States as they are."""

    def centre(self, states: Tensor) -> Tensor:
        """The states."""
        return states


class GaussianRelease(Release):
    """Clipped states and Gaussian noise, as published parameters have them.

    Args:
        parameters: clipping norm, unit and deviation.
    """

    noisy = True

    def __init__(self, parameters: GaussianParameters) -> None:
        super().__init__()
        self._published = parameters

    def centre(self, states: Tensor) -> Tensor:
        """The states clipped, by row or as a whole."""
        clip = self._published.clip
        by_row = self._published.unit == "token"
        return clip_rows(states, clip) if by_row else clip_frobenius(states, clip * len(states) ** 0.5)

    def release(self, states: Tensor, rng: np.random.Generator) -> Tensor:
        """Clipped states and noise, which grows with the norm allowed to a whole message."""
        noise = drawn(rng.standard_normal(tuple(states.shape)), states)
        return self.centre(states) + self._published.sigma_of(len(states)) * noise

    def log_density(self, states: Tensor, sent: Tensor) -> Tensor:
        """Of the Gaussian law around the clipped row; there is none of a row that was clipped with its message."""
        if self._published.unit == "sequence":
            return super().log_density(states, sent)
        return GaussianLikelihood(self._published.sigma, self._published.clip)(states, sent)


class RadialRelease(Release):
    """Radial noise, or what was released in its place, then the clip, as published parameters have them.

    Args:
        parameters: epsilon, sampler and clipping norm.
    """

    noisy = True

    def __init__(self, parameters: RadialParameters) -> None:
        super().__init__()
        self._published, self._likelihood = parameters, RadialLikelihood(parameters)

    def centre(self, states: Tensor) -> Tensor:
        """The states clipped, where what is sent is."""
        clip = self._published.clip
        return states if clip is None else clip_rows(states, clip)

    def release(self, states: Tensor, rng: np.random.Generator) -> Tensor:
        """Noisy states, clipped."""
        known = self._published
        return RadialMechanism(known.epsilon, states.shape[-1], sampler=known.sampler, clip=known.clip).release(
            states, rng
        )

    def log_density(self, states: Tensor, sent: Tensor) -> Tensor:
        """Of the noise, or where the row was clipped of its direction."""
        return self._likelihood(states, sent)


def drawn(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], like: Tensor) -> Tensor:
    """Draws as a tensor of the type and at the place of another."""
    return torch.from_numpy(values).to(like)


@dataclass(frozen=True, repr=False, eq=False)
class ReleaseParameters:
    """A release as it is published, with what was trained of it.

    Attributes:
        release: what the client sends of its states.
    """

    release: Release = field(repr=False)


def release_of(parameters: Sequence[object]) -> Release:
    """The release that public parameters name, the same one for the same; states cross as they are where none is."""
    for one in parameters:
        if isinstance(one, ReleaseParameters):
            return one.release
        if isinstance(one, GaussianParameters):
            return _gaussian(one)
        if isinstance(one, RadialParameters):
            return _radial(one)
    return _plain()


_gaussian, _radial = lru_cache(maxsize=16)(GaussianRelease), lru_cache(maxsize=16)(RadialRelease)
_plain = lru_cache(maxsize=1)(PlainRelease)
