"""SMD is exact, and the provider gets nothing but what the protocol says."""

import dataclasses
import gc
from pathlib import Path

import pytest
import torch
from torch import nn

from smd_research.boundary import Boundary
from smd_research.boundary.ledger import Direction
from smd_research.boundary.messages import (
    HiddenStates,
    MergedRows,
    MergeQuery,
    Message,
    PartialAttention,
    Query,
    StartDecode,
    SummedAttention,
    Tokens,
)
from smd_research.boundary.session import TRANSPORTS
from smd_research.core.errors import ConfigError, PromptError, ProtocolError
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import PublicText
from smd_research.defenses.smd import Smd, SmdDeployment, Vault
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy, plain_logits

SMALL = [family for family in sources.FAMILIES if family != "100m"]
LENGTH, NEW = 30, 12


def _ids(bundle: Bundle, seed: int, rows: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(5, bundle.geometry.vocab, (rows,), generator=generator).tolist())


def _error(deployment: SmdDeployment, prompt: tuple[int, ...], continuation: tuple[int, ...]) -> float:
    expected = plain_logits(deployment.bundle, prompt, continuation)
    return float((deployment.score(prompt, continuation) - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("family", SMALL)
def test_logits_and_greedy_tokens_equal_the_unprotected_models(family: str, transport: str) -> None:
    bundle = sources.random(family)
    prompt = _ids(bundle, 1, LENGTH)
    with Smd().prepare(bundle).deploy(Boundary(transport)) as deployment:
        assert _error(deployment, prompt, _ids(bundle, 2, 2 * NEW)) < 3e-6
        generation = deployment.generate(Prompt("p", "", prompt), NEW)
    assert generation.ids == plain_greedy(bundle, prompt, NEW)


@pytest.mark.parametrize("options", [{"reply": "lse"}, {"merge": "vault"}, {"merge": "vault", "inner_layers": 1}])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_oss"])
def test_what_crosses_otherwise_merges_to_the_same(family: str, options: dict[str, object]) -> None:
    bundle = sources.random(family)
    prompt = _ids(bundle, 1, LENGTH)
    with Smd(**options).prepare(bundle).deploy(Boundary()) as deployment:  # type: ignore[arg-type]
        assert _error(deployment, prompt, _ids(bundle, 2, 2 * NEW)) < 3e-6
        assert deployment.generate(Prompt("p", "", prompt), NEW).ids == plain_greedy(bundle, prompt, NEW)
        kinds = {type(message) for _, message in deployment.boundary.view(deployment.shows).messages}
    assert PartialAttention not in kinds
    assert (MergedRows in kinds) == ("merge" in options)
    assert (SummedAttention in kinds) == ("reply" in options)


@pytest.mark.parametrize("merge", ["provider", "vault"])
def test_a_query_to_be_merged_elsewhere_is_refused(llama: Bundle, merge: str) -> None:
    with Smd(merge=merge).prepare(llama).deploy(Boundary()) as deployment:
        deployment.generate(Prompt("p", "", _ids(llama, 1, LENGTH)), 3)
        query = deployment.boundary.view(deployment.shows).of(Query)[-1]
        plain = Query(query.q, query.request, query.layer, query.position)
        log_weight, a = query.q[..., 0].clone(), query.q.clone()
        own = MergeQuery(query.q, query.request, query.layer, query.position, log_weight, a)
        wrong, right = (own, plain) if merge == "provider" else (plain, own)
        with pytest.raises(ProtocolError, match="merged elsewhere"):
            deployment.vault.handle(wrong)
        assert deployment.vault.handle(right) is not None
        if merge == "vault":
            for damaged in (dataclasses.replace(own, a=a[:, :1]), dataclasses.replace(own, a=a * float("nan"))):
                with pytest.raises(ProtocolError, match="cannot be merged"):
                    deployment.vault.handle(damaged)


@pytest.mark.parametrize("family", SMALL)
def test_without_the_vaults_part_the_comparison_fails(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Vault.handle

    def drop(self: Vault, message: Message) -> Message | None:
        reply = answer(self, message)
        if isinstance(reply, PartialAttention):
            return dataclasses.replace(
                reply,
                m=torch.full_like(reply.m, float("-inf")),
                g=torch.zeros_like(reply.g),
                a=torch.zeros_like(reply.a),
            )
        return reply

    monkeypatch.setattr(Vault, "handle", drop)
    bundle = sources.random(family)
    with Smd().prepare(bundle).deploy(Boundary()) as deployment:
        assert _error(deployment, _ids(bundle, 1, LENGTH), _ids(bundle, 2, NEW)) > 1e-4


@pytest.mark.parametrize(("wire", "bound"), [("fp16", 2e-2), ("bf16", 2e-1)])
def test_a_16_bit_wire_is_close_but_not_exact(llama: Bundle, wire: str, bound: float) -> None:
    with Smd(wire).prepare(llama).deploy(Boundary()) as deployment:
        assert 1e-6 < _error(deployment, _ids(llama, 1, LENGTH), _ids(llama, 2, NEW)) < bound
        replies = deployment.boundary.view(deployment.shows).of(PartialAttention)
    assert {reply.m.dtype for reply in replies} == {reply.g.dtype for reply in replies} == {torch.float32}
    assert {reply.a.dtype for reply in replies} == {sources.DTYPES[wire]}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_provider_never_receives_prompt_ids_keys_or_values(llama: Bundle, transport: str) -> None:
    prompt = _ids(llama, 5, LENGTH)
    with Smd().prepare(llama).deploy(Boundary(transport)) as deployment:
        generation = deployment.generate(Prompt("p", "", prompt), NEW)
        received = deployment.boundary.received_by_untrusted()
        view = deployment.boundary.view(deployment.shows)
        secrets = [torch.tensor(prompt, dtype=kind).numpy().tobytes() for kind in (torch.int32, torch.int64)]
        secrets += [secret[i : i + 24] for secret in secrets for i in range(0, len(secret) - 24, 8)]
        for layer in range(llama.geometry.layers):
            keys, values, _ = deployment.vault.store.get(layer)
            rows = torch.cat([keys[0].flatten(0, 1), values[0].flatten(0, 1)])
            secrets += [row.contiguous().numpy().tobytes() for row in rows]
    assert [secret for secret in secrets if secret in received] == []
    kinds = {type(message) for direction, message in view.messages if direction is Direction.TO_UNTRUSTED}
    assert kinds == {StartDecode, PartialAttention}
    # the canary search works: what does cross is found
    first = torch.tensor([generation.ids[0]], dtype=torch.int32).numpy().tobytes()
    assert first in received


def test_a_single_prompt_token_gives_its_value_away_and_the_canary_sees_it(llama: Bundle) -> None:
    """Attention over one key is that key's value: the positive control of the search for leaked values."""
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        deployment.generate(Prompt("p", "", (9,)), 3)
        _, values, _ = deployment.vault.store.get(0)
        assert values[0, 0, 0].contiguous().numpy().tobytes() in deployment.boundary.received_by_untrusted()


def test_after_prefill_the_vault_reaches_no_weight(llama: Bundle) -> None:
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        deployment.vault.prefill(deployment._prefill_model, torch.tensor([_ids(llama, 1, 8)]))
        pending, seen = [deployment.vault], set()
        while pending:
            item = pending.pop()
            if id(item) in seen or isinstance(item, type):
                continue
            seen.add(id(item))
            assert not isinstance(item, nn.Module | nn.Parameter)
            if not isinstance(item, torch.Tensor):
                pending += gc.get_referents(item)
        assert len(seen) > 10


def test_traffic_is_the_formulas(llama: Bundle) -> None:
    shape = llama.geometry
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        tokens = len(deployment.generate(Prompt("p", "", _ids(llama, 1, LENGTH)), NEW).ids)
        ledger = deployment.boundary.ledger
    steps = tokens - 1
    queries = 4 * shape.layers * shape.heads * shape.head_dim
    replies = 4 * shape.layers * shape.heads * (shape.head_dim + 2)
    assert ledger.payload_of["Query"] + ledger.payload_of["PartialAttention"] == steps * (queries + replies)
    assert ledger.bytes_to_untrusted == steps * replies + 4 + 8
    assert ledger.bytes_to_trusted == steps * (queries + 4)
    assert ledger.rounds == steps * shape.layers + 1


def test_memory_is_the_caches_and_the_weights(llama: Bundle) -> None:
    shape = llama.geometry
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        tokens = len(deployment.generate(Prompt("p", "", _ids(llama, 1, LENGTH)), NEW).ids)
        memory = deployment.memory()
    row = 2 * 4 * shape.layers * shape.kv_heads * shape.head_dim
    assert (memory.kv_trusted, memory.kv_untrusted) == (LENGTH * row, (tokens - 1) * row)
    assert memory.weights == llama.weight_bytes


def test_requests_do_not_touch_each_other(llama: Bundle) -> None:
    one, two = (Prompt(str(seed), "", _ids(llama, seed, LENGTH)) for seed in (1, 2))
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        fresh = [deployment.generate(prompt, NEW).ids for prompt in (one, two, one)]
    assert fresh[0] == fresh[2] == plain_greedy(llama, one.ids, NEW)
    assert fresh[1] == plain_greedy(llama, two.ids, NEW)


def test_one_token_needs_no_provider(llama: Bundle) -> None:
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        assert len(deployment.generate(Prompt("p", "", _ids(llama, 1, 4)), 1).ids) == 1
        assert deployment.boundary.ledger.messages == 0


@pytest.mark.parametrize(
    "query",
    [
        Query(torch.zeros(1, 4, 3), 0, 0, 5),
        Query(torch.zeros(1, 4, 16), 0, 99, 5),
        Query(torch.zeros(2, 4, 16), 0, 0, 5),
        Query(torch.zeros(1, 4, 16), 1, 0, 5),
        Query(torch.zeros(1, 2, 16), 0, 0, 5),
        Query(torch.zeros(1, 64, 16), 0, 0, 5),  # sixteen queries in one
    ],
)
def test_a_query_that_does_not_fit_is_refused(llama: Bundle, query: Query) -> None:
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        deployment.vault.prefill(deployment._prefill_model, torch.tensor([[1, 2, 3]]))
        with pytest.raises(ProtocolError, match="query"):
            deployment.vault.handle(query)


@pytest.mark.parametrize("ids", [[], [5, 6], [-1], [4096]])
def test_tokens_that_cannot_be_are_refused(llama: Bundle, ids: list[int]) -> None:
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        vault = deployment.vault
        generated = deployment.generate(Prompt("p", "", _ids(llama, 1, LENGTH)), NEW).ids
        with pytest.raises(ProtocolError, match="not asked for"):
            vault.handle(Tokens(torch.tensor([5], dtype=torch.int32)))
        vault._end += 1
        with pytest.raises(ProtocolError, match="provider sent"):
            vault.handle(Tokens(torch.tensor(ids, dtype=torch.int32)))
        assert vault.ids == list(generated)


def test_the_vault_takes_nothing_else(llama: Bundle) -> None:
    start = StartDecode(torch.tensor([1]), torch.zeros(0, dtype=torch.int32), torch.zeros(2), 0, 1, 1, 0, 0)
    with Smd().prepare(llama).deploy(Boundary()) as deployment, pytest.raises(ProtocolError, match="StartDecode"):
        deployment.vault.handle(start)


def test_bad_input_is_refused(llama: Bundle) -> None:
    with pytest.raises(ConfigError, match="fp32, fp16, bf16"):
        Smd("int8")
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        with pytest.raises(PromptError, match="empty"):
            deployment.generate(Prompt("p", "", ()), 4)
        with pytest.raises(PromptError, match="context of 512"):
            deployment.generate(Prompt("p", "", (1,) * 510), 4)


def test_output_tokens_cross_as_they_are(llama: Bundle) -> None:
    with Smd().prepare(llama).deploy(Boundary()) as deployment:
        ids = deployment.generate(Prompt("p", "", _ids(llama, 1, LENGTH)), NEW).ids
        view = deployment.boundary.view(deployment.shows)
    assert (view.length, view.output_ids) == (LENGTH, ids)
    assert [int(message.ids[0]) for message in view.of(Tokens)] == list(ids[1:])


def test_a_real_checkpoint(shared_data: Path) -> None:
    bundle = sources.local(str(shared_data / "stories260k-hf"))
    prompt = tuple(bundle.tokenizer("Lily found a big red ball under the tree.")["input_ids"])
    with Smd().prepare(bundle).deploy(Boundary()) as deployment:
        continuation = plain_greedy(bundle, prompt, 64)
        assert _error(deployment, prompt, continuation) < 3e-6
        assert deployment.generate(Prompt("p", "", prompt), 64).ids == continuation


NOT_FINITE = {
    "averages": lambda reply: dataclasses.replace(reply, a=reply.a * float("nan")),
    "sums": lambda reply: dataclasses.replace(reply, g=reply.g * float("inf")),
    "sums below zero": lambda reply: dataclasses.replace(reply, g=-reply.g),
    "maxima": lambda reply: dataclasses.replace(reply, m=reply.m + float("inf")),
    "states": lambda reply: dataclasses.replace(reply, hidden=reply.hidden / 0),
}


@pytest.mark.parametrize("number", [0, 3])
@pytest.mark.parametrize(
    ("what", "options"),
    [
        *((what, {}) for what in ("averages", "sums", "sums below zero", "maxima")),
        *((what, {"audit": "norm"}) for what in ("averages", "sums", "sums below zero", "maxima")),
        ("averages", {"merge": "vault"}),
        ("states", {"inner_layers": 1, "audit": "norm"}),
    ],
)
def test_a_vault_whose_answer_is_no_attention_is_named(
    llama: Bundle, what: str, options: dict[str, object], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where what the provider makes of the answer is refused by the vault before the step is over."""
    answer, due = Vault.handle, {"states": HiddenStates, "averages": PartialAttention | MergedRows}
    replies = []

    def damage(self: Vault, message: Message) -> Message | None:
        reply = answer(self, message)
        if isinstance(reply, due.get(what, PartialAttention)):
            replies.append(reply)
            return NOT_FINITE[what](reply) if len(replies) == number + 1 else reply
        return reply

    monkeypatch.setattr(Vault, "handle", damage)
    prepared = Smd(**options).prepare(llama, PublicText([_ids(llama, seed, LENGTH) for seed in range(6)]))  # type: ignore[arg-type]
    with (
        prepared.deploy(Boundary()) as deployment,
        pytest.raises(ProtocolError, match=r"a vault answered .* not finite"),
    ):
        deployment.generate(Prompt("p", "", _ids(llama, 1, LENGTH)), NEW)
