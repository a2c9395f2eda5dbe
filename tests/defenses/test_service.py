"""Many users at once: everybody gets what they would get alone, and one user's trouble stays that user's."""

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from hostile import start_of

from smd_research.boundary.addresses import connect
from smd_research.boundary.channel import Meter
from smd_research.boundary.messages import Message, PartialAttention, StartDecode, Tokens
from smd_research.boundary.stream import StreamChannel
from smd_research.core.errors import ConfigError, LabError, PeerLostError, PromptError
from smd_research.defenses.smd.requests import SendOrder, ServiceOptions
from smd_research.defenses.smd.service import Service, User
from smd_research.defenses.smd.users import Answer, Ask, Protection
from smd_research.defenses.smd.vault import Vault
from smd_research.metrics.memory import mapped, shared_once
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_generate
from smd_research.models.hooked import HookedModel
from smd_research.models.sampling import Sampling

WARM = Sampling(0.8, 0.95)


def ask_of(bundle: Bundle, number: int, new: int = 12) -> Ask:
    """A request that differs from every other in length, prompt, law and seed."""
    generator = torch.Generator().manual_seed(number)
    ids = torch.randint(5, bundle.geometry.vocab, (4 + 3 * number,), generator=generator).tolist()
    return Ask(tuple(ids), new, WARM if number % 2 else Sampling(), seed=100 + number)


def alone(bundle: Bundle, ask: Ask) -> tuple[int, ...]:
    """What the unprotected model gives this user alone."""
    return plain_generate(bundle, ask.ids, ask.max_new_tokens, ask.sampling, ask.seed)


def same_time(users: list[User], asks: list[Ask]) -> list[Answer]:
    for user, ask in zip(users, asks, strict=True):
        user.ask(ask)
    return [user.answer() for user in users]


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.fixture(scope="module")
def service(llama: Bundle) -> Iterator[Service]:
    with Service(llama, timeout_s=2, patience_s=60, users=4) as service:
        yield service


def test_users_who_come_and_go_get_what_they_would_get_alone(llama: Bundle) -> None:
    """16 users of different lengths, greedy and sampled; half of them join while the others decode."""
    with Service(llama, users=16, patience_s=120) as service:
        asks = [ask_of(llama, number, new=40 if number < 8 else 6 + number) for number in range(16)]
        users = [service.join() for _ in asks]
        for user, ask in zip(users[:8], asks[:8], strict=True):
            user.ask(ask)
        late = same_time(users[8:], asks[8:])
        answers = [user.answer() for user in users[:8]] + late
        again = same_time(users[3:5], [asks[4], asks[3]])
    assert [answer.generation.ids for answer in answers] == [alone(llama, ask) for ask in asks]
    assert [answer.generation.ids for answer in again] == [alone(llama, asks[4]), alone(llama, asks[3])]


@pytest.mark.parametrize("protection", list(Protection))
@pytest.mark.parametrize("transport", ["unix", "tcp"])
def test_every_protection_and_transport_gives_the_same_answers(
    llama: Bundle, protection: Protection, transport: str
) -> None:
    asks = [ask_of(llama, number) for number in range(3)]
    with Service(llama, protection, transport=transport, users=3) as service:
        answers = same_time([service.join() for _ in asks], asks)
    assert [answer.generation.ids for answer in answers] == [alone(llama, ask) for ask in asks]


@pytest.mark.parametrize("order", list(SendOrder))
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "qwen3", "mistral", "gpt_neo", "opt"])
def test_a_batch_of_different_lengths_is_exact_for_families_that_need_care(family: str, order: SendOrder) -> None:
    bundle = sources.random(family)
    asks = [ask_of(bundle, number) for number in range(3)]
    with Service(bundle, options=ServiceOptions(send_order=order), users=3) as service:
        answers = same_time([service.join() for _ in asks], asks)
    assert [answer.generation.ids for answer in answers] == [alone(bundle, ask) for ask in asks]


def test_layers_inside_the_vault_change_no_output(llama: Bundle) -> None:
    asks = [dataclasses.replace(ask_of(llama, number), public=number) for number in range(3)]
    with Service(llama, options=ServiceOptions(inner_layers=2), users=3) as service:
        answers = same_time([service.join() for _ in asks], asks)
    assert [answer.generation.ids for answer in answers] == [alone(llama, ask) for ask in asks]


