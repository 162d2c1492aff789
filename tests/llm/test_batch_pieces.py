"""The small decisions of batches: what their lines say, when a refused one is made again, how a form is read."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.batches.form import Form
from actorrt.serve.llm.batches.outputs import EXPIRED, Answer, Tokens, answered, left_out, tokens_of
from actorrt.serve.llm.batches.retrying import LONGEST_WAIT_S, wait_s
from actorrt.serve.llm.config import BatchConfig, ConfigError, LLMConfig, SimulatedEngine, lowest_band
from actorrt.serve.llm.costs import ModelCost
from actorrt.serve.llm.demand import PromptSizes, queue_cost_of
from actorrt.serve.llm.engines.interface import EngineCall
from actorrt.serve.llm.problems import Problem
from actorrt.serve.llm.wishes import Wishes


def test_the_line_of_an_answer_holds_its_body_as_it_was() -> None:
    line = answered("batch_req_1", "a", Answer(200, "r", b'{"x": 1.50, "y": "\xc3\xa9"}'))
    assert line.endswith(b"}\n")
    assert b'"body":{"x": 1.50, "y": "\xc3\xa9"}' in line
    assert json.loads(line) == {
        "id": "batch_req_1",
        "custom_id": "a",
        "response": {"status_code": 200, "request_id": "r", "body": {"x": 1.5, "y": "é"}},
        "error": None,
    }


@pytest.mark.parametrize("body", [b'{\n "a": "b\\nc"\n}', b"no json\nat all", b"\xff\xfe", b"", b"[" * 100_000])
def test_a_line_is_one_whatever_was_answered(body: bytes) -> None:
    line = answered("id", "a", Answer(502, "r", body))
    assert line.count(b"\n") == 1
    assert line.count(b"\r") == 0
    json.loads(line)


@given(st.text(), st.text())
def test_a_line_is_one_for_those_who_split_it_as_text(custom_id: str, text: str) -> None:
    body = json.dumps({"said": text}, ensure_ascii=False).encode("utf-8", "surrogatepass")
    custom_id = custom_id.encode("utf-8", "replace").decode()
    line = answered("id", custom_id, Answer(200, "r", body))
    (only,) = line.decode().splitlines()
    assert json.loads(only)["custom_id"] == custom_id


def test_what_was_not_answered_says_why() -> None:
    assert json.loads(left_out("id", "a", EXPIRED)) == {
        "id": "id",
        "custom_id": "a",
        "response": None,
        "error": {"code": "batch_expired", "message": EXPIRED[1]},
    }


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7}, Tokens(5, 0, 7, 0)),
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 7,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(5, 2, 7, 3),
        ),
        (
            {
                "input_tokens": 5,
                "output_tokens": 7,
                "input_tokens_details": {"cached_tokens": 2},
                "output_tokens_details": {"reasoning_tokens": 3},
            },
            Tokens(5, 2, 7, 3),
        ),
        ({"prompt_tokens": 5, "total_tokens": 5}, Tokens(5)),
        ({"prompt_tokens": "5", "completion_tokens": -1}, Tokens()),
        ("many", Tokens()),
        (None, Tokens()),
    ],
)
def test_the_tokens_of_an_answer_are_read_in_either_shape(usage: Any, tokens: Tokens) -> None:
    assert tokens_of(json.dumps({"usage": usage}).encode()) == tokens


def test_an_answer_that_is_no_json_took_nothing_that_is_known() -> None:
    for body in (b"", b"no", b"\xff", b"[1]"):
        assert tokens_of(body) == Tokens()


@pytest.mark.parametrize("status", [200, 400, 404, 413, 500, 501, 502, 507])
def test_only_what_had_no_room_is_made_again(status: int) -> None:
    assert wait_s(status, 5, 1, 0) is None


def test_it_is_made_again_when_the_refusal_says_and_else_ever_later() -> None:
    for status in (429, 503):
        assert wait_s(status, 7, 1, 0) == 7
        assert wait_s(status, 7, 1, 0.999) == pytest.approx(7 * 1.25, rel=0.01)
        assert wait_s(status, 0, 1, 0) == 0.5
        assert wait_s(status, 10_000, 1, 0) == LONGEST_WAIT_S
        waits = [wait_s(status, None, tries, 0) for tries in range(1, 50)]
        assert waits[:3] == [0.5, 1, 2]
        assert waits[-1] == LONGEST_WAIT_S
        assert waits == sorted(w for w in waits if w is not None)


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\nline\r\n--bad\r\n\r\n--b--\r\n"
)


@given(st.lists(st.integers(0, len(FORM)), max_size=10))
def test_a_form_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    form = Form(b"multipart/form-data; boundary=b")
    ends = [*sorted(cuts), len(FORM)]
    came: list[bytes] = []
    for start, end in zip([0, *ends], ends, strict=False):
        form.feed(FORM[start:end])
        came += form.take()
    form.end()
    assert (form.fields, form.filename, form.size) == ({"purpose": "batch"}, "a.jsonl", 13)
    assert b"".join(came) == b"line\r\n--bad\r\n"


def test_a_form_has_so_many_fields() -> None:
    form = Form(b"multipart/form-data; boundary=b")
    field = b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\nx\r\n'
    with pytest.raises(Problem, match="more than 32 fields"):
        form.feed(b"".join(field % number for number in range(40)))


def test_embeddings_wait_in_a_band_too() -> None:
    call = EngineCall("/v1/embeddings", b'{"input": "x"}')
    for band in ("", "batch"):
        assert queue_cost_of(call, PromptSizes(), ModelCost(wishes=Wishes(band=band))).band == band


def test_the_band_of_batches_is_the_last_one_where_none_has_that_name() -> None:
    def band(*names: str) -> str:
        router = {"request_router_class": "capacity_queue"}
        kwargs: Any = {"bands": [{"name": name} for name in names]} if names else {}
        deployment = {"request_router_config": {**router, "request_router_kwargs": kwargs}}
        return lowest_band(LLMConfig(model_id="m", engine=SimulatedEngine(), deployment=deployment))

    assert band() == "batch"
    assert band("default", "nightly") == "nightly"
    assert band("batch", "default") == "batch"
    assert lowest_band(LLMConfig(model_id="m", engine=SimulatedEngine())) == ""


@pytest.mark.parametrize("wrong", [{}, {"folder": ""}, {"folder": "x", "lease_s": 0}, {"folder": "x", "max_open": 0}])
def test_a_wrong_setting_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="BatchConfig"):
        BatchConfig(**wrong)
