"""Keyed shaking: exact without vertical operators, what the provider gets, and what is refused."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smd_research.boundary import Boundary
from smd_research.boundary.messages import PromptIds
from smd_research.core.errors import ConfigError, PromptError, UnsupportedModelError
from smd_research.core.observable import Observable
from smd_research.data.prompts import Prompt
from smd_research.defenses.base import PublicText
from smd_research.defenses.shaking import HEADS, Sentinel, Shaking, shaken
from smd_research.mechanisms.shaking import Key, Substitution
from smd_research.models import Bundle, sources
from smd_research.models.decoding import plain_greedy, plain_logits
from smd_research.models.tables import is_tied, with_tables

SECRET = bytes(range(16))


@pytest.fixture(scope="module", params=sources.FAMILIES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return sources.random(request.param)


@pytest.fixture(scope="module")
def llama() -> Bundle:
    return sources.random("llama")


def untied(bundle: Bundle, width: int = 64) -> Bundle:
    drawn = torch.randn(bundle.geometry.vocab, width, generator=torch.Generator().manual_seed(3)) / 8
    return with_tables(bundle, bundle.embedding.detach(), drawn)


def horizontal(**options: Any) -> Shaking:
    return Shaking(inflate=0, tilt=0, gaussian=0, awareness_steps=0, function_steps=0, **options)


def _ids(bundle: Bundle, rows: int, seed: int = 1) -> tuple[int, ...]:
    drawn = torch.randint(5, bundle.geometry.vocab, (rows,), generator=torch.Generator().manual_seed(seed)).tolist()
    return (0, *drawn[1:])


def _close(got: Tensor, expected: Tensor) -> bool:
    error = float((got - expected).abs().max() / expected.abs().max())
    return error < 1e-6 and bool((got.argmax(-1) == expected.argmax(-1)).all())


def test_a_substitution_alone_is_exact_in_every_family(bundle: Bundle) -> None:
    """The figure of the promise: decoded logits equal the model's own to 1e-6, and so does the choice."""
    ids, following = _ids(bundle, 30), _ids(bundle, 12, seed=2)
    for defense in (horizontal(), horizontal(fraction=0.4, head="permuted")):
        with defense.prepare(bundle).deploy(Boundary()) as deployment:
            assert _close(deployment.score(ids, following), plain_logits(bundle, ids, following))
            answer = deployment.generate(Prompt("p", "", ids), 8).ids
        assert answer == plain_greedy(bundle, ids, 8)


@pytest.mark.parametrize("options", [{"homophones": 3, "frequent": 20}, {"head": "linear"}, {"fraction": 0.0}])
def test_homophones_and_any_head_are_exact_too(llama: Bundle, options: dict[str, Any]) -> None:
    ids, following = _ids(llama, 20), _ids(llama, 9, seed=2)
    for model in (llama, untied(llama)):
        prepared = horizontal(**options).prepare(model, PublicText([_ids(llama, 40), ids]))
        with prepared.deploy(Boundary()) as deployment:
            assert _close(deployment.score(ids, following), plain_logits(model, ids, following))
            assert deployment.generate(Prompt("p", "", ids), 8).ids == plain_greedy(model, ids, 8)


def test_a_substitution_that_is_not_undone_is_not_exact(llama: Bundle) -> None:
    """The control: the provider's own logits, columns not put back."""
    ids, following = _ids(llama, 20), _ids(llama, 9, seed=2)
    made = horizontal().prepare(llama)
    assert not _close(plain_logits(made.public, ids, following), plain_logits(llama, ids, following))
    vertical = Shaking(inflate=0, gaussian=0, awareness_steps=0, function_steps=0)
    with vertical.prepare(llama).deploy(Boundary()) as deployment:
        assert not _close(deployment.score(ids, following), plain_logits(llama, ids, following))


