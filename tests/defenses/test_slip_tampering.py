"""A device that lies, dies or sends nonsense ends the session, which burns its masks; nothing is used again."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from slip_support import deployed, random_bundle
from torch import Tensor

from smd_research.boundary import Boundary, Channel, Untrusted
from smd_research.boundary.messages import (
    Done,
    HiddenStates,
    MaskedInput,
    MaskedOutput,
    Message,
)
from smd_research.core.errors import PeerLostError, ProtocolError
from smd_research.data.prompts import Prompt
from smd_research.defenses.slip import Slip, SlipDeployment
from smd_research.mechanisms.integers.field import WIDE
from smd_research.models import Bundle
from smd_research.models.decoding import plain_greedy


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return random_bundle("llama")


Tamper = Callable[[MaskedInput, MaskedOutput, list[MaskedOutput]], Message]


class Liar(Untrusted):
    """The honest device, but for what it answers to one product from its second round on."""

    def __init__(self, honest: Untrusted, tamper: Tamper, product: int) -> None:
        super().__init__()
        self._honest = honest
        self._tamper = tamper
        self._product = product
        self._past: list[MaskedOutput] = []

    def handle(self, message: Message) -> Message | None:
        reply = self._honest.handle(message)
        if isinstance(message, MaskedInput) and isinstance(reply, MaskedOutput) and message.product == self._product:
            self._past.append(reply)
            if len(self._past) > 1:
                return self._tamper(message, reply, self._past)
        return reply


def _lying(tamper: Tamper, product: int) -> Boundary:
    def impostor(factory: Callable[[Channel], Untrusted]) -> Callable[[Channel], Untrusted]:
        return lambda channel: Liar(factory(channel), tamper, product)

    return Boundary(record=False, impostor=impostor)


def _changed(reply: MaskedOutput, y: Tensor) -> MaskedOutput:
    return MaskedOutput(y, reply.product, reply.use)


def _element(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    y = reply.y.clone()
    y[0, 3] = (y[0, 3] + 1) % WIDE.prime
    return _changed(reply, y)


def _offset(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return _changed(reply, (reply.y + 12345) % WIDE.prime)


def _low_rank(message: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    direction = message.x[:, :1] % 1000 * torch.arange(reply.y.shape[1])
    return _changed(reply, (reply.y + direction) % WIDE.prime)


def _zeros(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return _changed(reply, torch.zeros_like(reply.y))


def _replay(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return past[0]


def _replay_readdressed(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return _changed(reply, past[0].y[:1].expand_as(reply.y).clone())


def _swapped(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return MaskedOutput(reply.y, reply.product + 4, reply.use)


def _rows(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return _changed(reply, torch.cat([reply.y, reply.y]))


def _floats(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return _changed(reply, reply.y.double())


def _other(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return Done()


def _extreme(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    return _changed(reply, torch.full_like(reply.y, -(2**63)))


TAMPERINGS = [
    *(_element, _offset, _low_rank, _zeros, _replay, _replay_readdressed),
    *(_swapped, _rows, _floats, _other, _extreme),
]  # fmt: skip


@pytest.mark.parametrize("product", [2, 16])
@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_every_tampering_ends_the_session(llama: Bundle, tamper: Tamper, product: int) -> None:
    with deployed(llama, _lying(tamper, product)) as deployment:
        with pytest.raises(ProtocolError, match="the session is aborted and its masks are burnt") as caught:
            deployment.generate(Prompt("p", "", (7, 8, 9)), 4)
        assert "\n" not in str(caught.value)
        for call in (
            lambda: deployment.generate(Prompt("p", "", (7, 8, 9)), 4),
            lambda: deployment.rounds.run(0, torch.zeros(1, 64)),
            lambda: deployment.rounds.masking.take(0, 1),
        ):
            with pytest.raises(ProtocolError, match="deploy again"):
                call()
        assert deployment.rounds.masking.nbytes == 0


def test_every_repetition_of_every_product_of_every_key_has_a_challenge_of_its_own(llama: Bundle) -> None:
    drawn, products = list[tuple[int, ...]](), 0
    for seed in range(3):
        with Slip(verify=3).prepare(llama, seed=seed).deploy(Boundary(record=False)) as deployment:
            assert isinstance(deployment, SlipDeployment)
            challenges = deployment.rounds._challenges
            masks = deployment.rounds.masking.take(0, 3).r
        products = len(challenges)
        drawn += [tuple(s[:16]) for challenge in challenges.values() for s in challenge.s.tolist()]
        drawn += [tuple(mask[:16]) for mask in masks.tolist()]
    assert len(set(drawn)) == len(drawn) == 3 * (3 * products + 3)


def test_swapped_layers_of_one_shape_are_caught(llama: Bundle) -> None:
    """The reply of block 1's product in place of block 0's, addressed as it should be."""

    class Swapping(Liar):
        def handle(self, message: Message) -> Message | None:
            if isinstance(message, MaskedInput) and message.product == self._product:
                y = self._honest.product(message.x, message.product + 4)  # type: ignore[attr-defined]
                return MaskedOutput(y, message.product, message.use)
            return self._honest.handle(message)

    def impostor(factory: Callable[[Channel], Untrusted]) -> Callable[[Channel], Untrusted]:
        return lambda channel: Swapping(factory(channel), _zeros, 0)

    with (
        deployed(llama, Boundary(record=False, impostor=impostor)) as deployment,
        pytest.raises(ProtocolError, match="is not the product"),
    ):
        deployment.generate(Prompt("p", "", (7, 8, 9)), 2)


class OwnEmbeddings(Liar):
    """The honest device, but for embeddings of its own making."""

    def handle(self, message: Message) -> Message | None:
        reply = self._honest.handle(message)
        return HiddenStates(reply.hidden * 1.5, 0) if isinstance(reply, HiddenStates) else reply


def _own_embeddings() -> Boundary:
    def impostor(factory: Callable[[Channel], Untrusted]) -> Callable[[Channel], Untrusted]:
        return lambda channel: OwnEmbeddings(factory(channel), _zeros, 0)

    return Boundary(record=False, impostor=impostor)


def test_embeddings_that_are_not_the_tokens_end_the_session(llama: Bundle) -> None:
    with (
        deployed(llama, _own_embeddings()) as deployment,
        pytest.raises(ProtocolError, match="is not their embeddings: the session is aborted"),
    ):
        deployment.generate(Prompt("p", "", (7, 8, 9)), 2)


def test_unverified_embeddings_are_taken_as_they_come(llama: Bundle) -> None:
    with deployed(llama, _own_embeddings(), verify=0) as deployment:
        assert len(deployment.generate(Prompt("p", "", (7, 8, 9)), 2).ids) == 2


def test_an_error_that_is_a_multiple_of_the_prime_changes_nothing(llama: Bundle) -> None:
    def multiple(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
        return _changed(reply, reply.y - 3 * WIDE.prime)

    prompt, continuation = (7, 8, 9), (4, 5, 6)
    with deployed(llama, _lying(multiple, 2)) as lied, deployed(llama) as honest:
        assert lied.generate(Prompt("p", "", prompt), 4).ids == honest.generate(Prompt("p", "", prompt), 4).ids
        assert torch.equal(lied.score(prompt, continuation), honest.score(prompt, continuation))


def _visible(_: MaskedInput, reply: MaskedOutput, past: list[MaskedOutput]) -> Message:
    y = reply.y.clone()
    y[0, 3] = (y[0, 3] + 2**36) % WIDE.prime
    return _changed(reply, y)


@pytest.mark.parametrize("tamper", [_visible, _offset, _low_rank])
def test_unverified_tampering_reaches_the_output(llama: Bundle, tamper: Tamper) -> None:
    """Positive control: with verify=0 the same device goes unnoticed and moves the logits."""
    prompt, continuation = (7, 8, 9), (4, 5, 6)
    with deployed(llama, _lying(tamper, 2), verify=0) as lied, deployed(llama, verify=0) as honest:
        for deployment in (lied, honest):
            deployment.generate(Prompt("p", "", prompt), 2)
        moved = lied.score(prompt, continuation) - honest.score(prompt, continuation)
    assert moved.abs().max() > 0


@pytest.mark.parametrize("transport", ["process", "tcp"])
def test_a_device_that_dies_in_mid_session_costs_the_session_only(
    llama: Bundle, transport: str, tmp_path: Path
) -> None:
    boundary = Boundary(transport, timeout_s=5)
    options = {"bank": "folder", "bank_folder": str(tmp_path)}
    prompt = Prompt("p", "", (7, 8, 9))
    with deployed(llama, boundary, **options) as deployment:
        deployment.generate(prompt, 2)
        sent = [m.x for m in boundary.view(deployment.shows).of(MaskedInput)]
        process = psutil.Process(boundary.pids[1])
        process.kill()
        process.wait(5)
        with pytest.raises(PeerLostError, match=r"the device was lost .*masks are burnt") as caught:
            deployment.generate(prompt, 2)
        assert "\n" not in str(caught.value)
        with pytest.raises(ProtocolError, match="deploy again"):
            deployment.generate(prompt, 2)
    boundary = Boundary()
    with deployed(llama, boundary, **options) as deployment:
        assert deployment.generate(prompt, 2).ids == plain_greedy(llama, prompt.ids, 2)
        fresh = [m.x for m in boundary.view(deployment.shows).of(MaskedInput)]
    assert all((one != other).all() for one, other in zip(sent, fresh, strict=True)), "the same rows, other masks"
