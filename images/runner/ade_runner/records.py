"""Classes that are named values. They are declared as data classes are, and cost a container's start next to nothing: the standard
library writes and compiles several functions for every such class, and imports ``inspect`` for it, which was a fifth of all that a
supervisor does before it is ready."""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    _Class = TypeVar("_Class", bound=type)
else:

    def dataclass_transform(**_):
        """For type checkers only: what it decorates stays as it is."""
        return lambda function: function



class Fresh:
    """A default that is made for every record anew."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


def fresh(make: Callable[[], Any]) -> Any:
    """The default of an attribute: what ``make`` returns, for every record its own."""
    return Fresh(make)


@dataclass_transform(field_specifiers=(fresh,))
def record(cls: _Class) -> _Class:
    """Gives a class the ``__init__`` that its annotations describe, in their order, equality by value, and
    a hash where all values have one.

    What the class assigns to an annotated name is its default. Subclasses inherit no fields.
    """
    names = tuple(cls.__annotations__)
    defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
    makers = [(name, default.make) for name, default in defaults.items() if isinstance(default, Fresh)]
    known = frozenset(names)

    def values_of(self: Any) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in names)

    def __init__(self: Any, *values: Any, **named: Any) -> None:
        given = dict(zip(names, values), **named)
        if len(given) != len(values) + len(named) or not known.issuperset(given):
            raise TypeError(f"{cls.__name__} takes {', '.join(names)}")
        for name, make in makers:
            if name not in given:
                given[name] = make()
        missing = [name for name in names if name not in given and name not in defaults]
        if missing:
            raise TypeError(f"{cls.__name__} needs {', '.join(missing)}")
        # What is not given is found in the class.
        self.__dict__.update(given)

    def __eq__(self: Any, other: object) -> bool:
        return type(other) is cls and values_of(self) == values_of(other)

    def __hash__(self: Any) -> int:
        return hash(values_of(self))

    cls.__init__ = __init__  # type: ignore[misc]
    cls.__eq__ = __eq__  # type: ignore[assignment, method-assign]
    cls.__hash__ = __hash__  # type: ignore[assignment, method-assign]
    return cls
