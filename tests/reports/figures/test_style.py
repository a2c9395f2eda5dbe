"""What every figure has in common."""

from pathlib import Path

from smd_research.reports.figures.style import house_style, new_figure, save


def test_a_heading_too_long_for_its_figure_is_broken(tmp_path: Path) -> None:
    with house_style():
        figure = new_figure(4, 3)
        axes = figure.subplots()
        axes.set_title("what the best attack recovers of each kind of defense, and what that costs in accuracy")
        save(figure, tmp_path / "long.png")
        (heading,) = [text for text in axes.get_children() if getattr(text, "get_text", str)().startswith("what the")]
        lines = heading.get_text().splitlines()
        figure.draw_without_rendering()
        assert len(lines) > 1
        assert heading.get_window_extent().x1 <= figure.bbox.x1
        axes.set_title("short")
        save(figure, tmp_path / "short.png")
        assert axes.get_title(loc="left") == "short"
