"""Whether a file of requests can be run: each line is looked at, and each mistake is told with its line. No I/O.

The codes are those that OpenAI's and Azure's services use. Whether a request itself is right is seen when it runs: what
is wrong with it is its answer.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec

from ..json_kinds import kind_of
from ..problems import Problem, shortened
from ..reading import parse

# Of a file with more mistakes, these are told.
MOST_MISTAKES: Final = 100
LONGEST_ID: Final = 512
_NEEDED: Final = ("custom_id", "method", "url", "body")


class Mistake(NamedTuple):
    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Line(NamedTuple):
    """A request of a batch."""

    number: int
    """Of its line in the file, from 1."""
    custom_id: str
    body: bytes


class _Raw(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw


_decoder: Final = msgspec.json.Decoder(_Raw)


def read_line(number: int, data: bytes) -> Line:
    """A line that was found right."""
    raw = _decoder.decode(data)
    return Line(number, raw.custom_id, bytes(raw.body))


def _unread(number: int, data: bytes) -> list[Mistake]:
    """Names that stand twice, with values of which readers take one or the other."""
    try:
        read_line(number, data)
    except msgspec.ValidationError:
        return [Mistake("invalid_request", "a name stands twice in the line, with values of two kinds", number)]
    return []


class Validator:
    """Given all lines of a file, in their order."""

    def __init__(
        self, endpoint: str, known: Callable[[str | None], Problem | None], most_lines: int, most_bytes: int
    ) -> None:
        """`known`: what is wrong with a model's name, None being one that is not given. `most_bytes`: of a line."""
        self._endpoint, self._known = endpoint, known
        self._most_lines, self._most_bytes = most_lines, most_bytes
        self._ids: set[str] = set()
        self._has_model = False
        self.model: str | None = None
        self.total = 0
        self.mistakes: list[Mistake] = []

    @property
    def is_enough(self) -> bool:
        """Whether no further line could change what is said of the file."""
        return len(self.mistakes) >= MOST_MISTAKES

    def feed(self, number: int, data: bytes) -> None:
        """A line, which may have its end; those that are blank are passed over. One that is longer than may be need not
        be whole."""
        if not data.strip():
            return
        self.total += 1
        if self.total > self._most_lines:
            message = f"the file has more than {self._most_lines} requests"
            self.mistakes = [Mistake("too_many_tasks", message, number)] * MOST_MISTAKES
            return
        mistakes = list(self._mistakes_of(number, data))
        self.mistakes += mistakes or _unread(number, data)

    def end(self) -> list[Mistake]:
        """What is wrong with the file; nothing: it can be run."""
        if not self.total and not self.mistakes:
            return [Mistake("empty_file", "the file has no request")]
        return list(dict.fromkeys(self.mistakes))[:MOST_MISTAKES]

    def _mistakes_of(self, number: int, data: bytes) -> Iterator[Mistake]:
        if len(data) > self._most_bytes:
            yield Mistake("invalid_request", f"the line is longer than {self._most_bytes} bytes", number)
            return
        try:
            if not data.isascii():
                data.decode()
            fields = parse(data)
        except UnicodeDecodeError:
            yield Mistake("invalid_json_line", "the line is not UTF-8", number)
            return
        except Problem as problem:
            said = problem.message.replace("the body", "the line", 1)
            yield Mistake("invalid_json_line", said, number)
            return
        missing = [name for name in _NEEDED if fields.get(name) is None]
        for name in missing:
            yield Mistake("missing_required_parameter", f"'{name}' is missing", number, name)
        if missing:
            return
        yield from self._wrong_types(number, fields)
        custom_id, body = fields["custom_id"], fields["body"]
        if fields["method"] != "POST":
            yield Mistake("invalid_request", "'method' must be 'POST'", number, "method")
        if fields["url"] != self._endpoint:
            said = f"'url' must be the endpoint of the batch, {self._endpoint}"
            yield Mistake("url_mismatch", said, number, "url")
        if isinstance(custom_id, str):
            if custom_id in self._ids:
                said = f"the custom_id {custom_id[:128]!r} is that of another request before"
                yield Mistake("duplicate_custom_id", said, number, "custom_id")
            self._ids.add(custom_id)
        if isinstance(body, dict):
            yield from self._wrong_body(number, cast("dict[str, Any]", body))

    def _wrong_types(self, number: int, fields: Mapping[str, Any]) -> Iterator[Mistake]:
        custom_id, body = fields["custom_id"], fields["body"]
        if not isinstance(custom_id, str):
            said = f"'custom_id' must be a string, not {kind_of(custom_id)}"
            yield Mistake("invalid_request", said, number, "custom_id")
        elif not 0 < len(custom_id) <= LONGEST_ID:
            said = f"'custom_id' must have 1 to {LONGEST_ID} characters, not {len(custom_id)}"
            yield Mistake("invalid_request", said, number, "custom_id")
        if not isinstance(body, dict):
            yield Mistake("invalid_request", f"'body' must be an object, not {kind_of(body)}", number, "body")

    def _wrong_body(self, number: int, body: Mapping[str, Any]) -> Iterator[Mistake]:
        for name in ("stream", "background"):
            if body.get(name):
                yield Mistake("invalid_request", f"'{name}' is not for batches", number, f"body.{name}")
        model = body.get("model") or None
        if model is not None and not isinstance(model, str):
            yield Mistake("invalid_request", f"'model' must be a string, not {kind_of(model)}", number, "body.model")
            return
        if not self._has_model:
            self._has_model, self.model = True, model
        if model != self.model:
            said = f"the model {_shown(model)} is another than that of the first request, {_shown(self.model)}"
            yield Mistake("model_mismatch", said, number, "body.model")
        elif (problem := self._known(model)) is not None:
            yield Mistake(problem.code or "model_not_found", problem.message, number, "body.model")


def _shown(model: str | None) -> str:
    return "(none)" if model is None else repr(model[:128])


def errors_of(mistakes: list[Mistake]) -> bytes:
    """As a batch shows them."""
    data = [
        {"code": each.code, "message": shortened(each.message), "param": each.param, "line": each.line}
        for each in mistakes
    ]
    return msgspec.json.encode({"object": "list", "data": data})
