"""Private tuning by two real parties: nothing but coded rows crosses, and the answers come back decoded."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from smd_research.boundary import Boundary
from smd_research.boundary.messages import ClassifyRows, Progress, Tune, TuningRows, token_tensor
from smd_research.core.errors import ConfigError, PeerLostError, ProtocolError
from smd_research.data.tasks.rows import texts_of
from smd_research.data.tasks.synthetic import Urgency
from smd_research.data.texts import Texts
from smd_research.defenses.dp_text import DpText
from smd_research.defenses.none import NoDefense
from smd_research.defenses.tunable import ClientCode, TunablePrepared
from smd_research.defenses.tuning import TuningClient, TuningDeployment, TuningProvider
from smd_research.mechanisms.privacy.randomised_response import RandomisedResponse
from smd_research.models import Bundle, sources
from smd_research.training.methods import Full, Machine

TUNING = Full(
    steps=6,
    batch=4,
    learning_rate=3e-3,
    warmup=0.1,
    weight_decay=0.0,
    clip=1.0,
    pooling="last",
    head="linear",
    freeze_table=False,
    checks=2,
    patience=None,
    precision="32-true",
)
TASK = Urgency(train=12, validation=4, evaluation=6, tokens=16)
SHOWS = NoDefense().tuning_shows


@cache
def bundle() -> Bundle:
    return sources.random("llama")


def texts(split: str, n: int) -> Texts:
    return texts_of(TASK.examples(split, n, 0), TASK, bundle())


class Substitution(ClientCode):
    """A permutation of the ids that are not special, and, if asked, the other name for each of two classes."""

    def __init__(self, labels: bool) -> None:
        self.labels = labels
        vocabulary = bundle().geometry.vocab
        moved = np.setdiff1d(np.arange(vocabulary), sorted(bundle().special_ids))
        self.cipher: NDArray[np.int64] = np.arange(vocabulary)
        self.cipher[moved] = np.random.default_rng(0).permutation(moved)

    def encode(self, ids: Sequence[int], occurrence: int = 0) -> Sequence[int]:
        return self.cipher[list(ids)].tolist()

    def encode_label(self, label: int) -> int:
        return 1 - label if self.labels else label

    def decode_label(self, label: int) -> int:
        return self.encode_label(label)

    def plain_ids(self, vocabulary: int) -> NDArray[np.int64]:
        return np.argsort(self.cipher)


def permuted(labels: bool) -> TunablePrepared:
    """The model whose table is permuted as the code says."""
    code, model = Substitution(labels), sources.random("llama").model
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.copy_(bundle().embedding[torch.from_numpy(code.plain_ids(len(table)))])
    return replace(NoDefense().prepare(replace(bundle(), model=model)), code=code)


def deployed(folder: Path, prepared: TunablePrepared | None = None, transport: str = "inproc") -> TuningDeployment:
    boundary = Boundary(transport, threads=1)
    return TuningDeployment(prepared or NoDefense().prepare(bundle()), boundary, 2, TUNING, Machine(), folder)


def lived(deployment: TuningDeployment, words: Sequence[int] = ()) -> tuple[list[int], bytes, dict[str, float]]:
    """Upload, tune, classify: answers, what the provider received, what tuning took."""
    with deployment:
        deployment.upload(texts("train", 12))
        deployment.upload(texts("validation", 4), held_out=True, first=12)
        outcome = deployment.tune(words, 0)
        answers = deployment.classify(texts("evaluation", 6), first=16)
        return answers, deployment.boundary.received_by_untrusted(), outcome


def crossed(received: bytes) -> bool:
    """Canary: whether a private text's ids are among the bytes."""
    return any(token_tensor(text[1:]).numpy().tobytes() in received for text in texts("train", 12).ids)


def test_a_finished_tuning_is_not_done_again(tmp_path: Path) -> None:
    first, again = (lived(deployed(tmp_path)) for _ in range(2))
    assert again[0] == first[0]
    assert again[2] == first[2], "the folder's result, and the time that it took"


@pytest.mark.parametrize("head", ["linear", "words"])
def test_a_permuted_table_and_coded_rows_tune_to_the_same_answers(tmp_path: Path, head: str) -> None:
    """Horizontal shaking alone is exact, through tuning and inference; a head of its own is drawn for sent classes."""
    words = [20, 30] if head == "words" else []
    plain = lived(deployed(tmp_path / "plain"), words)
    keyed = lived(deployed(tmp_path / "keyed", permuted(labels=head == "words")), words)
    assert not crossed(keyed[1])
    assert keyed[0] == plain[0]
    assert keyed[2]["loss"] == pytest.approx(plain[2]["loss"], abs=1e-4)


def sent_rows(deployment: TuningDeployment) -> list[TuningRows]:
    return deployment.boundary.view(SHOWS).of(TuningRows)


