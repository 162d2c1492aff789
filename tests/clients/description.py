"""Requests that every engine answers, as an OpenAPI description. Answers are as OpenAI's own says."""

from .official import Schema, official

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
MESSAGE = record({"id": ID, "type": {"const": "message"}, "content": {"type": "array"}, "usage": {"type": "object"}})
CHAT_MESSAGE = record({"role": one_of("system", "user", "assistant"), "content": TEXT})
INPUT_ITEM = record(
    {
        "type": {"const": "message"},
        "role": one_of("developer", "user"),
        "content": {"anyOf": [ID, many(record({"type": {"const": "input_text"}, "text": ID}))]},
    }
)
TOOL = record({"type": {"const": "function"}, "name": {"const": "f"}, "parameters": {"const": {"type": "object"}}})
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": 20}
SAMPLING: Schema = {
    "temperature": {"type": "number", "minimum": 0, "maximum": 2},
    "top_p": {"type": "number", "minimum": 0.01, "maximum": 1},
    "seed": {"type": "integer", "minimum": 0, "maximum": 2**31},
    "stop": {"anyOf": [TEXT, many(TEXT, most=4)]},
    "n": {"type": "integer", "minimum": 1, "maximum": 3},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
    "stream": {"type": "boolean"},
    "stream_options": record({"include_usage": {"type": "boolean"}}),
    "user": TEXT,
}
OPENAI_ERROR = record({"error": record({"message": ID, "type": ID})})
ANTHROPIC_ERROR = record({"type": {"const": "error"}, "error": record({"type": ID, "message": ID})})


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
    theirs = official(chat, words)

    def post(path: str, asked: Schema) -> Schema:
        """With OpenAI's answers."""
        body = {"required": True, "content": {"application/json": {"schema": asked}}}
        return {"post": {"requestBody": body, "responses": theirs["paths"][path]["post"]["responses"]}}

    return {
        "openapi": "3.1.0",
        "info": {"title": "actorrt.serve.llm", "version": "1"},
        "components": theirs["components"],
        "paths": {
            "/load": _get(record({"running": COUNT, "waiting": COUNT})),
            "/v1/chat/completions": post(
                "/chat/completions",
                record({"model": model, "messages": many(CHAT_MESSAGE), "max_completion_tokens": LIMIT}, SAMPLING),
            ),
            "/v1/completions": post(
                "/completions",
                record({"model": model, "prompt": {"anyOf": [ID, many(ID)]}, "max_tokens": LIMIT}, SAMPLING),
            ),
            "/v1/embeddings": post(
                "/embeddings",
                record(
                    {"model": embedder, "input": {"anyOf": [ID, many(ID)]}},
                    {"encoding_format": one_of("float", "base64"), "user": TEXT},
                ),
            ),
            "/v1/responses": post(
                "/responses",
                record(
                    {
                        "model": model,
                        "input": {"anyOf": [ID, many(INPUT_ITEM)]},
                        "max_output_tokens": {"type": "integer", "minimum": 16, "maximum": 20},
                    },
                    {"instructions": TEXT, "stream": {"type": "boolean"}, "tools": many(TOOL, least=0, most=1)},
                ),
            ),
            "/v1/rerank": _post(
                record({"model": embedder, "query": ID, "documents": many(ID)}, {"top_n": COUNT}),
                record({"results": list_of(RANK)}),
            ),
            "/v1/tokenize": _post(
                record({"model": model, "prompt": TEXT}), record({"count": COUNT, "tokens": {"type": "array"}})
            ),
            "/v1/messages": _post(
                record(
                    {
                        "model": model,
                        "max_tokens": LIMIT,
                        "messages": many(record({"role": one_of("user"), "content": ID})),
                    },
                    {"system": TEXT, "temperature": {"type": "number", "minimum": 0, "maximum": 1}},
                ),
                MESSAGE,
                ANTHROPIC_ERROR,
            ),
        },
    }