def test_the_provider_sees_cipher_ids_and_special_ones_stay(llama: Bundle) -> None:
    ids, boundary = _ids(llama, 30), Boundary()
    prepared = horizontal().prepare(llama)
    with prepared.deploy(boundary) as deployment:
        answer = deployment.generate(Prompt("p", "", ids), 6).ids
        view, code, served = boundary.view(deployment.shows), prepared.code, prepared.public
    sent = view.of(PromptIds)[0].ids.tolist()
    assert sent[0] == ids[0]
    assert sum(a == b for a, b in zip(sent, ids, strict=True)) < 4
    assert list(code.decode(sent)) == list(ids)
    assert [list(code.decode(stream)) for stream in view.outputs] == [list(answer)]
    assert view.shows == {Observable.ENCODED_IDS, Observable.SHAKEN_WEIGHTS, Observable.LENGTH}
    torch.testing.assert_close(served.embedding[sent], llama.embedding[list(ids)], rtol=0, atol=0)


def test_an_occurrence_takes_one_of_its_homophones_the_same_for_the_same_request(llama: Bundle) -> None:
    code = horizontal(homophones=4, frequent=1).prepare(llama, PublicText([(9, 9, 9, 8)])).code
    first = code.encode((9,) * 40, 1)
    assert len(set(first)) == 4
    assert first == code.encode((9,) * 40, 1) != code.encode((9,) * 40, 2)
    assert code.plain_ids(llama.geometry.vocab).tolist()[-3:] != [9, 9, 9]
    assert (code.plain_ids(llama.geometry.vocab) == 9).sum() == 4


def test_labels_are_permuted_once_their_number_is_known(llama: Bundle) -> None:
    code = horizontal(labels=True).prepare(llama, seed=5).code.for_classes(7)
    sent = [code.encode_label(label) for label in range(7)]
    assert sorted(sent) == list(range(7)) != sent
    assert [code.decode_label(label) for label in sent] == list(range(7))
    plain = horizontal().prepare(llama, seed=5).code.for_classes(7)
    assert [plain.encode_label(label) for label in range(7)] == list(range(7))


@pytest.mark.parametrize("head", HEADS)
def test_a_shaken_model_shares_its_body_and_leaves_the_public_one_alone(llama: Bundle, head: Any) -> None:
    before, key = (
        llama.fingerprint(),
        Key.draw(llama, vertical=(("inflate", 0.5), ("gaussian", 0.5)), secret=SECRET),
    )
    for model in (llama, untied(llama)):
        served = shaken(model, key, head)
        assert served.model.model.layers[0].mlp.up_proj.weight is model.model.model.layers[0].mlp.up_proj.weight
        public = model.embedding.detach()[torch.from_numpy(Substitution.of(key, llama.special_ids).plain_of)]
        assert float((served.embedding - public).abs().max()) > 0.001
        output = served.model.get_output_embeddings()
        if head == "drop":
            assert output is None
            continue
        own = model.model.get_output_embeddings().weight[
            torch.from_numpy(Substitution.of(key, llama.special_ids).plain_of)
        ]
        moved = float((output.weight - own).abs().max())
        assert (moved == 0) == (head == "permuted")
        assert is_tied(served) == bool(served.model.all_tied_weights_keys) == (head == "shaken" and model is llama)
    assert llama.fingerprint() == before


def test_homophones_get_noise_of_their_own(llama: Bundle) -> None:
    key = Key.draw(llama, homophones=3, frequent=(9,), vertical=(("gaussian", 1.0),), secret=SECRET)
    rows = shaken(llama, key, "shaken").embedding[Substitution.of(key, llama.special_ids).homophones[9]]
    assert len({tuple(row.tolist()) for row in rows}) == 3
    affine = dataclasses.replace(key, vertical=(("tilt", 1.0),))
    rows = shaken(llama, affine, "shaken").embedding[Substitution.of(affine, llama.special_ids).homophones[9]]
    torch.testing.assert_close(rows, rows[:1].expand(3, -1))  # without noise they give themselves away


