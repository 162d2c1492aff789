"""What is written about a request of a batch: a line of its output or of its errors, and the tokens it took. No I/O."""

from typing import Any, Final, NamedTuple

import msgspec

EXPIRED: Final = ("batch_expired", "This request could not be executed before the completion window expired.")
CANCELLED: Final = ("batch_cancelled", "The batch was cancelled before this request was executed.")


class Answer(NamedTuple):
    """What a request was answered, as by HTTP."""

    status: int
    request_id: str
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Tokens(NamedTuple):
    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class _Details(msgspec.Struct):
    cached_tokens: Any = 0
    reasoning_tokens: Any = 0


class _Usage(msgspec.Struct):
    prompt_tokens: Any = 0
    completion_tokens: Any = 0
    input_tokens: Any = 0
    output_tokens: Any = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    input_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None


class _Body(msgspec.Struct):
    usage: _Usage | None = None


# What Python's `splitlines` takes for the end of a line, and JSON for a letter.
_SEPARATORS: Final = {each.encode(): b"\\u%04x" % ord(each) for each in "\x85\u2028\u2029"}
_decoder: Final = msgspec.json.Decoder(_Body)
_NO_DETAILS: Final = _Details()


def tokens_of(body: bytes) -> Tokens:
    """What an answer says that it took, in whichever of OpenAI's shapes."""
    try:
        usage = _decoder.decode(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Tokens()
    if usage is None:
        return Tokens()
    read = usage.prompt_tokens_details or usage.input_tokens_details or _NO_DETAILS
    said = usage.completion_tokens_details or usage.output_tokens_details or _NO_DETAILS
    return Tokens(
        _count(usage.prompt_tokens) or _count(usage.input_tokens),
        _count(read.cached_tokens),
        _count(usage.completion_tokens) or _count(usage.output_tokens),
        _count(said.reasoning_tokens),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else 0


def answered(id: str, custom_id: str, answer: Answer) -> bytes:
    """The line of a request that was answered, well or not."""
    response = {"status_code": answer.status, "request_id": answer.request_id, "body": _in_a_line(answer.body)}
    return _line(id, custom_id, response, None)


def left_out(id: str, custom_id: str, why: tuple[str, str]) -> bytes:
    """The line of a request that was not answered."""
    code, message = why
    return _line(id, custom_id, None, {"code": code, "message": message})


def _line(id: str, custom_id: str, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    line = msgspec.json.encode({"id": id, "custom_id": custom_id, "response": response, "error": error})
    for separator, escaped in _SEPARATORS.items():
        line = line.replace(separator, escaped)
    return line + b"\n"


def _in_a_line(body: bytes) -> Any:
    try:
        if b"\n" in body or b"\r" in body:
            body = msgspec.json.format(body, indent=-1)
        else:
            msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
    return msgspec.Raw(body)
