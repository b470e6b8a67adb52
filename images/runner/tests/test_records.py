"""Classes of named values."""

import pytest

from ade_runner.records import fresh, record


@record
class Point:
    x: int
    y: int = 2
    tags: list[str] = fresh(list)


def test_a_record_takes_its_values_by_place_and_by_name():
    point = Point(1, tags=["a"])
    assert (point.x, point.y, point.tags) == (1, 2, ["a"])
    point.y = 5
    assert (point.y, Point(0).y) == (5, 2)


def test_a_default_that_is_made_belongs_to_one_record():
    one, other = Point(1), Point(1)
    one.tags.append("mine")
    assert other.tags == []


@pytest.mark.parametrize(
    "values, named", [((), {}), ((1, 2, [], 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1})], ids=["too few", "too many", "twice", "unknown"]
)
def test_what_a_record_does_not_have_is_refused(values, named):
    with pytest.raises(TypeError, match="Point"):
        Point(*values, **named)


def test_records_are_equal_by_value_and_hashed_where_their_values_are():
    @record
    class Name:
        text: str

    assert Point(1) == Point(1) != Point(2)
    assert {Name("a"): 1}[Name("a")] == 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))
