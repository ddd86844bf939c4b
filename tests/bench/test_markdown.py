import pytest

from recon3d.bench import markdown

TEXT = "# a\n<!-- BEGIN x -->\nold\n<!-- END x -->\nrest\n"


def test_markers_keep_what_is_around_them_and_are_stable() -> None:
    new = markdown.update_markers(TEXT, "x", "new | one\n")
    assert new == "# a\n<!-- BEGIN x -->\nnew | one\n<!-- END x -->\nrest\n"
    assert markdown.update_markers(new, "x", "new | one\n") == new


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        TEXT + TEXT,
        "<!-- BEGIN x -->\n" + TEXT,
        TEXT + "<!-- END x -->\n",
        "<!-- END x -->\n<!-- BEGIN x -->\n",
        "<!-- BEGIN x -->\n",
        TEXT.replace(" x ", " y "),
    ],
)
def test_missing_or_doubled_markers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="BEGIN x"):
        markdown.update_markers(text, "x", "new")


def test_cells_cannot_break_the_table() -> None:
    text = markdown.table(["a", "b"], [["x|y", "one\n  two"]])
    assert text == "| a | b |\n| :-- | :-- |\n| x\\|y | one two |\n"
    with pytest.raises(ValueError, match="expected 2 cells"):
        markdown.table(["a", "b"], [["x"]])


def test_columns_of_figures_are_right_aligned() -> None:
    rows = [["1", "**0.5** (1)", "-0.1", "2 points", "12"], ["2", "n/a", "-", "", "- cars"], ["3", "", "+1", "3", "7"]]
    assert markdown.table(list("abcde"), rows).splitlines()[1] == "| :-- | --: | --: | --: | :-- |"
    assert markdown.table(["a", "b"], [["1", "2"], ["2", "cars"]]).splitlines()[1] == "| :-- | :-- |"
