"""What is wrong with a file of requests, line by line."""

import json
from typing import Any

import pytest

from actorrt.serve.llm.batches.reading import lines, validate
from actorrt.serve.llm.batches.validation import MOST_MISTAKES, Mistake, Validator, errors_of, read_line
from actorrt.serve.llm.problems import Problem

CHAT = "/v1/chat/completions"
TWICE = b'{"custom_id": 7, "custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}}'


def known(name: str | None) -> Problem | None:
    if name in ("m", "other", None):
        return None
    return Problem(404, f"there is no model {name!r}", code="model_not_found")


def request(custom_id: Any = "a", **changes: Any) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m"}, **changes}


def found(*data: bytes | dict[str, Any], most_lines: int = 100, most_bytes: int = 10_000) -> list[Mistake]:
    validator = Validator(CHAT, known, most_lines, most_bytes)
    for number, each in enumerate(data, 1):
        validator.feed(number, each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n")
    return validator.end()


def test_a_right_file_has_no_mistake_and_says_its_model_and_how_many_there_are() -> None:
    validator = Validator(CHAT, known, 100, 10_000)
    for number, data in enumerate([json.dumps(request("a")), " ", json.dumps(request("b")), ""], 1):
        validator.feed(number, data.encode() + b"\n")
    assert validator.end() == []
    assert (validator.total, validator.model) == (2, "m")


@pytest.mark.parametrize(
    ("line", "code", "param", "words"),
    [
        (b"{", "invalid_json_line", None, "the line is not valid JSON"),
        (b"\xff{}", "invalid_json_line", None, "the line is not UTF-8"),
        (b'{"a": "\xff"}', "invalid_json_line", None, "the line is not UTF-8"),
        (b"[1]", "invalid_json_line", None, "the line must be a JSON object, not an array"),
        (b"[" * 100_000, "invalid_request", None, "longer than 10000 bytes"),
        (request(None), "missing_required_parameter", "custom_id", "'custom_id' is missing"),
        (request(body=None), "missing_required_parameter", "body", "'body' is missing"),
        (request(7), "invalid_request", "custom_id", "must be a string, not an integer"),
        (TWICE, "invalid_request", None, "a name stands twice in the line"),
        (request(""), "invalid_request", "custom_id", "1 to 512 characters, not 0"),
        (request("x" * 513), "invalid_request", "custom_id", "1 to 512 characters, not 513"),
        (request(body="x"), "invalid_request", "body", "must be an object, not a string"),
        (request(method="GET"), "invalid_request", "method", "must be 'POST'"),
        (request(url="/v1/embeddings"), "url_mismatch", "url", f"the endpoint of the batch, {CHAT}"),
        (request(body={"model": "m", "stream": True}), "invalid_request", "body.stream", "not for batches"),
        (request(body={"model": "m", "background": True}), "invalid_request", "body.background", "not for batches"),
        (request(body={"model": 7}), "invalid_request", "body.model", "must be a string, not an integer"),
        (request(body={"model": "none"}), "model_not_found", "body.model", "there is no model 'none'"),
    ],
)
def test_each_mistake_says_its_line_its_code_and_its_field(line: Any, code: str, param: str | None, words: str) -> None:
    (mistake,) = found(b"\n", line)
    assert (mistake.line, mistake.code, mistake.param) == (2, code, param)
    assert words in mistake.message


def test_an_id_is_given_once_and_all_requests_are_of_one_model() -> None:
    other = request("b", body={"model": "other"})
    twice, differs = found(request("a"), request("a"), other)
    assert (twice.line, twice.code, twice.param) == (2, "duplicate_custom_id", "custom_id")
    assert (differs.line, differs.code) == (3, "model_mismatch")
    assert "'other' is another than that of the first request, 'm'" in differs.message
    (differs,) = found(request("a", body={}), request("b"))
    assert (differs.line, differs.code) == (2, "model_mismatch")


def test_a_file_without_requests_and_one_with_too_many_fail() -> None:
    assert [each.code for each in found()] == ["empty_file"]
    assert [each.code for each in found(b"\n", b"  \n")] == ["empty_file"]
    (many,) = found(*(request(str(number)) for number in range(4)), most_lines=3)
    assert (many.code, many.line) == ("too_many_tasks", 4)
    assert found(*(request(str(number)) for number in range(3)), most_lines=3) == []


def test_of_many_mistakes_so_many_are_told_and_the_rest_is_not_read() -> None:
    validator = Validator(CHAT, known, 10_000, 10_000)
    number = 0
    while not validator.is_enough:
        number += 1
        validator.feed(number, b"{")
    assert number == MOST_MISTAKES
    said = json.loads(errors_of(validator.end()))
    assert said["object"] == "list"
    assert [each["line"] for each in said["data"]] == list(range(1, MOST_MISTAKES + 1))
    assert set(said["data"][0]) == {"code", "message", "param", "line"}


def test_a_line_keeps_the_bytes_of_its_body() -> None:
    body = b'{ "model":"m", "x": 1.50, "text": "\\u00e9" }'
    line = read_line(3, b'{"custom_id": "a", "method": "POST", "body": %b}' % body)
    assert line == (3, "a", body)


async def test_a_file_is_read_by_lines_whatever_ends_them(tmp_path: Any) -> None:
    path = tmp_path / "file"
    long = b"x" * 50
    path.write_bytes(b"\xef\xbb\xbfone\r\n\n\ntwo\n" + long + b"\nthree")
    assert [each async for each in lines(path, 20)] == [
        (1, b"one\r\n"),
        (4, b"two\n"),
        (5, long[:21]),
        (6, b"three"),
    ]
    path.write_bytes(b"".join(b"%d\n" % number for number in range(1000)))
    assert [number async for number, _ in lines(path, 20)] == list(range(1, 1001))
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(request()).encode() + b"\n" + b"{" * 300 + b"\n{")
    validator = Validator(CHAT, known, 10, 200)
    validate(path, validator, 200)
    assert [(each.line, each.code) for each in validator.end()] == [(2, "invalid_request"), (3, "invalid_json_line")]
