"""OpenAI's own description of its API (openai.json, made by cut_description.py), made ready to be asked by.

What it says of answers is held to, but for `EXCEPTIONS`. What it says of requests is narrowed: to the models that are
there and to short answers, else none would be anything but refused or would take minutes.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

Schema = dict[str, Any]
Change = Callable[[Any], Any]

FILE: Final = Path(__file__).with_name("openai.json")
# Names of a response that is there, and of one that is not.
KEPT, GONE = "resp_kept", "resp_gone"
SCHEMAS: Final = "#/components/schemas/"


def or_null(schema: Any) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def or_(other: Schema) -> Change:
    return lambda schema: {"anyOf": [schema, other]}


def without(*names: str) -> Change:
    return lambda required: [each for each in required if each not in names]


# Where a schema says what OpenAI's own servers do not do, or llama.cpp does not, whose answers are handed on as they
# are: the place, what is said there instead, and why.
EXCEPTIONS: Final[tuple[tuple[str, Change, str], ...]] = (
    (
        "Embedding.properties.embedding",
        or_({"type": "string"}),
        "OpenAI's servers answer encoding_format=base64 with a string",
    ),
    *(
        (f"{schema}.{field}", or_null, "OpenAI's servers say null where it was not given")
        for schema, field in (
            ("ModelResponseProperties.properties", "user"),
            ("ModelResponseProperties.properties", "safety_identifier"),
            ("ModelResponseProperties.properties", "prompt_cache_key"),
            ("Response.allOf.2.properties", "usage"),
        )
    ),
    *(
        (f"{schema}.required", without(field), "llama.cpp leaves out what is not there")
        for schema, field in (
            ("CreateChatCompletionResponse.properties.choices.items", "logprobs"),
            ("ChatCompletionResponseMessage", "refusal"),
        )
    ),
)


def official(chat: str, words: str) -> Schema:
    """`chat` and `words` are the models for text and for embeddings."""
    description = _as_meant(json.loads(FILE.read_text(encoding="utf-8")))
    schemas: Schema = description["components"]["schemas"]
    for place, change, _ in EXCEPTIONS:
        *parts, last = place.split(".")
        holder = schemas
        for part in parts:
            holder = holder[int(part) if part.isdigit() else part]
        holder[last] = change(holder[last])
    for path in description["paths"].values():
        for operation in path.values():
            _add_errors(operation["responses"])
    _add_streams_of_completions(description)
    _narrow(description, chat, words)
    return description


def _as_meant(value: Any) -> Any:
    """`nullable` is of OpenAPI 3.0 and says nothing in 3.1. Of `oneOf` several hold where there is a discriminator."""
    if isinstance(value, list):
        return [_as_meant(each) for each in value]
    if not isinstance(value, dict):
        return value
    schema = {name: _as_meant(each) for name, each in value.items()}
    if isinstance(schema.get("oneOf"), list):
        schema["anyOf"] = schema.pop("oneOf")
    if isinstance(schema.get("anyOf"), list):
        schema.pop("discriminator", None)
    if schema.get("nullable") is True:
        del schema["nullable"]
        return or_null(schema)
    return schema


def _add_errors(responses: Schema) -> None:
    """The description has a schema for errors and no operation that says so (or `Error` itself, where it says 404)."""
    responses.pop("404", None)
    error = {"schema": {"$ref": f"{SCHEMAS}ErrorResponse"}}
    responses["4XX"] = {"description": "a mistake", "content": {"application/json": error}}


def _add_streams_of_completions(description: Schema) -> None:
    """`stream` is described for completions, and that it streams is not."""
    schemas = description["components"]["schemas"]
    streamed = json.loads(json.dumps(schemas["CreateCompletionResponse"]))
    fields = streamed["properties"]["choices"]["items"]["properties"]
    fields["finish_reason"] = or_null(fields["finish_reason"])
    streamed["properties"]["usage"] = or_null(streamed["properties"]["usage"])
    schemas["CreateCompletionStreamResponse"] = streamed
    content = description["paths"]["/completions"]["post"]["responses"]["200"]["content"]
    content["text/event-stream"] = {"schema": {"$ref": f"{SCHEMAS}CreateCompletionStreamResponse"}}


def _narrow(description: Schema, chat: str, words: str) -> None:
    schemas = description["components"]["schemas"]
    schemas["ModelIdsShared"] = schemas["ModelIdsResponses"] = {"enum": [chat]}
    for name, model in (("CreateCompletionRequest", chat), ("CreateEmbeddingRequest", words)):
        schemas[name]["properties"]["model"] = {"enum": [model]}
    schemas["TokenCountsBody"]["properties"]["model"] = {"enum": [chat]}
    completion, (_, conversation) = schemas["CreateCompletionRequest"], schemas["CreateChatCompletionRequest"]["allOf"]
    for request, limit in (
        (completion, "max_tokens"),
        (conversation, "max_completion_tokens"),
        (schemas["CreateResponse"]["allOf"][2], "max_output_tokens"),
    ):
        request["properties"][limit] = {"type": "integer", "minimum": 16, "maximum": 20}
        request["required"] = [*request.get("required", ()), limit]
    for request in (completion, conversation):
        request["properties"]["n"] = or_null({"type": "integer", "minimum": 1, "maximum": 2})
    schemas["CreateResponse"]["allOf"][2]["required"] += ["model", "input"]
    for path, operations in description["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "response_id":
                    parameter["schema"] = {"enum": [KEPT, GONE]}
                if parameter["name"] == "model" and path == "/models/{model}":
                    parameter["schema"] = {"enum": [chat, words, "nobody"]}
