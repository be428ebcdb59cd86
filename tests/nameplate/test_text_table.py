"""Rows of text in aligned columns."""

from __future__ import annotations

from nameplate import text_table

ROWS = [("a", "12", "first"), ("long name", "7", "")]


def test_columns_are_padded_and_no_line_ends_in_blanks() -> None:
    assert text_table.aligned(ROWS) == ["a          12  first", "long name  7"]


def test_a_column_is_aligned_to_the_right_where_its_name_says_so() -> None:
    lines = text_table.under_header(["name", ">size", "note"], ROWS)
    assert lines == ["name       size  note", "a            12  first", "long name     7"]


def test_rows_that_are_too_wide_are_stacked_and_names_stay_whole() -> None:
    lines = text_table.fitted([("name", "a text of some words"), ("x" * 30, "short")], width=20)
    assert lines == ["name", "    a text of some", "      words", "x" * 30, "    short"]


def test_no_rows_are_no_lines() -> None:
    assert text_table.aligned([]) == text_table.fitted([]) == []


def test_a_description_is_wrapped_beside_its_word_and_below_a_long_one() -> None:
    rows = [("a", "one two three four five"), ("a_long_word_of_its_own", "six")]
    assert list(text_table.described(rows, 40, indent=" ")) == [
        f" {'a':16}  one two three four",
        f"{'':19}five",
        " a_long_word_of_its_own",
        f"{'':19}six",
    ]
