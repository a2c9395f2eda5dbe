"""The laboratory from Python does what a cell does, can be taken apart, and tells in a line what cannot be."""

import gc
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from attacks.base import PromptAttack
from experiments import Lab
from experiments.commands.cli import main as smd
from experiments.composing.app import VERSION_BASE
from experiments.composing.calling import planned
from experiments.composing.overrides import UsageError
from experiments.trials import workbench
from experiments.trials.trial import trial
from experiments.trials.workbench import Workbench
from smd_research.boundary import AdversaryView
from smd_research.boundary.messages import PartialAttention
from smd_research.core.errors import LabError, NotApplicableError, PromptError
from smd_research.core.guess import Guess
from smd_research.core.paths import conf_dir
from smd_research.defenses.smd import Smd
from smd_research.records import Record
from smd_research.records.items import read_items

TEXT = "Dear Ms. Lee, your biopsy was positive."
MARKED = "Dear <redacted>[name] Ms. Lee</redacted>, your biopsy was <redacted>positive</redacted>."
SMALL = ("max_new_tokens=6", "n_prompts=2")


@pytest.fixture(autouse=True, scope="module")
def _little_public_text() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workbench, "AUXILIARY_DOCUMENTS", 100)
        yield


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One laboratory for whoever changes nothing of it."""
    with Lab(*SMALL, defense="smd") as one:
        yield one


@pytest.fixture(scope="module")
def answer(lab: Lab) -> Any:
    return lab.ask(TEXT)


def no_other(plan: Any) -> Record:
    raise AssertionError("no other cell is asked for")


# What a cell does

CELLS = [
    (["defense=smd"], "partial_attention_inversion", {}),
    (["defense=dp_text"], "bayes_token", {"mode": "bayes"}),
    (["defense=split", "seed=3"], "vocab_matching", {}),
    (["defense=po", "defense.fakes=1", "model=random"], "pick_stream", {"judges": ["likelihood", "random"]}),
    (["defense=smd", "defense.audit=rank", "model=random"], "active_queries", {"queries": 8}),
]
SAME = ("token_accuracy", "span_exact", "kl", "greedy_equal", "messages", "bytes_to_untrusted", "bytes_to_trusted")


@pytest.mark.parametrize(("words", "attack", "options"), CELLS, ids=lambda one: str(one))
def test_a_lab_does_what_a_cell_does(words: list[str], attack: str, options: dict[str, Any]) -> None:
    with Lab(*SMALL, "prompt_tokens=9", *words) as lab:
        record = trial(lab._options.plan(attack, options), Workbench(), no_other)
        answers = lab.ask(lab.prompts)
        guesses = lab.attack(attack, answers, **options)
    items = read_items(record.items)
    assert len(items) == len(answers) == 2
    for item, one, guess in zip(items, answers, guesses, strict=True):
        assert tuple(item.truth_ids) == one.prompt.ids
        assert tuple(item.guess_ids) == guess.ids
        found = {**one.utility, **one.cost, **guess.score(one)["value"]}
        for name in SAME:
            assert found.get(name, item.metrics[name]) == pytest.approx(item.metrics[name], nan_ok=True), name


def test_the_command_runs_the_same_cell(lab: Lab) -> None:
    command = lab.command("bayes_token", mode="bayes", draws=3)
    assert command.startswith("smd run max_new_tokens=6 n_prompts=2 defense=smd prompt_tokens=null ")
    assert command.endswith(" attack=bayes_token attack.mode=bayes attack.draws=3")
    asked = planned(command.split()[2:])
    assert asked.cell.id == lab._options.plan("bayes_token", {"mode": "bayes", "draws": 3}).cell.id


# What one sees of it


def test_five_lines(lab: Lab, answer: Any) -> None:
    assert answer.text == lab.bundle.decode(answer.ids)
    assert answer.plain_text == answer.text  # secure decoding changes no token
    assert [*answer.messages.columns] == ["direction", "kind", "shapes", "address", "bytes"]
    assert len(answer.messages) == answer.cost["messages"] == len(answer.view.messages)
    assert answer.messages["bytes"].sum() == answer.cost["bytes_to_untrusted"] + answer.cost["bytes_to_trusted"]
    assert answer.utility["kl"] == pytest.approx(0, abs=1e-4)
    guess = lab.attack("partial_attention_inversion", answer, seed=0)
    assert guess.text.strip() == TEXT
    assert guess.certified is True
    score = guess.score(answer)
    assert score.loc["token_accuracy", "value"] == score.loc["span_exact", "value"] == 1
    assert 0 <= score.loc["token_accuracy", "chance"] < 0.3


def test_secrets_are_found_or_marked(lab: Lab, answer: Any) -> None:
    assert {span.type for span in answer.prompt.spans} == {"name"}
    marked = lab.ask(MARKED)
    assert marked.prompt.ids == answer.prompt.ids
    assert [span.type for span in marked.prompt.spans] == ["name", "word"]


def test_chance_is_the_same_guess_at_other_prompts(lab: Lab, answer: Any) -> None:
    """A guess of one frequent token everywhere has no more than chance; one that abstains has none."""
    prompts = lab.prompts
    ids = tuple(prompts[0].ids[: len(answer.ids)])
    guess = lab.attack(Says(ids + ids), answer)
    other = [one for one in lab._others(answer.prompt) if one.ids != answer.prompt.ids]
    assert len(other) == 2
    hits = [np.mean([a == b for a, b in zip(one.ids, ids + ids, strict=False)]) for one in other]
    assert guess.score(answer).loc["token_accuracy", "chance"] == pytest.approx(np.mean(hits), abs=0.15)
    assert lab.attack(Says(()), answer).score(answer).loc["token_accuracy", "chance"] == 0


class Says(PromptAttack):
    """Says the same of every view."""

    def __init__(self, ids: tuple[int, ...]) -> None:
        self._ids = ids

    def recover(self, view: AdversaryView, rng: np.random.Generator) -> Guess:
        return Guess((*self._ids, *[-1] * (view.length or 0))[: view.length])


def test_an_attack_has_a_seed_of_its_own(lab: Lab, answer: Any) -> None:
    one, again, other, default = (lab.attack("random", answer, seed=seed).ids for seed in (5, 5, 6, None))
    assert one == again
    assert one != other
    assert default == lab.attack("random", answer, seed=0).ids


def test_several_are_asked_and_attacked_at_once(lab: Lab) -> None:
    answers = lab.ask([TEXT, lab.prompts[0]])
    assert [one.prompt.text for one in answers] == [TEXT, lab.prompts[0].text]
    guesses = lab.attack("random", answers)
    assert [len(one.ids) for one in guesses] == [len(one.prompt.ids) for one in answers]
    assert lab.ask([]) == []
    assert lab.attack("random", []) == []


def test_the_same_prompt_through_two_defenses_at_once(lab: Lab, answer: Any) -> None:
    with Lab(*SMALL, model=lab.bundle, defense="split") as other:
        assert other.bundle is lab.bundle
        there = other.ask(answer.prompt)
        again = lab.ask(TEXT)
        assert there.text == again.text == answer.text
        assert other.attack("vocab_matching", there).ids == there.prompt.ids
        assert lab.attack("partial_attention_inversion", again).ids == again.prompt.ids
        with pytest.raises(UsageError, match="another lab gave this answer"):
            other.attack("random", answer)


def test_an_object_is_as_good_as_a_name(lab: Lab, answer: Any) -> None:
    with Lab("max_new_tokens=6", model=lab.bundle, defense=Smd(reply="lse")) as mine:
        kinds = set(mine.ask(TEXT).messages["kind"])
        assert "SummedAttention" in kinds
        with pytest.raises(UsageError, match="an object has no name"):
            mine.command()
        assert repr(mine) == f"Lab(model={lab.bundle.name!r}, defense='smd', requests=1, closed=False)"
    with Lab("max_new_tokens=6", "defense.reply=lse") as named:
        assert set(named.ask(TEXT).messages["kind"]) == kinds


# Taken apart


def test_a_view_is_changed_and_attacked_again(lab: Lab, answer: Any) -> None:
    whole = lab.attack("partial_attention_inversion", answer.view)
    assert whole.ids == answer.prompt.ids
    assert whole.score(answer).loc["token_accuracy", "value"] == 1
    asked = [(way, one) for way, one in answer.view.messages if not isinstance(one, PartialAttention)]
    blind = lab.attack("partial_attention_inversion", replace(answer, view=replace(answer.view, messages=tuple(asked))))
    assert blind.certified is not True
    assert blind.score(answer).loc["token_accuracy", "value"] < 0.5
    assert len(answer.view.messages) > len(asked)


def test_who_is_given_another_view_reads_another_prompt(lab: Lab, answer: Any) -> None:
    other = lab.ask("Dear Mr. Kim, we met in Porto last year.")
    swapped = lab.attack("partial_attention_inversion", replace(answer, view=other.view))
    assert swapped.text.strip() == other.prompt.text
    assert swapped.score(other).loc["token_accuracy", "value"] == 1
    assert swapped.score(answer).loc["token_accuracy", "value"] < 0.5


def test_what_is_public_is_no_secret(lab: Lab) -> None:
    assert lab.public.bundle is lab.bundle
    assert lab.public.defense == "smd"
    assert len(lab.public.corpus) == 100


def test_an_active_attack_asks_again(lab: Lab, answer: Any) -> None:
    guess = lab.attack("active_queries", answer, queries=16)
    assert len(guess.ids) == len(answer.prompt.ids)
    with pytest.raises(NotApplicableError, match="asks again in the provider's place: give it an answer, and no view"):
        lab.attack("active_queries", answer.view, queries=16)


# What lasts, and what does not


def test_the_parties_stay_between_questions_and_end_with_the_lab() -> None:
    with Lab("max_new_tokens=2", transport="process") as lab:
        lab.ask(TEXT)
        ((deployment, _),) = [lab._live]  # type: ignore[list-item]
        pid = deployment.boundary.pids[1]
        lab.ask(TEXT)
        assert deployment.boundary.pids == (os.getpid(), pid)
        assert lab._live is not None
        assert lab._live[0] is deployment
    assert not _runs(pid)
    lab.close()
    assert lab.closed


def test_a_lab_that_is_forgotten_ends_its_process() -> None:
    lab = Lab("max_new_tokens=2", transport="process")
    lab.ask(TEXT)
    assert lab._live is not None
    pid = lab._live[0].boundary.pids[1]
    del lab
    gc.collect()
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_party_that_dies_is_replaced_at_the_next_question() -> None:
    with Lab("max_new_tokens=2", transport="process") as lab:
        before = lab.ask(TEXT)
        assert lab._live is not None
        os.kill(lab._live[0].boundary.pids[1], 9)
        with pytest.raises(LabError, match=r"ended|gone|went|lost|closed|disconnected"):
            lab.ask(TEXT)
        assert lab.ask(TEXT).text == before.text


def test_a_closed_lab_says_so_and_what_it_gave_stays() -> None:
    lab = Lab(*SMALL, defense="none")
    answer = lab.ask(TEXT)
    guess = lab.attack("reading", answer)
    lab.close()
    for use in (lambda: lab.ask(TEXT), lambda: lab.attack("reading", answer), lambda: lab.prompts):
        with pytest.raises(LabError, match=r"^this lab is closed: make another, Lab\(\.\.\.\)$"):
            use()
    assert guess.text.strip() == TEXT
    assert guess.score(answer).loc["token_accuracy", "value"] == 1


def test_hydra_is_left_as_it_was_found(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert not GlobalHydra.instance().is_initialized()
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        before = GlobalHydra.instance().hydra
        lab.command("prior")
        with pytest.raises(UsageError):
            Lab(sed=1)
        assert GlobalHydra.instance().hydra is before
        assert compose("config", overrides=["seed=4"]).seed == 4
    assert not GlobalHydra.instance().is_initialized()
    assert smd(["list", "defense=smd"]) == 0
    lab.command("random")
    assert not GlobalHydra.instance().is_initialized()


def test_torch_has_the_callers_threads_afterwards(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.set_num_threads(2)
    lab.ask(TEXT)
    assert torch.get_num_threads() == 2


# What cannot be

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"defense": "smdd"}, "unknown defense 'smdd': did you mean 'smd'?"),
    ({"model": "embeded"}, "unknown model 'embeded': did you mean 'embedded'?"),
    ({"max_new_token": 3}, "unknown key 'max_new_token': did you mean 'max_new_tokens'?"),
    ({"defense.auditt": "rank"}, "unknown key 'defense.auditt': did you mean 'defense.audit'?"),
    ({"defense.audit": "ranks"}, "defense.audit=ranks is unknown: did you mean 'rank'?"),
    ({"seed": -1}, "seed=-1: give a whole number, 0 or more"),
    ({"seed": "a b"}, "seed=a b: give a whole number, 0 or more"),
    ({"seed": object()}, "seed: a object is no value of an option; give a number, a text or a list"),
    ({"max_new_tokens": 10**6}, "max_new_tokens=1000000: give a whole number, 0 or more, below"),
    ({"defense": 3}, "defense: a int is none: give its name, or one that is made"),
    ({"defense": Smd(), "defense.audit": "rank"}, "defense.audit has no effect on a defense that is made"),
    ({"attack": "prior"}, 'an attack is no option of a lab: write lab.attack("prior", answer)'),
    ({"logger": "csv"}, "a lab writes no records"),
    ({"experiment": "demo"}, "this experiment lists several cells"),
    ({"transport": "pigeon"}, "transport=pigeon is unknown: there is inproc, process, tcp"),
]


@pytest.mark.parametrize(("options", "line"), WRONG, ids=[line for _, line in WRONG])
def test_a_wrong_option_is_told_in_a_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises((UsageError, LabError)) as raised:
        Lab(**options)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("defense", "'defense' lacks its value: write defense="),
        ("-m", "'-m' is a flag of the command line: give options, e.g. seed=1"),
        ("seed=1,2", "'seed=1,2' names several cells: give one value"),
        ("defense=[smd,po]", "defense"),
    ],
)
def test_a_wrong_word_is_told_in_a_line(word: str, line: str) -> None:
    with pytest.raises(UsageError) as raised:
        Lab(word)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


def test_one_option_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="seed is given twice"):
        Lab("seed=1", seed=2)
    with pytest.raises(UsageError, match="defense is given twice"):
        Lab("defense=po", defense="smd")
    with pytest.raises(UsageError, match="a Smd is no option: write model="):
        Lab(Smd())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the text is empty: ask something"),
        (" \n", "the text is empty: ask something"),
        ("<redacted></redacted>", "marks nothing"),
        ("a <redacted>b", "is never closed"),
        ("word " * 5000, "the model's context is"),
        ("half \ud83d", "half a character"),
    ],
)
def test_a_text_that_cannot_be_asked(lab: Lab, text: str, line: str) -> None:
    with pytest.raises(PromptError, match=line) as raised:
        lab.ask(text)
    assert "\n" not in str(raised.value)


def test_what_cannot_be_attacked(lab: Lab, answer: Any) -> None:
    for attack, what, line in [
        ("partial_attention", answer, "unknown attack 'partial_attention': did you mean"),
        ("none", answer, "attack=none attacks nothing: name another"),
        ("prior", None, r'prior reads what was asked: lab\.attack\("prior", answer\)'),
        ("prior", [TEXT], "a str cannot be attacked"),
        ("prior", [3], "a int cannot be attacked"),
        (3, answer, "a int is no attack: give its name, or one that is made"),
    ]:
        with pytest.raises(UsageError, match=line):
            lab.attack(attack, what)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match=r"attack\.shortlst"):
        lab.attack("prior", answer, shortlst=3)
    with pytest.raises(UsageError, match=r"attack\.shortlist=0: give a whole number"):
        lab.attack("prior", answer, shortlist=0)
    with pytest.raises(UsageError, match="an attack that is made has its options already"):
        lab.attack(Says(()), answer, shortlist=3)
    with pytest.raises(NotApplicableError, match="needs token ids, which the defense does not show"):
        lab.attack("reading", answer)
    with pytest.raises(NotApplicableError, match="needs exposed weights, which the defense does not show"):
        lab.attack("exposed_weights")


def test_a_lab_that_serves_does_not_tune(lab: Lab) -> None:
    with pytest.raises(UsageError, match="to tune, name one"):
        lab.tune()
    for what in (3, [3], None):
        with pytest.raises(UsageError, match=r"a (int|NoneType) cannot be asked"):
            lab.ask(what)  # type: ignore[call-overload]


# What is shown


def test_no_repr_shows_what_was_said(lab: Lab, answer: Any) -> None:
    guess = lab.attack("partial_attention_inversion", answer)
    for shown in (repr(answer), repr(guess), repr(lab), repr(answer.view), str(answer), str(guess)):
        assert "Lee" not in shown
        assert "biopsy" not in shown
    assert repr(guess).startswith("LabGuess(by='partial_attention_inversion', tokens=")


HOSTILE = '<script>alert(1)</script> Dear Ms. Lee & <b>co</b>, "hello" <img src=x onerror=alert(1)>'


def test_a_hostile_prompt_stays_text(lab: Lab) -> None:
    with Lab("max_new_tokens=2", model=lab.bundle, defense="none") as plain:
        answer = plain.ask(HOSTILE)
        guess, unread = plain.attack("reading", answer), plain.attack("reading", answer.view)
        other = plain.attack("reading", replace(answer, view=plain.ask("Hello.").view))
    assert guess.text.strip() == HOSTILE
    for one in (answer, guess, unread, other):
        html = one._repr_html_()
        assert html.count("<script") == html.count("<img") == html.count("<b>") == 0
        assert "&lt;" in html
    assert 'class="recovered secret"' in guess._repr_html_()
    assert 'class="wrong' in other._repr_html_()
    assert "recovered" not in unread._repr_html_().partition("</style>")[2]
    assert "<b>" not in answer.messages._repr_html_()


def test_a_view_of_abstentions_shows_dots(lab: Lab, answer: Any) -> None:
    guess = lab.attack(Says(()), answer)
    assert guess.text == "·" * len(answer.prompt.ids)
    assert 'class="abstained' in guess._repr_html_()
    html = guess._repr_html_()
    assert 'data-jp-theme-light="false"' in html
    assert "prefers-color-scheme: dark" in html
