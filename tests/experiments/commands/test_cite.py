"""``smd cite``: the laboratory, then the papers behind what was chosen; nothing is run, nothing is left."""

import re
from pathlib import Path

import pytest

from experiments.commands.cli import main as smd

HEAD = re.compile(r"^@\w+\{(\w+),$", re.MULTILINE)


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert smd(["cite", *words]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    return shown.out


def keys(text: str) -> list[str]:
    return HEAD.findall(text)


def test_without_a_word_the_laboratory_alone_is_cited(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(said([], capsys)) == ["smd_research"]
    assert not list(in_folder.iterdir())


def test_a_part_that_no_word_names_is_not_cited(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(said(["defense=smd"], capsys)) == ["smd_research", "gim2024confidential"]
    text = said(["defense=smd", "attack=pick_stream,random", "link=cc_on"], capsys)
    assert keys(text) == ["smd_research", "gim2024confidential", "su2023honeyword"]
    assert "% defense=smd, attack=pick_stream, link=cc_on\n@article{gim2024confidential" in text
    assert text.rstrip().endswith("% From no paper: attack=random.")


def test_an_option_decides_whose_work_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(said(["defense=dp_text"], capsys))[1:] == ["yue2021santext"]
    assert keys(said(["defense=dp_text", "defense.mechanism=tem,dchi"], capsys))[1:] == [
        "carvalho2023tem",
        "feyisetan2020madlib",
    ]
    assert keys(said(["tuning=lora", "tuning.label_epsilon=1"], capsys))[1:] == ["hu2022lora", "warner1965randomized"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["table=po_security"], {"gim2024confidential", "su2023honeyword"}),
        (["table=smd_users"], {"gim2024confidential"}),  # benches: the table notes it
        (["table=dp_attacks"], {"yue2021santext", "tong2025vulnerability", "mai2024snd"}),
        (["table=slip_restoration", "size=full"], {"refael2024slip", "jain2025slipsec", "hu2022lora"}),
        (["experiment=demo"], {"gim2024confidential", "refael2024slip", "chen2024shaking", "yuan2023stip"}),
        (["experiment=confidential_prompting"], {"gim2024confidential", "su2023honeyword"}),  # a sweep of its own
        (["experiment=clinic_cloud", "model=smollm2"], {"benallal2025smollm2", "thomas2025hidden"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_rows_of_a_table_and_the_cells_of_an_experiment_are_cited(
    words: list[str], expected: set[str], in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(words, capsys)
    assert expected <= set(keys(text))
    assert len(keys(text)) == len(set(keys(text)))
    assert keys(text)[0] == "smd_research"
    assert not list(in_folder.iterdir())


def test_a_table_cites_only_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(said(["table=families"], capsys)) == ["smd_research"]
    assert "chen2024shaking" not in keys(said(["table=po_security"], capsys))
    assert "hu2022lora" not in keys(said(["table=po_security"], capsys))  # nothing is tuned


def test_a_claim_s_source_is_cited_for_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(["table=dp_audit"], capsys)
    (above,) = re.findall(r"^(% .*)\n@\w+\{tong2023inferdpt,", text, re.MULTILINE)
    assert "table=dp_audit" in above


def test_a_component_of_ones_own_brings_its_bibliography(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "echo.yaml").write_text("# Echo\n_target_: fractions.Fraction\ncites: lee2026echo\n")
    words = ["cite", "-cd", str(tmp_path), "attack=echo"]
    assert smd(words) == 1
    assert capsys.readouterr().err.startswith("error: attack=echo cites 'lee2026echo', which is in no papers.bib")
    (tmp_path / "papers.bib").write_text("@misc{lee2026echo,\n  title = {Echo},\n}\n")
    assert smd(words) == 0
    assert "% attack=echo\n@misc{lee2026echo,\n  title = {Echo},\n}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table=po_securty"], "unknown table 'po_securty': did you mean 'po_security'?"),
        (["table=po_security", "size=huge"], "size=huge is unknown"),
        (["defense=sdm"], "unknown defense 'sdm': did you mean 'smd'?"),
        (["defense=smd,sdm"], "unknown defense 'sdm'"),
        (["defense"], "'defense' lacks its value"),
        (["defense.mechanism=[", "defense=dp_text"], "cannot be read: write"),
        (["attack=random", "attack.nothing=1"], "unknown key 'attack.nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_gets_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert smd(["cite", *words]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("error: ") == 1
    assert shown.out == ""