def test_a_key_file_serves_again_and_a_wrong_one_is_refused(llama: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    Key.draw(llama, secret=SECRET).save(path)
    found = horizontal(key_file=str(path)).prepare(llama)
    given = horizontal(secret=SECRET.hex()).prepare(llama, seed=1)
    assert found.code.encode(range(50)) == given.code.encode(range(50))
    with pytest.raises(ConfigError, match=r"has vertical=.*set it so"):
        Shaking(tilt=1, key_file=str(path)).prepare(llama)
    with pytest.raises(ConfigError, match="another model"):
        horizontal(key_file=str(path)).prepare(sources.random("llama", seed=1))
    path.write_text(path.read_text()[:80])
    with pytest.raises(ConfigError, match="truncated"):
        horizontal(key_file=str(path)).prepare(llama)


def test_the_wrong_key_decodes_nothing(llama: Bundle) -> None:
    ids = _ids(llama, 40)
    right, wrong = (horizontal().prepare(llama, seed=seed).code for seed in (0, 1))
    decoded = wrong.decode(right.encode(ids))
    assert sum(a == b for a, b in zip(decoded, ids, strict=True)) < 4
    with pytest.raises(PromptError, match=r"outside 0 \.\. 4095"):
        right.decode([4096])


def _with(bundle: Bundle, change: Any) -> Bundle:
    model = copy.deepcopy(bundle.model)
    change(model)
    return dataclasses.replace(bundle, model=model)


def test_a_model_without_a_separable_embedding_is_refused_in_one_line(llama: Bundle) -> None:
    def two(model: Any) -> None:
        model.model.per_layer = nn.Embedding(4096, 8)

    def none(model: Any) -> None:
        model.set_output_embeddings(None)

    def rows(model: Any) -> None:
        model.model.embed_tokens = nn.Embedding(5000, 64)

    for change, reason in ((two, "'model.per_layer' reads token ids too"), (none, "no linear output head"),
                           (rows, "5000 rows for 4096 tokens")):  # fmt: skip
        for defense in (horizontal(), Sentinel()):
            with pytest.raises(UnsupportedModelError, match=reason) as caught:
                defense.prepare(_with(llama, change))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "none"}, "defense.head=none is unknown"),
        ({"tilt": -1.0}, "the strength -1 of tilt is out of range"),
        ({"secret": "00"}, "32 hexadecimal digits"),
        ({"secret": "x" * 32}, "32 hexadecimal digits"),
        ({"secret": "0" * 32, "key_file": "k"}, "keep one"),
        ({"frequent": -1}, "frequent=-1"),
        ({"awareness_steps": -1}, "count from 0"),
        ({"row_tokens": 1}, "row_tokens at least 2"),
        ({"text_weight": -1.0}, "not negative"),
        ({"precision": "8"}, "precision=8 is unknown"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Shaking(**options)


def test_what_needs_public_text_or_a_head_says_so(llama: Bundle) -> None:
    with pytest.raises(ConfigError, match="needs public text to count"):
        horizontal(homophones=2).prepare(llama)
    with pytest.raises(ConfigError, match="needs public text: 0 tokens"):
        Shaking().prepare(llama)
    dropped = horizontal(head="drop").prepare(llama)
    assert dropped.public.model.get_output_embeddings() is None
    with pytest.raises(ConfigError, match="leaves the provider nothing to generate with"):
        dropped.deploy(Boundary())
    with pytest.raises(ConfigError, match="leaves the provider nothing to generate with"):
        _ = horizontal(head="drop").shows  # asked before a trial prepares anything


def test_the_key_of_a_run_comes_from_its_seed_and_is_never_shown(llama: Bundle) -> None:
    one, same, other = (horizontal().key(llama, seed) for seed in (0, 0, 1))
    assert one == same != other
    assert len(one.secret) == 16
    shown = str(horizontal(secret=SECRET.hex()).prepare(llama).parameters)
    assert SECRET.hex() not in shown
    assert "secret" not in shown


@pytest.mark.parametrize("glides", [0, 1, 2])
def test_sentinel_is_exact_before_a_layer_norm(glides: int) -> None:
    ids = _ids(sources.random("gpt2"), 20)
    for family in ("gpt2", "opt", "gpt_neox"):
        model = sources.random(family)
        with Sentinel(glides=glides).prepare(model).deploy(Boundary()) as deployment:
            got, expected = deployment.score(ids, ids), plain_logits(model, ids, ids)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_sentinel_changes_a_model_that_keeps_the_mean(llama: Bundle) -> None:
    ids = _ids(llama, 20)
    with Sentinel().prepare(llama).deploy(Boundary()) as deployment:
        got = deployment.score(ids, ids)
    assert float((got - plain_logits(llama, ids, ids)).abs().max()) > 0.05
    with pytest.raises(ConfigError, match="glides=-1"):
        Sentinel(glides=-1)
