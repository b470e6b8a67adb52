"""What a cell can hold between reading and writing, and how anything a script returns becomes such a value."""

from __future__ import annotations

import sys

import _datetime as datetime  # the module around it defines all of this once more, in Python, before it takes it from here

from ade_runner.errors import JobError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from decimal import Decimal
    from typing import Any

Value = None | str | int | float | bool | datetime.datetime | datetime.date | datetime.time | datetime.timedelta

VALUE_TYPES: frozenset[type] = frozenset(
    (
        type(None),
        str,
        int,
        float,
        bool,
        datetime.datetime,
        datetime.date,
        datetime.time,
        datetime.timedelta,
    )
)
"""The exact types of ``Value``: anything whose ``type()`` is among them needs no ``coerce``."""

EXACT_DIGITS = 15
"""How many significant digits a spreadsheet's number keeps; from Excel's specifications and limits."""

# Subclasses are reduced to their base, the most special first: bool is an int, datetime is a date.
_BASES: tuple[tuple[type, Any], ...] = (
    (str, str.__str__),
    (int, int),
    (float, float),
    (
        datetime.datetime,
        lambda v: datetime.datetime(
            v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.tzinfo, fold=v.fold
        ),
    ),
    (datetime.date, lambda v: datetime.date(v.year, v.month, v.day)),
    (datetime.time, lambda v: datetime.time(v.hour, v.minute, v.second, v.microsecond, v.tzinfo)),
    (datetime.timedelta, lambda v: datetime.timedelta(v.days, v.seconds, v.microseconds)),
)


def coerce(value: object) -> Value:
    """The ``Value`` that stands for any object a script may return.

    Subclasses become their base type, numpy's scalars what their ``item()`` says, a missing value of pandas (anything
    that is unequal to itself) None, a ``Decimal`` of up to 15 digits a number and any longer one text. Everything else
    becomes its ``str()``; an object that has none is a ``script_error`` that names its type.
    """
    if type(value) in VALUE_TYPES:
        return value  # type: ignore[return-value]
    try:
        return _coerce_foreign(value)
    except Exception as error:
        raise JobError(
            "script_error",
            f"A script returned a value of type {type(value).__name__[:80]} that cannot be turned into a cell"
            f" ({type(error).__name__[:80]}); return text, a number, a bool, a date, a time or None.",
        ) from None


def _coerce_foreign(value: Any) -> Value:
    # Whoever returns a Decimal has imported the module; a job that has none need not.
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return _from_decimal(value)
    if not isinstance(value, _SCALAR_BASES) and callable(getattr(value, "item", None)):
        item = value.item()
        if type(item) in VALUE_TYPES:
            return item  # type: ignore[no-any-return]
    if isinstance(value, datetime.date | float) and value != value:
        return None
    for base, reduce in _BASES:
        if isinstance(value, base):
            return reduce(value)  # type: ignore[no-any-return]
    # The comparison of an array is an array: only a plain True says that the value is unequal to itself.
    if (value != value) is True or str(value) == "<NA>":
        return None
    return str.__str__(str(value))


_SCALAR_BASES = tuple(base for base, _ in _BASES)


def _from_decimal(value: Decimal) -> Value:
    if value.is_nan():
        return None
    if not value.is_finite():
        return float(value)
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) > EXACT_DIGITS or abs(exponent) > 300:
        return str(value)
    if exponent >= 0 and len(digits) + exponent <= EXACT_DIGITS:
        return int(value)
    return float(value)
