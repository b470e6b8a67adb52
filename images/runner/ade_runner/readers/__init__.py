"""Reads spreadsheets of any common format behind one interface, row by row, without trusting a byte of them."""

from ade_runner.readers.book import Book, Merge, ReadLimits, SheetInfo
from ade_runner.readers.detect import open_book

__all__ = ["Book", "Merge", "ReadLimits", "SheetInfo", "open_book"]
