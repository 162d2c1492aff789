"""Read what a client sent field by field, each mistake a sentence that names the field's path.

A path is written as each API writes it: `messages.0.content` (Anthropic) or `input[0].content` (OpenAI).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from .json_kinds import is_number, kind_of

Path = tuple[str | int, ...]


class FieldError(Exception):
    """A field of a request is wrong. `problem` completes the sentence that begins with the field's name."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    @property
    def dotted(self) -> str:
        return ".".join(str(part) for part in self.path)

    @property
    def bracketed(self) -> str:
        written = ""
        for part in self.path:
            written += f"[{part}]" if isinstance(part, int) else f".{part}" if written else part
        return written

    def __str__(self) -> str:
        return f"{self.dotted}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Node:
    """A value of the request and where it stands. Each method raises FieldError where it is another than asked."""

    value: Any
    path: Path = ()

    def error(self, problem: str) -> FieldError:
        return FieldError(self.path, problem)

    def get(self, name: str) -> "Node | None":
        """A field of this object; None if it is absent or null, which mean the same."""
        value = self.mapping().get(name)
        return None if value is None else Node(value, (*self.path, name))

    def need(self, name: str) -> "Node":
        node = self.get(name)
        if node is None:
            raise FieldError((*self.path, name), "the field is required")
        return node

    def mapping(self) -> Mapping[str, Any]:
        value: object = self.value
        if not isinstance(value, dict):
            raise self.error(f"must be an object, not {kind_of(value)}")
        return cast("Mapping[str, Any]", value)

    def items(self) -> "Iterator[Node]":
        value: object = self.value
        if not isinstance(value, list):
            raise self.error(f"must be an array, not {kind_of(value)}")
        for index, item in enumerate(cast("list[Any]", value)):
            yield Node(item, (*self.path, index))

    @property
    def is_text(self) -> bool:
        return isinstance(self.value, str)

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.error(f"must be a string, not {kind_of(self.value)}")
        return self.value

    def name(self, longest: int = 256) -> str:
        """A text that is neither empty nor long."""
        text = self.text()
        if not 0 < len(text) <= longest:
            raise self.error(f"must have 1 to {longest} characters, not {len(text)}")
        return text

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.error(f"must be true or false, not {kind_of(self.value)}")
        return self.value

    def whole(self, least: int, most: int = 2**53) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.error(f"must be an integer, not {kind_of(self.value)}")
        if not least <= self.value <= most:
            raise self.error(f"must be at least {least}" if self.value < least else f"must be at most {most}")
        return self.value

    def number(self, least: float, most: float) -> float:
        if not is_number(self.value):
            raise self.error(f"must be a number, not {kind_of(self.value)}")
        if not least <= self.value <= most:
            raise self.error(f"must be between {least:g} and {most:g}, not {self.value:g}")
        return self.value

    def choice(self, *options: str) -> str:
        if self.value not in options:
            given = repr(self.value[:64]) if isinstance(self.value, str) else kind_of(self.value)
            raise self.error(f"must be {_either(options)}, not {given}")
        return cast("str", self.value)


def _either(options: tuple[str, ...]) -> str:
    quoted = [repr(option) for option in options]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
