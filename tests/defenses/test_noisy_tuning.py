"""Private tuning on noisy rows of the embedding: no id crosses, and each text has one noisy copy."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks.base import Public
from attacks.prompts.nearest_token import NearestToken
from experiments.trials.prompts import rows
from smd_research.boundary import Boundary
from smd_research.boundary.messages import ClassifyVectors, TuningRows, TuningVectors, token_tensor
from smd_research.core.errors import ConfigError, NotApplicableError, ProtocolError, UnsupportedModelError
from smd_research.data.tasks.rows import texts_of
from smd_research.data.tasks.synthetic import Urgency
from smd_research.data.texts import Texts, VectorTexts
from smd_research.defenses.dp_hidden import DpHidden
from smd_research.defenses.none import NoDefense
from smd_research.defenses.tunable import TunablePrepared, VectorCode
from smd_research.defenses.tuning import TuningDeployment, TuningProvider
from smd_research.models import Bundle, sources
from smd_research.training.methods import DpLora, Full, Lora, Machine, Tuning

REST = {"warmup": 0.1, "weight_decay": 0.0, "clip": 1.0, "pooling": "last", "head": "linear", "checks": 2}
FULL = Full(steps=6, batch=4, learning_rate=3e-3, freeze_table=False, patience=None, precision="32-true", **REST)  # type: ignore[arg-type]
TASK = Urgency(train=12, validation=4, evaluation=6, tokens=16)


@cache
def bundle() -> Bundle:
    return sources.random("llama")


def texts(split: str, n: int) -> Texts:
    return texts_of(TASK.examples(split, n, 0), TASK, bundle())


def vectors(prepared: TunablePrepared, ids: Sequence[int], number: int) -> torch.Tensor:
    assert isinstance(prepared.code, VectorCode)
    return prepared.code.vectors(ids, number)


def deployed(prepared: TunablePrepared, folder: Path, tuning: Tuning = FULL, classes: int = 2) -> TuningDeployment:
    return TuningDeployment(prepared, Boundary("inproc", threads=1), classes, tuning, Machine(), folder)


def lived(deployment: TuningDeployment) -> list[int]:
    with deployment:
        deployment.upload(texts("train", 12))
        deployment.upload(texts("validation", 4), held_out=True, first=12)
        deployment.tune([], 0)
        return deployment.classify(texts("evaluation", 6), first=16)


@pytest.mark.parametrize("mechanism", ["gaussian", "dchi"])
def test_vectors_cross_once_a_text_and_no_id_does(mechanism: str, tmp_path: Path) -> None:
    defense = DpHidden(mechanism=mechanism, epsilon=50.0)  # type: ignore[arg-type]
    prepared = defense.prepare(bundle(), seed=3)
    deployment = deployed(prepared, tmp_path)
    lived(deployment)
    seen = deployment.boundary.view(defense.tuning_shows)
    assert not seen.of(TuningRows)
    first, held_out = seen.of(TuningVectors)
    asked = seen.of(ClassifyVectors)[0]
    for message, split, n, number in ((first, "train", 12, 0), (held_out, "validation", 4, 12)):
        again = torch.cat([vectors(prepared, ids, number + k) for k, ids in enumerate(texts(split, n).ids)])
        assert torch.equal(message.vectors, again), "by seed and number alone"
    assert len(asked.vectors) == texts("evaluation", 6).tokens
    one, other = (vectors(prepared, (3, 4), number) for number in (0, 1))
    assert not torch.equal(one, other), "two texts alike do not get the same noise"


def test_without_noise_worth_the_name_it_tunes_as_on_ids(tmp_path: Path) -> None:
    noisy = DpHidden(mechanism="dchi", epsilon=1e9).prepare(bundle(), seed=3)
    frozen = Lora(rank=2, alpha=4, dropout=0.0, steps=6, batch=4, learning_rate=3e-3, patience=None,
                  precision="32-true", freeze_table=True, **REST)  # type: ignore[arg-type]  # fmt: skip
    told = []
    for name, prepared in (("ids", NoDefense().prepare(bundle(), seed=3)), ("vectors", noisy)):
        deployment = deployed(prepared, tmp_path / name, frozen)
        lived(deployment)
        told.append(deployment.tuned.model.state_dict())
    for name, value in told[0].items():
        torch.testing.assert_close(told[1][name], value, atol=1e-4, rtol=1e-3)


def test_a_text_is_read_from_its_noisy_rows_by_who_knows_the_table(tmp_path: Path) -> None:
    said = texts("train", 12).ids
    shares = []
    for epsilon in (1e6, 1e-3):
        defense = DpHidden(mechanism="dchi", epsilon=epsilon)
        prepared = defense.prepare(bundle(), seed=3)
        deployment = deployed(prepared, tmp_path / f"{epsilon}")
        lived(deployment)
        attack = NearestToken()
        attack.fit(Public(bundle(), "dp_hidden", parameters=prepared.parameters))
        upload = deployment.boundary.view(defense.tuning_shows)
        read = [attack.recover(view, np.random.default_rng(0)).ids for view in rows(upload, 12)]
        hits = [a == b for text, guess in zip(said, read, strict=True) for a, b in zip(text, guess, strict=True)]
        shares.append(np.mean(hits))
    assert shares[0] == 1.0
    assert shares[1] < 0.1


def test_dp_sgd_goes_on_top(tmp_path: Path) -> None:
    pytest.importorskip("opacus", reason="opacus is not installed: pip install 'smd-research[dp]'")
    prepared = DpHidden(mechanism="dchi", epsilon=50.0).prepare(bundle(), seed=3)
    tuning = DpLora(epsilon=8.0, delta=None, label_epsilon=None, rank=2, alpha=4, dropout=0.0, steps=2, batch=4,
                    learning_rate=1e-3, **REST)  # type: ignore[arg-type]  # fmt: skip
    assert len(lived(deployed(prepared, tmp_path, tuning))) == 6


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match="layer 2"):
        _ = DpHidden(layer=2, epsilon=8.0).tuning_shows
    prepared = DpHidden(epsilon=50.0).prepare(bundle(), seed=3)
    with pytest.raises(ConfigError, match="name no token"):
        deployed(prepared, tmp_path, classes=0)
    gpt2 = DpHidden(epsilon=50.0).prepare(sources.random("gpt2"), seed=3)
    with pytest.raises(UnsupportedModelError, match="adds positions"):
        vectors(gpt2, (3, 4), 0)
    provider = TuningProvider(bundle(), FULL, Machine(), tmp_path, None)  # type: ignore[arg-type]
    lengths, labels = token_tensor([2]), token_tensor([1])
    with pytest.raises(ProtocolError, match="width 5"):
        provider.handle(TuningVectors(torch.zeros(2, 5), lengths, labels, 0))
    with pytest.raises(ProtocolError, match="add up"):
        provider.handle(TuningVectors(torch.zeros(3, bundle().geometry.width), lengths, labels, 0))


def test_vectors_are_texts_without_ids() -> None:
    found = VectorTexts((torch.ones(2, 3), 2 * torch.ones(4, 3)), (0, 1))
    padded, lengths, labels = found.batch(np.array([1, 0]))
    assert (padded.shape, lengths.tolist(), labels.tolist()) == ((2, 4, 3), [4, 2], [1, 0])
    assert padded[1, 2:].abs().sum() == 0
    assert (len(found), found.tokens, found.part(1, 2).labels) == (2, 6, (1,))
    assert found.content != VectorTexts((torch.ones(2, 3), torch.ones(4, 3))).content
