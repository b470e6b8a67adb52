import pytest

from ade_runner import a1


def test_columns_are_letters_without_a_zero():
    assert [a1.column_letters(n) for n in (1, 26, 27, 52, 702, 703, 16_384)] == ["A", "Z", "AA", "AZ", "ZZ", "AAA", "XFD"]


def test_columns_outside_of_a_worksheet_have_no_letters():
    for column in (0, -1, 16_385):
        with pytest.raises(ValueError):
            a1.column_letters(column)


def test_cells_and_ranges_are_written_in_a1_notation():
    assert a1.cell(4, 2) == "B4"
    assert a1.range_(4, 2, 159, 7) == "B4:G159"


def test_parsing_is_the_inverse_of_writing():
    for row in (1, 9, 10, 1_048_576):
        for column in (1, 26, 27, 702, 703, 16_384):
            assert a1.parse_cell(a1.cell(row, column)) == (row, column)


def test_ranges_are_understood_with_dollars_in_any_order_of_corners():
    assert a1.parse_range("$G$159:b4") == (4, 2, 159, 7)
    assert a1.parse_range("B4") == (4, 2, 4, 2)


@pytest.mark.parametrize("text", ["", "A", "1", "A0", "XFE1", "A1048577", "A1:", "AAAA1", "A1B", "Ä1", "A²"])
def test_what_is_no_cell_of_a_worksheet_is_refused(text):
    with pytest.raises(ValueError):
        a1.parse_cell(text)