def test_a_public_prefix_is_the_providers_and_the_rest_is_not(llama: Bundle, service: Service) -> None:
    """Two users share a system prompt; a third has one of its own; outputs are those of the whole prompts."""
    system = ask_of(llama, 9).ids
    asks = [
        dataclasses.replace(ask_of(llama, n), ids=system + ask_of(llama, n).ids, public=len(system)) for n in (1, 2)
    ]
    asks.append(dataclasses.replace(ask_of(llama, 5), public=7))
    answers = same_time([service.join() for _ in asks], asks)
    assert [answer.generation.ids for answer in answers] == [alone(llama, ask) for ask in asks]
    row = 2 * 4 * llama.geometry.layers * llama.geometry.kv_heads * llama.geometry.head_dim
    assert [answer.kv_bytes for answer in answers] == [row * (len(ask.ids) - ask.public) for ask in asks]


def test_a_conversation_sees_the_earlier_turns_keys_of_both_sides(llama: Bundle, service: Service) -> None:
    user = service.join()
    history: tuple[int, ...] = ()
    for turn in (1, 2, 3):
        new = ask_of(llama, turn).ids
        user.ask(Ask(new, 8, WARM, seed=turn, turn=turn))
        got = user.answer().generation.ids
        assert got == plain_generate(llama, history + new, 8, WARM, turn)
        history += new + got


# -- trouble ---------------------------------------------------------------------------------------------------------


class Rogue(Vault):
    """A vault that changes its replies from the third on."""

    def __init__(self, change: Callable[[PartialAttention], Message]) -> None:
        super().__init__(torch.float32)
        self._change = change
        self._replies = 0

    def handle(self, message: Message) -> Message | None:
        reply = super().handle(message)
        if not isinstance(reply, PartialAttention):
            return reply
        self._replies += 1
        return self._change(reply) if self._replies > 2 else reply


def stall(reply: PartialAttention) -> Message:
    time.sleep(4)
    return reply


TROUBLE = {
    "wrong shape": (lambda r: dataclasses.replace(r, a=r.a[:, :1]), "shape"),
    "not finite": (lambda r: dataclasses.replace(r, a=r.a * float("nan")), "not finite"),
    "infinite weight": (lambda r: dataclasses.replace(r, m=r.m + float("inf")), "not finite"),
    "another request": (lambda r: dataclasses.replace(r, request=r.request + 1), "another query"),
    "another layer": (lambda r: dataclasses.replace(r, layer=r.layer + 1), "another query"),
    "no attention": (lambda r: Tokens(torch.zeros(1, dtype=torch.int32)), "Tokens"),
    "stalls": (stall, "closed the connection"),
}


def rogue_request(service: Service, bundle: Bundle, change: Callable[[PartialAttention], Message]) -> str:
    """Decode with a vault that misbehaves; returns the one line that comes back."""
    vault = Rogue(change)
    channel = StreamChannel(connect(service.address), meter=Meter(record=False), timeout_s=30)
    channel.serve_for(vault)
    logits = vault.prefill(HookedModel(bundle), torch.tensor([[7, 8, 9, 10]]))
    try:
        vault.decode(channel, logits, max_new_tokens=30, end_ids=())
    except LabError as error:
        return str(error)
    finally:
        channel.close()
    raise AssertionError("the rogue's request went through")


@pytest.mark.parametrize("trouble", list(TROUBLE))
def test_a_vault_that_misbehaves_fails_its_own_request_only(llama: Bundle, service: Service, trouble: str) -> None:
    change, line = TROUBLE[trouble]
    said: list[str] = []
    asks = [ask_of(llama, number, new=60) for number in (1, 2)]
    users = [service.join() for _ in asks]
    for user, ask in zip(users, asks, strict=True):
        user.ask(ask)
    rogue = threading.Thread(target=lambda: said.append(rogue_request(service, llama, change)))
    rogue.start()
    answers = [user.answer() for user in users]
    rogue.join()
    assert [answer.generation.ids for answer in answers] == [alone(llama, ask) for ask in asks]
    assert len(said) == 1
    assert line in said[0]
    assert "\n" not in said[0]


def test_a_killed_vault_fails_its_own_request_only(llama: Bundle, service: Service) -> None:
    asks = [ask_of(llama, number, new=200) for number in (1, 2)]
    users = [service.join() for _ in range(3)]
    for user, ask in zip(users, [*asks, ask_of(llama, 3, new=400)], strict=True):
        user.ask(ask)
    time.sleep(0.05)
    os.kill(users[2].child.pid, signal.SIGKILL)
    with pytest.raises(PeerLostError, match="ended unexpectedly"):
        users[2].answer()
    answers = [user.answer() for user in users[:2]]
    assert [answer.generation.ids for answer in answers] == [alone(llama, ask) for ask in asks]


