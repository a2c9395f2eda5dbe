"""The main numbers of one record as a picture."""

import pytest
from made_records import make_record

from smd_research.core.errors import RecordError
from smd_research.metrics import Estimate
from smd_research.records import Record, Status
from smd_research.reports.figures.headline import headline_figure


def drawn(**metrics: Estimate) -> Record:
    record = make_record()
    return Record(record.status, record.cell, metrics=metrics)


def test_shares_stand_on_one_axis_and_amounts_on_their_own() -> None:
    metrics = {
        "token_accuracy": Estimate(0.9, 0.3, 1.0, 3),
        "control_token_accuracy": Estimate(0.1, 0.0, 0.6, 3),
        "kl": Estimate(0.0, n=3),
        "perplexity": Estimate(40.0, 30.0, 55.0, 3),
        "messages": Estimate(4.0, n=3),
    }
    figure = headline_figure(drawn(**metrics))
    labels = [[tick.get_text() for tick in axes.get_yticklabels()] for axes in figure.axes]
    assert labels == [["tokens recovered", "tokens, control"], ["KL (nats)"], ["perplexity"]]
    assert [[text.get_text() for text in axes.texts] for axes in figure.axes] == [["90 %", "10 %"], ["0"], ["40.0"]]
    leak, chance = (line for line in figure.axes[0].lines if len(line.get_xdata()) == 2)
    assert list(leak.get_xdata()) == [0.3, 1.0]
    assert list(chance.get_xdata()) == [0.0, 0.6]
    assert figure.axes[2].get_xlim() == (0, pytest.approx(60.5))


def test_a_record_without_numbers_has_no_picture() -> None:
    with pytest.raises(RecordError, match="is failed: it has no numbers to draw"):
        headline_figure(make_record(status=Status.FAILED, reason="out of memory"))
    with pytest.raises(RecordError):
        headline_figure(drawn(messages=Estimate(4.0, n=3)))
