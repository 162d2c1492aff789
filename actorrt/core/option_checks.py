"""Check one option's value: each check takes the option's name and the value, and gives it in the form we keep.

TypeError for a value of the wrong type, ValueError for one that is out of range; both name the option.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, cast

from actorrt.core.nearest import did_you_mean
from actorrt.types import RetryPolicy

Check = Callable[[str, Any], Any]
Pairs = tuple[tuple[str, float], ...]
NumReturns = int | Literal["streaming"]

PRECISION: Final = 10_000
"""Resources are counted in whole units of 1/10000, so that adding and taking away never drifts."""

MOST: Final = 10**14
"""No amount is larger, so that its units are numbers of 64 bits."""

LARGEST: Final = 2**63 - 1
"""No whole number is larger, so that a message can hold it."""

MOST_RETURNS: Final = 1_000_000

_OF_THEIR_OWN: Final = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {wanted}, not {value!r} of type {type(value).__name__}")


def wrong_value(name: str, wanted: str, value: object) -> ValueError:
    return ValueError(f"{name} must be {wanted}, not {value!r}")


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(name, "True or False", value)
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    if not value:
        raise wrong_value(name, "a string that is not empty", value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong_value(name, "text that UTF-8 can hold", value) from None
    # Of a subclass only the text travels.
    return str.__str__(value)


def module_names(name: str, value: Any) -> tuple[str, ...]:
    """Names of modules, as `import` takes them."""
    wanted = "a list of names of modules"
    if not isinstance(value, list | tuple):
        raise wrong_type(name, wanted, value)
    names = cast("Sequence[Any]", value)
    for one in names:
        if not isinstance(one, str):
            raise wrong_type(name, wanted, names)
        if not all(part.isidentifier() for part in one.split(".")):
            raise wrong_value(name, wanted, names)
    return tuple(map(str.__str__, names))


def seconds(name: str, value: Any) -> float | None:
    """A time to wait, which is a number of seconds; None and an infinity are without limit."""
    wanted = "None or a number of seconds"
    if value is None:
        return None
    if isinstance(value, bool | str | bytes):
        raise wrong_type(name, wanted, value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        raise wrong_type(name, wanted, value) from None
    if not number >= 0:
        raise wrong_value(name, "None or at least 0", value)
    return None if number == math.inf else number


def whole(least: int, also: int | None = None) -> Check:
    """A whole number of at least `least`, or exactly `also` (-1 for "no limit")."""
    wanted = f"a whole number >= {least}" + ("" if also is None else f", or {also}")

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, wanted, value)
        if value < least and value != also:
            raise wrong_value(name, wanted, value)
        if value > LARGEST:
            raise wrong_value(name, f"at most {LARGEST}", value)
        return int(value)

    return check


def one_of(*allowed: str) -> Check:
    wanted = " or ".join(repr(each) for each in allowed)

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise wrong_type(name, wanted, value)
        if value not in allowed:
            raise ValueError(f"{name} must be {wanted}, not {value!r}{did_you_mean(value, allowed)}")
        return value

    return check


def amount(name: str, value: Any) -> float:
    wanted = f"a number from 0 to {MOST:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, wanted, value)
    if not 0 <= value <= MOST:
        raise wrong_value(name, wanted, value)
    units = value * PRECISION
    if abs(units - round(units)) > 1e-6 * max(1.0, units) or (value and not round(units)):
        raise wrong_value(name, f"a multiple of {1 / PRECISION:g}", value)
    return float(value)


def size(name: str, value: Any) -> int:
    """Bytes."""
    checked: int = whole(0)(name, value)
    if checked > MOST:
        raise wrong_value(name, f"at most {MOST:g} bytes", value)
    return checked


def gpus(name: str, value: Any) -> float:
    number = amount(name, value)
    if number > 1 and number != int(number):
        raise wrong_value(name, "a fraction of one or a whole number", value)
    return number


def resources(name: str, value: Any) -> Pairs:
    found: list[tuple[str, float]] = []
    for key, each in _mapping(name, "a dict of names and amounts", value).items():
        if key in _OF_THEIR_OWN:
            raise ValueError(f"{name} must not have {key!r}: that is the option {_OF_THEIR_OWN[key]}")
        found.append((key, amount(f"{name}[{key!r}]", each)))
    return tuple(sorted(found))


def bundle(name: str, value: Any) -> Pairs:
    """What a bundle of a placement group sets aside."""
    given = _mapping(name, "a dict such as {'CPU': 1}", value)
    return tuple((key, (gpus if key == "GPU" else amount)(f"{name}[{key!r}]", each)) for key, each in given.items())


def groups(name: str, value: Any) -> tuple[tuple[str, int], ...]:
    check = whole(1)
    given = _mapping(name, "a dict of group names and limits", value)
    return tuple((key, check(f"{name}[{key!r}]", each)) for key, each in given.items())


def environment(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    """A runtime_env, of which this version takes `env_vars` alone."""
    found: dict[str, str] = {}
    for key, each in _mapping(name, "a dict", value).items():
        if key != "env_vars":
            raise ValueError(f"{name} cannot have {key!r} yet, only 'env_vars'{did_you_mean(key, ['env_vars'])}")
        for variable, content in _mapping(f"{name}['env_vars']", "a dict of strings", each).items():
            if not isinstance(content, str):
                raise wrong_type(f"{name}['env_vars'][{variable!r}]", "a string", content)
            if not variable or "=" in variable or "\0" in variable + content:
                wanted = "names without '=' and text without NUL"
                raise wrong_value(f"{name}['env_vars']", wanted, {variable: content})
            try:
                content.encode()
            except UnicodeEncodeError:
                wanted = "text that UTF-8 can hold"
                raise wrong_value(f"{name}['env_vars'][{variable!r}]", wanted, content) from None
            found[variable] = str.__str__(content)
    return tuple(sorted(found.items()))


def exception_classes(name: str, value: Any) -> bool | tuple[type[BaseException], ...]:
    wanted = "True, False or a list of exception classes"
    if isinstance(value, bool):
        return value
    if not isinstance(value, list | tuple):
        raise wrong_type(name, wanted, value)
    classes = cast("Sequence[type[BaseException]]", value)
    for each in cast("Sequence[Any]", value):
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            raise wrong_type(f"an entry of {name}", "an exception class", cast("object", each))
    return tuple(classes)


def limit(name: str, value: Any) -> float | None:
    """A time that a call has: a number of seconds; an infinity is without limit."""
    number = seconds(name, value)
    if number == 0:
        raise wrong_value(name, "more than 0", value)
    return number


def retry_policy(name: str, value: Any) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise wrong_type(name, "a RetryPolicy", value)
    ranges = (
        ("pause_s", 0.0, math.inf),
        ("growth", 1.0, math.inf),
        ("longest_pause_s", 0.0, math.inf),
        ("jitter", 0.0, 1.0),
    )
    numbers: dict[str, float] = {}
    for field, least, most in ranges:
        number = getattr(value, field)
        what = f"{field} of {name}"
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise wrong_type(what, "a number", number)
        if not (least <= number <= most and number < math.inf):
            wanted = f"a number of at least {least:g}" if most == math.inf else f"a number from {least:g} to {most:g}"
            raise wrong_value(what, wanted, number)
        numbers[field] = float(number)
    never_for = exception_classes(f"never_for of {name}", value.never_for)
    if isinstance(never_for, bool):
        raise wrong_type(f"never_for of {name}", "a list of exception classes", never_for)
    return RetryPolicy(**numbers, never_for=never_for)


def num_returns(name: str, value: Any) -> NumReturns:
    wanted = "a whole number >= 0 or 'streaming'"
    if value == "dynamic":
        raise ValueError(f"{name} 'dynamic' is not offered: 'streaming' gives the values as they come")
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise wrong_type(name, wanted, value)
    if value == "streaming":
        return "streaming"
    if isinstance(value, str) or value < 0:
        raise wrong_value(name, wanted, value)
    if value > MOST_RETURNS:
        raise wrong_value(name, f"at most {MOST_RETURNS:,}; 'streaming' gives as many values as come", value)
    return int(value)


def not_yet(reason: str) -> Check:
    """An option that Ray has and this version has not. None, Ray's default, is taken like everywhere."""

    def check(name: str, value: Any) -> Any:
        raise ValueError(f"{name} is not offered in this version: {reason}")

    return check


def off_only(reason: str) -> Check:
    """An option that can only be switched off in this version."""

    def check(name: str, value: Any) -> bool:
        if boolean(name, value):
            raise ValueError(f"{name} is not offered in this version: {reason}")
        return False

    return check


def _mapping(name: str, wanted: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise wrong_type(name, wanted, value)
    for key in cast("Mapping[object, object]", value):
        text(f"a key of {name}", key)
    return cast("Mapping[str, Any]", value)
