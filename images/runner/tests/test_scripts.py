"""How the runner learns what a script's function takes."""

import functools
import types

import pytest

from ade_runner.errors import JobError
from ade_runner.scripts import _is_plain, _line, _parameters, accepted


def nothing(): ...
def usual(*, header, values_sample, **_): ...
def mixed(a, /, b, c=1, *rest, d, e=2, **more): ...
def by_place(header, values_sample, /): ...
def optional_by_place(header, other=None, /, values_sample=()): ...
def collecting(*args, **kwargs): ...


@pytest.mark.parametrize("function", [nothing, usual, mixed, by_place, optional_by_place, collecting], ids=lambda one: one.__name__)
def test_the_code_of_a_plain_function_says_the_same_as_inspect(function):
    marked = types.FunctionType(function.__code__, globals(), function.__name__, function.__defaults__)
    marked.__kwdefaults__, marked.mark = function.__kwdefaults__, True
    assert _is_plain(function) and not _is_plain(marked)
    unnamed = [(name if by != "all names" else "", by, required) for name, by, required in _parameters(marked)]
    assert list(_parameters(function)) == unnamed
    assert _line(function) == _line(marked) == function.__code__.co_firstlineno


def test_what_stands_for_another_signature_is_asked_for_it():
    @functools.wraps(usual)
    def wrapper(*args, **kwargs): ...

    assert accepted(wrapper, "column_detector", "s.py", "wrapper") == accepted(usual, "column_detector", "s.py", "usual")
    assert _line(wrapper) == usual.__code__.co_firstlineno
    partial = functools.partial(usual, header="x")
    assert "values_sample" in accepted(partial, "column_detector", "s.py", "partial")[0]


def test_functions_that_only_an_event_loop_could_call_are_refused():
    async def coroutine(**_): ...

    async def generator(**_):
        yield 1

    for function in (coroutine, generator, functools.partial(coroutine)):
        with pytest.raises(JobError, match="is async") as refused:
            accepted(function, "column_detector", "s.py", "f")
        assert refused.value.kind == "package_invalid"


def test_a_parameter_that_nothing_provides_is_named():
    with pytest.raises(JobError, match="requires the parameter 'a'"):
        accepted(mixed, "column_detector", "s.py", "mixed")