def test_sanitised_text_has_one_noisy_copy_in_every_split(tmp_path: Path) -> None:
    """Flaws of released code: fresh noise each epoch, a development set or evaluation as it is; class words stay."""
    prepared = DpText(survival=0.4).prepare(bundle(), seed=5)
    splits = [("train", 12, 0), ("validation", 4, 12), ("evaluation", 6, 16)]
    with deployed(tmp_path, prepared) as deployment:
        deployment.upload(texts("train", 12))
        deployment.upload(texts("validation", 4), held_out=True, first=12)
        deployment.tune([20, 30], 0)
        deployment.classify(texts("evaluation", 6), first=16)
        seen = deployment.boundary.view(prepared.tuning_shows)
        for (split, n, first), row in zip(splits, [*seen.of(TuningRows), *seen.of(ClassifyRows)], strict=True):
            plain = [token for text in texts(split, n).ids for token in text]
            same = np.mean([a == b for a, b in zip(row.ids.tolist(), plain, strict=True)])
            assert 0.1 < same < 0.8
            again = prepared.code.replaced(texts(split, n).ids, first)
            assert row.ids.tolist() == [token for text in again for token in text], "by seed and number alone"
        assert seen.of(Tune)[0].words.tolist() == [20, 30]
        assert not crossed(deployment.boundary.received_by_untrusted())
    other = prepared.code.replaced(texts("train", 12).ids, 1)
    assert other != prepared.code.replaced(texts("train", 12).ids, 0), "two texts alike do not get the same noise"
    assert prepared.code.replaced(texts("train", 12).ids[1:], 1) == prepared.code.replaced(texts("train", 12).ids)[1:]


def test_labels_are_told_by_randomised_response_once_a_text_and_evaluation_is_scored_as_it_is(tmp_path: Path) -> None:
    tuning = replace(TUNING, label_epsilon=0.5)
    many = Texts(((3, 4, 5),) * 600, (0, 1) * 300)

    def told(prepared: TunablePrepared) -> list[int]:
        boundary = Boundary("inproc", threads=1)
        with TuningDeployment(prepared, boundary, 2, tuning, Machine(), tmp_path) as deployment:
            deployment.upload(many)
            deployment.upload(many, held_out=True, first=600)
            first, held_out = sent_rows(deployment)
            assert first.labels.tolist() != held_out.labels.tolist(), "of texts held out as well"
            return first.labels.tolist()

    plain, again = (told(NoDefense().prepare(bundle(), seed=7)) for _ in range(2))
    assert plain == again
    keep = RandomisedResponse(0.5, 2).keep
    kept = np.mean([a == b for a, b in zip(plain, many.labels, strict=True)])
    assert kept == pytest.approx(keep, abs=5 * np.sqrt(keep * (1 - keep) / 600))
    swapped = told(replace(permuted(labels=True), seed=7))
    assert swapped == [1 - label for label in plain], "a permutation of labels comes after"
    with pytest.raises(ConfigError, match=r"tuning.label_epsilon=null"):
        TuningDeployment(NoDefense().prepare(bundle()), Boundary("inproc"), 0, tuning, Machine(), tmp_path)


def test_what_the_provider_holds_after_tuning_is_read_from_it(tmp_path: Path) -> None:
    deployment = deployed(tmp_path)
    lived(deployment)
    before, after = deployment.before.embedding, deployment.tuned.embedding
    moved = (before != after).any(1).nonzero().flatten().tolist()
    used = {token for text in texts("train", 12).ids for token in text}
    assert set(moved) <= used
    assert len(moved) > len(used) / 2
    assert deployment.before is bundle()


def test_a_provider_that_dies_is_named_and_a_process_goes_on_as_if_all_had_been_here(tmp_path: Path) -> None:
    def living(transport: str, folder: str, kill_at: int | None = None) -> tuple[list[int], list[str], list[int]]:
        boundary, told = Boundary(transport, threads=1), []

        def on_step(step: int, steps: int) -> None:
            told.append(step)
            if step == kill_at:
                boundary._host._process.kill()  # type: ignore[union-attr]

        parties = (
            NoDefense().prepare(bundle()),
            boundary,
            2,
            TUNING,
            Machine(),
            tmp_path / folder,
            TuningClient(on_step),
        )
        answers, received, outcome = lived(TuningDeployment(*parties))
        assert crossed(received)
        assert outcome["steps"] == TUNING.steps
        messages = boundary.view(SHOWS).messages
        return answers, [str(message) for _, message in messages if not isinstance(message, Progress)], told

    answers, seen, told = living("inproc", "a")
    assert set(told) == set(range(1, 7)), "progress keeps a long request alive"
    with pytest.raises(PeerLostError):
        living("process", "b", kill_at=5)
    assert (tmp_path / "b" / "last.ckpt").is_file()
    assert living("process", "b") == (answers, seen, [step for step in told if step > 3])


class _Nowhere:
    def notify(self, message: object) -> None:
        """Takes anything."""


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    provider = TuningProvider(bundle(), TUNING, Machine(), tmp_path, _Nowhere())  # type: ignore[arg-type]
    row, none = token_tensor([3, 4]), token_tensor([])
    with pytest.raises(ProtocolError, match="add up"):
        provider.handle(TuningRows(row, token_tensor([3]), token_tensor([1]), 0))
    with pytest.raises(ProtocolError, match="one label"):
        provider.handle(TuningRows(row, token_tensor([2]), token_tensor([1, 0]), 0))
    with pytest.raises(ProtocolError, match="has not tuned"):
        provider.handle(ClassifyRows(row, token_tensor([2])))
    with pytest.raises(ProtocolError, match="does not serve"):
        provider.handle(Progress(1, 2))
    with pytest.raises(ProtocolError, match="does not serve"):
        TuningClient().handle(Tune(none, 2, 0))
