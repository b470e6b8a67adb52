"""Which number formats show dates and times, and what a serial number then means.

Built-in formats: ECMA-376 part 1, 18.8.30 (with its East Asian and Thai tables). Serial numbers: 18.17.4.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum

import _datetime as datetime  # see values.py

from ade_runner.values import Value


class Shows(Enum):
    """What a number format shows of a serial number."""

    DATE = "date"
    DATE_TIME = "date and time"
    TIME = "time of day"
    ELAPSED = "elapsed time"


BUILT_IN: dict[int, Shows] = {
    **dict.fromkeys((14, 15, 16, 17, 27, 28, 29, 30, 31, 36, 50, 51, 52, 53, 54, 57, 58, 71, 72, 73, 74, 81), Shows.DATE),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 34, 35, 45, 47, 55, 56, 75, 76, 78, 80), Shows.TIME),
    **dict.fromkeys((22, 77), Shows.DATE_TIME),
    **dict.fromkeys((46, 79), Shows.ELAPSED),
}

_LITERAL = re.compile(r'"[^"]*"?|\\.|_.|\*.', re.DOTALL)
_BRACKET = re.compile(r"\[([^\]]*)\]")
_ELAPSED = re.compile(r"h+|m+|s+")
_NOT_A_DATE = re.compile(r"general|e[+-]", re.IGNORECASE)
_TOKEN = re.compile(r"am/pm|a/p|y+|e+|g+|b+|d+|h+|s+|m+")
_MAX_CODE = 1_000  # characters; Excel allows 255


def classify(code: str) -> Shows | None:
    """What a custom format code shows; None for numbers and text. Only its first section counts, as in Excel."""
    plain = _LITERAL.sub("", code[:_MAX_CODE]).split(";", 1)[0]
    elapsed = any(_ELAPSED.fullmatch(inside.lower()) for inside in _BRACKET.findall(plain))
    if elapsed:
        return Shows.ELAPSED
    tokens: list[str] = _TOKEN.findall(_NOT_A_DATE.sub("", _BRACKET.sub("", plain)).lower())
    date = time = False
    for i, token in enumerate(tokens):
        if token[0] in "hsa":
            time = True
        elif token[0] == "m":
            # An m next to hours or seconds means minutes, any other one months.
            minutes = (i > 0 and tokens[i - 1][0] == "h") or (i + 1 < len(tokens) and tokens[i + 1][0] == "s")
            time, date = time or minutes, date or not minutes
        elif token[0] in "yd" or token in ("e", "ee", "bb", "bbbb"):
            date = True
    if date:
        return Shows.DATE_TIME if time else Shows.DATE
    return Shows.TIME if time else None


_DAY_MS = 86_400_000
_LAST_SERIAL = 2_958_466  # 9999-12-31 is 2,958,465
_EPOCH_1900 = datetime.date(1899, 12, 30).toordinal()
_EPOCH_1904 = datetime.date(1904, 1, 1).toordinal()
LEAP_DAY_THAT_NEVER_WAS = "1900-02-29"


def decoder(shows: Shows, system_1904: bool) -> Callable[[int | float], Value]:
    """The function from a serial number to the value a format shows.

    Times are rounded to the millisecond, Excel's own resolution. What has no date (negative, past the year 9999, or day 0
    of the 1900 system) stays a number.
    """
    if shows is Shows.ELAPSED:
        return _elapsed

    epoch = _EPOCH_1904 if system_1904 else _EPOCH_1900

    def decode(serial: int | float) -> Value:
        if not 0 <= serial < _LAST_SERIAL:
            return serial
        day = int(serial)
        ms = round((serial - day) * _DAY_MS) if type(serial) is float else 0
        if shows is Shows.TIME and day == 0:
            return _clock(min(ms, _DAY_MS - 1))
        if ms == _DAY_MS:
            day, ms = day + 1, 0
        if not system_1904:
            if day == 0:
                return _clock(ms) if ms or shows is not Shows.DATE else 0
            if day == 60:
                # Lotus 1-2-3 took 1900 for a leap year and Excel kept that; no date stands for this day.
                return LEAP_DAY_THAT_NEVER_WAS + (f"T{_clock(ms).isoformat()}" if ms else "")
            if day < 60:
                day += 1
        ordinal = epoch + day
        if ordinal > datetime.date.max.toordinal():
            return serial
        date = datetime.date.fromordinal(ordinal)
        if shows is Shows.DATE and ms == 0:
            return date
        return datetime.datetime.combine(date, _clock(ms))

    return decode


def _elapsed(serial: int | float) -> Value:
    try:
        return datetime.timedelta(milliseconds=round(serial * _DAY_MS))
    except OverflowError:
        return serial


def _clock(ms: int) -> datetime.time:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return datetime.time(hours, minutes, seconds, ms * 1000)
