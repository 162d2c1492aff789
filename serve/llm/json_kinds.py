"""What a JSON value is, and what it is called in a sentence that says that it is another than was asked for."""

from typing import Final

_LARGEST: Final = 2**63


def is_whole(value: object) -> bool:
    """Whether it is an integer that an engine can hold."""
    return type(value) is int and -_LARGEST <= value < _LARGEST


def is_number(value: object) -> bool:
    """Whether it is a number that an engine can hold."""
    return type(value) is float or is_whole(value)


def kind_of(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer" if is_whole(value) else "an integer of more than 64 bits"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
