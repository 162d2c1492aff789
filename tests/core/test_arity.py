import pickle
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.arity import ANYTHING, Arity

NAMES = ["a", "b", "c", "d", "e"]
PLAIN = [Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY]


@st.composite
def signatures(draw: st.DrawFn) -> Signature:
    parameters: list[Parameter] = []
    optional = False
    for name, kind in zip(NAMES, sorted(draw(st.lists(st.sampled_from(PLAIN), max_size=5))), strict=False):
        # After a parameter with a default, those by position have one too.
        optional = draw(st.booleans()) or (optional and kind != Parameter.KEYWORD_ONLY)
        parameters.append(Parameter(name, kind, default=1 if optional else Parameter.empty))
    if draw(st.booleans()):
        place = sum(each.kind != Parameter.KEYWORD_ONLY for each in parameters)
        parameters.insert(place, Parameter("args", Parameter.VAR_POSITIONAL))
    if draw(st.booleans()):
        parameters.append(Parameter("kwargs", Parameter.VAR_KEYWORD))
    return Signature(parameters)


def takes(code: Callable[..., None], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    try:
        code(*args, **kwargs)
    except TypeError:
        return False
    return True


@given(
    signature=signatures(),
    args=st.lists(st.none(), max_size=7).map(tuple),
    kwargs=st.dictionaries(st.sampled_from([*NAMES, "z"]), st.none()),
)
def test_arguments_fit_if_and_only_if_a_local_call_takes_them(
    signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    code = eval(f"lambda {str(signature)[1:-1]}: None")
    arity = Arity.of(code)
    assert arity.fits(len(args), kwargs) == takes(code, args, kwargs)
    if arity.least <= len(args) <= arity.most:
        assert takes(code, args, {})
    assert pickle.loads(pickle.dumps(arity)) == arity
    assert Arity.of(eval(f"lambda {str(arity.signature()).replace('=...', '=1')[1:-1]}: None")) == arity


def code(by: int, *, step: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "incr: missing a required argument: 'by'; it takes (by, *, step=...)"),
        ((1, 2), {}, "incr: too many positional arguments; it takes"),
        ((1,), {"by": 2}, "incr: multiple values for argument 'by'; it takes"),
        ((1,), {"stpe": 2}, "incr: got an unexpected keyword argument 'stpe', did you mean 'step'?; it takes"),
    ],
)
def test_the_error_says_what_is_wrong_and_what_is_taken(
    args: tuple[Any, ...], kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(TypeError) as caught:
        Arity.of(code).check("incr", args, kwargs)
    assert str(caught.value).startswith(text)


class Made:
    def __init__(self, x: int) -> None: ...

    def method(self, x: int) -> None: ...


def test_the_first_parameter_of_a_method_does_not_count() -> None:
    arity = Arity.of(Made.method, bound=True)
    assert (arity.least, arity.most) == (1, 1)
    assert Arity.of(Made) == arity


def test_anything_fits_what_cannot_be_inspected() -> None:
    assert Arity.of(print) != ANYTHING
    assert Arity.of(dict) == ANYTHING
    ANYTHING.check("dict", (1, 2), {"x": 1})
