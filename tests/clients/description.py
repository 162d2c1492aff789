"""What requests and answers of our routes look like, as an OpenAPI description: what is common to all engines."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "maxLength": 200}
COUNT: Schema = {"type": "integer", "minimum": 0}
ID: Schema = {"type": "string", "minLength": 1}


def record(needed: Schema, more: Schema | None = None) -> Schema:
    return {"type": "object", "required": list(needed), "properties": {**needed, **(more or {})}}


def many(item: Schema, least: int = 1, most: int = 5) -> Schema:
    return {"type": "array", "items": item, "minItems": least, "maxItems": most}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def list_of(item: Schema) -> Schema:
    """In an answer: as many as were asked for."""
    return {"type": "array", "items": item}


RANK = record({"index": COUNT, "relevance_score": {"type": "number"}})
MODEL = record({"id": ID, "object": {"const": "model"}, "created": COUNT, "owned_by": ID})
MESSAGE = record({"id": ID, "type": {"const": "message"}, "content": {"type": "array"}, "usage": {"type": "object"}})
CHAT_MESSAGE = record({"role": one_of("system", "user", "assistant"), "content": TEXT})
SAMPLING: Schema = {
    "max_tokens": {"type": "integer", "minimum": 1, "maximum": 20},
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0.01, "maximum": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**31},
    "stop": {"anyOf": [TEXT, many(TEXT, most=4)]},
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
}
OPENAI_ERROR = record({"error": record({"message": ID, "type": ID})})
ANTHROPIC_ERROR = record({"type": {"const": "error"}, "error": record({"type": ID, "message": ID})})
USAGE = record({"prompt_tokens": COUNT, "total_tokens": COUNT})
FINISH = one_of("stop", "length", "tool_calls")
CHAT_CHOICE = record({"index": COUNT, "finish_reason": FINISH, "message": record({"role": {"const": "assistant"}})})
COMPLETION_CHOICE = record({"index": COUNT, "finish_reason": FINISH, "text": {"type": "string"}})


def _post(asked: Schema, answer: Schema, error: Schema = OPENAI_ERROR) -> Schema:
    return {
        "post": {
            "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
            "responses": {
                "200": {"description": "ok", "content": {"application/json": {"schema": answer}}},
                "4XX": {"description": "a mistake", "content": {"application/json": {"schema": error}}},
            },
        }
    }


def _get(answer: Schema) -> Schema:
    return {
        "get": {"responses": {"200": {"description": "ok", "content": {"application/json": {"schema": answer}}}}},
    }


def description(chat: str, words: str) -> Schema:
    """`chat` and `words` are the models for text and for embeddings."""
    model, embedder = one_of(chat), one_of(words)
    completion = {"id": ID, "object": ID, "created": COUNT, "model": {"const": chat}, "usage": USAGE}
    return {
        "openapi": "3.1.0",
        "info": {"title": "actorrt.serve.llm", "version": "1"},
        "paths": {
            "/v1/models": _get(record({"object": {"const": "list"}, "data": list_of(MODEL)})),
            "/load": _get(record({"running": COUNT, "waiting": COUNT})),
            "/v1/chat/completions": _post(
                record({"model": model, "messages": many(CHAT_MESSAGE)}, SAMPLING),
                record({**completion, "choices": list_of(CHAT_CHOICE)}),
            ),
            "/v1/completions": _post(
                record({"model": model, "prompt": {"anyOf": [ID, many(ID)]}}, SAMPLING),
                record({**completion, "choices": list_of(COMPLETION_CHOICE)}),
            ),
            "/v1/embeddings": _post(
                record(
                    {"model": embedder, "input": {"anyOf": [ID, many(ID)]}},
                    {"encoding_format": one_of("float", "base64"), "user": TEXT},
                ),
                record({"object": {"const": "list"}, "data": list_of(record({"index": COUNT})), "usage": USAGE}),
            ),
            "/v1/rerank": _post(
                record({"model": embedder, "query": ID, "documents": many(ID)}, {"top_n": COUNT}),
                record({"results": list_of(RANK)}),
            ),
            "/v1/tokenize": _post(
                record({"model": model, "prompt": TEXT}), record({"count": COUNT, "tokens": {"type": "array"}})
            ),
            "/v1/responses": _post(
                record(
                    {"model": model, "input": ID},
                    {"max_output_tokens": {"type": "integer", "minimum": 16, "maximum": 20}, "instructions": TEXT},
                ),
                record({"id": ID, "object": {"const": "response"}, "output": {"type": "array"}, "status": ID}),
            ),
            "/v1/messages": _post(
                record(
                    {
                        "model": model,
                        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 20},
                        "messages": many(record({"role": one_of("user"), "content": ID})),
                    },
                    {"system": TEXT, "temperature": {"type": "number", "minimum": 0, "maximum": 1}},
                ),
                record(
                    {"id": ID, "type": {"const": "message"}, "content": {"type": "array"}, "usage": {"type": "object"}}
                ),
                ANTHROPIC_ERROR,
            ),
        },
    }
