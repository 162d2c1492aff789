"""Read the JSON of a request field by field; what is wrong is refused by a sentence that names the field."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ..problems import shortened


class Refused(ValueError):
    """The request is wrong. Becomes an answer with this status, in the shape of the API."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        kind: str = "invalid_request_error",
        status: int = 400,
        code: str | None = None,
        numbers: Mapping[str, int] | None = None,
    ) -> None:
        """`numbers` stand beside the sentence, for clients that read them."""
        message = shortened(message)
        super().__init__(message, param)
        self.message, self.param, self.kind, self.status = message, param, kind, status
        self.code, self.numbers = code, dict(numbers or {})

    @classmethod
    def too_long(cls, prompt: int, context: int) -> "Refused":
        """In the words of llama.cpp's server."""
        message = f"request ({prompt} tokens) exceeds the available context size ({context} tokens), try increasing it"
        numbers = {"n_prompt_tokens": prompt, "n_ctx": context}
        return cls(message, kind="exceed_context_size_error", code="context_length_exceeded", numbers=numbers)

    def body(self) -> bytes:
        error: dict[str, object] = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }
        return json.dumps({"error": error | self.numbers}).encode()


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a body. `null` is as if the field were not there."""

    all: dict[str, Any]

    @classmethod
    def of(cls, body: bytes) -> "Fields":
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused(f"the body is no JSON: {error}") from None
        if not isinstance(value, dict):
            raise Refused("the body must be a JSON object")
        return cls(cast(dict[str, Any], value))

    def of_type(self, name: str, kind: Any, what: str, default: Any) -> Any:
        value = self.all.get(name)
        if value is None:
            return default
        # A bool is an int to Python, and not to those who send JSON.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise Refused(f"'{name}' must be {what}, but is {_shown(value)}", name)
        return value

    def count(self, name: str, *, least: int = 1, most: int | None = None) -> int | None:
        value = self.of_type(name, int, "an integer", None)
        if value is not None and (value < least or (most is not None and value > most)):
            allowed = f"{least} to {most}" if most else f"at least {least}"
            raise Refused(f"'{name}' must be {allowed}, but is {_shown(value)}", name)
        return value


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def are_tokens(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(type(item) is int for item in cast(list[object], value))


def text_field(body: bytes, name: str) -> str:
    """For /tokenize."""
    return Fields.of(body).of_type(name, str, "a string", "")


def tokens_field(body: bytes, name: str) -> list[int]:
    """For /detokenize."""
    tokens = Fields.of(body).of_type(name, list, "a list of token numbers", [])
    if not are_tokens(tokens):
        raise Refused(f"'{name}' must be a list of token numbers", name)
    return tokens