@pytest.mark.parametrize(
    ("start", "line"),
    [
        (start_of(sampling=torch.zeros(3)), "no sense"),
        (start_of(first=torch.zeros(17, dtype=torch.int32)), "more than 16 streams"),
        (start_of(turn=-1), "no sense"),
        (start_of(position=0), "no sense"),
        (start_of(first=torch.tensor([4096], dtype=torch.int32)), "does not have: it has"),
        (start_of(public=torch.tensor([-1], dtype=torch.int32)), "does not have: it has"),
        (start_of(first=torch.zeros(0, dtype=torch.int32)), "not all public"),
        (start_of(sampling=torch.tensor([-1.0, 1.0])), "temperature"),
        (start_of(turn=2), "not known"),
        (start_of(max_new_tokens=10_000), "context"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_and_the_service_goes_on(
    llama: Bundle, service: Service, start: StartDecode, line: str
) -> None:
    channel = StreamChannel(connect(service.address), timeout_s=30)
    with pytest.raises(LabError, match=line):
        channel.request(start)
    channel.close()
    user = service.join()
    user.ask(ask_of(llama, 1))
    assert user.answer().generation.ids == alone(llama, ask_of(llama, 1))


def test_bad_requests_are_refused_in_one_line_and_the_user_may_go_on(llama: Bundle, service: Service) -> None:
    user, good = service.join(), ask_of(llama, 2)
    user.ask(dataclasses.replace(good, ids=()))
    with pytest.raises(PromptError, match="empty"):
        user.answer()
    user.ask(dataclasses.replace(good, max_new_tokens=10_000))
    with pytest.raises(PromptError, match="context"):
        user.answer()
    user.ask(good)
    assert user.answer().generation.ids == alone(llama, good)
    with pytest.raises(ConfigError, match="unix or tcp"):
        Service(llama, transport="pigeon")


def test_a_provider_that_dies_is_named_in_one_line(llama: Bundle) -> None:
    with Service(llama, users=1) as service:
        user = service.join()
        user.ask(ask_of(llama, 1, new=400))
        os.kill(service.pids[0], signal.SIGKILL)
        with pytest.raises(PeerLostError, match="the provider process was ended by SIGKILL: all requests"):
            user.answer()
        with pytest.raises(PeerLostError, match="the provider process was ended by SIGKILL: all requests"):
            service.join()


# -- secrets and memory ----------------------------------------------------------------------------------------------


def _holds(pid: int, canary: bytes) -> bool:
    """Whether a process has the canary anywhere in its writable memory."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:  # noqa: PTH123
        for line in maps:
            where, rights = line.split()[:2]
            if not rights.startswith("rw") or "[v" in line:
                continue
            first, last = (int(end, 16) for end in where.split("-"))
            try:
                memory.seek(first)
                if canary in memory.read(last - first):
                    return True
            except (OSError, OverflowError):
                continue
    return False


def test_nothing_of_one_users_prompt_reaches_another_process(llama: Bundle) -> None:
    """A run of token ids, as any process would hold it, is in its user's memory and in nobody else's."""
    secret = torch.randint(5, 4096, (60,), generator=torch.Generator().manual_seed(123456))
    canary = secret[20:40].to(torch.int64).numpy().tobytes()
    with Service(llama, users=2) as service:
        one, other = service.join(), service.join()
        answers = same_time([one, other], [Ask(tuple(secret.tolist()), 20), ask_of(llama, 1)])
        assert [answer.generation.ids for answer in answers] == [
            alone(llama, Ask(tuple(secret.tolist()), 20)),
            alone(llama, ask_of(llama, 1)),
        ]
        one.ask(Ask(tuple(secret.tolist()), 300))  # the ids are in its memory for certain while it is served
        time.sleep(0.2)
        found = {pid: _holds(pid, canary) for pid in service.pids}
        one.answer()
    assert found.pop(one.child.pid)
    assert not any(found.values())


def test_weights_are_in_memory_once_and_not_in_a_vault_that_decodes(llama: Bundle) -> None:
    with Service(llama, users=3) as service:
        users = [service.join() for _ in range(3)]
        same_time(users, [ask_of(llama, number) for number in range(3)])
        inode = service.weights.inode
        assert [mapped(user.child.pid, inode).rss for user in users] == [0, 0, 0]
        assert 0 < shared_once(service.pids, inode) <= service.weights.nbytes + 4096
