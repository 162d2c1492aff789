"""What asks for vectors, ranks and scores of texts: requests of /v1/embeddings, /v1/rerank and /v1/score, and answers.

Embeddings are OpenAI's, ranks those of Jina and Cohere, scores those of vLLM.
"""

import base64
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from .request_fields import Fields, Refused, are_tokens

MOST_TEXTS: Final = 2048


@dataclass(frozen=True, slots=True)
class EmbeddingsWanted:
    model: str
    texts: list[str]
    dimensions: int
    base64: bool


@dataclass(frozen=True, slots=True)
class RanksWanted:
    model: str
    query: str
    documents: list[str]
    top: int
    with_documents: bool


@dataclass(frozen=True, slots=True)
class ScoresWanted:
    model: str
    pairs: list[tuple[str, str]]


def embeddings(body: bytes, dimensions: int) -> EmbeddingsWanted:
    """Raises Refused."""
    fields = Fields.of(body)
    encoding = fields.of_type("encoding_format", str, "a string", "float")
    if encoding not in ("float", "base64"):
        raise Refused('\'encoding_format\' must be "float" or "base64"', "encoding_format")
    return EmbeddingsWanted(
        model=fields.of_type("model", str, "a string", ""),
        texts=_texts(fields, "input"),
        dimensions=fields.count("dimensions", most=dimensions) or dimensions,
        base64=encoding == "base64",
    )


def ranks(body: bytes) -> RanksWanted:
    """Raises Refused."""
    fields = Fields.of(body)
    documents = _texts(fields, "documents", objects=True)
    return RanksWanted(
        model=fields.of_type("model", str, "a string", ""),
        query=_text(fields.all.get("query"), "query"),
        documents=documents,
        top=min(fields.count("top_n") or len(documents), len(documents)),
        with_documents=fields.of_type("return_documents", bool, "true or false", False),
    )


def scores(body: bytes) -> ScoresWanted:
    """Raises Refused."""
    fields = Fields.of(body)
    first, second = _texts(fields, "text_1"), _texts(fields, "text_2")
    if len(first) == 1:
        first *= len(second)
    if len(first) != len(second):
        raise Refused("'text_1' must be one text, or as many as 'text_2'", "text_1")
    return ScoresWanted(model=fields.of_type("model", str, "a string", ""), pairs=list(zip(first, second, strict=True)))


def embeddings_answer(wanted: EmbeddingsWanted, vectors: Sequence[Sequence[float]], tokens: int) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": _as_base64(vector) if wanted.base64 else vector}
        for index, vector in enumerate(vectors)
    ]
    return {"object": "list", "data": data, "model": wanted.model, "usage": _usage(tokens)}


def ranks_answer(wanted: RanksWanted, scores: Sequence[float], tokens: int, id: str) -> dict[str, Any]:
    """The best first; of two that are as good, the one that came first."""
    results: list[dict[str, Any]] = []
    for index in sorted(range(len(scores)), key=lambda index: -scores[index])[: wanted.top]:
        result: dict[str, Any] = {"index": index, "relevance_score": scores[index]}
        if wanted.with_documents:
            result["document"] = {"text": wanted.documents[index]}
        results.append(result)
    return {"id": id, "object": "list", "model": wanted.model, "results": results, "usage": _usage(tokens)}


def scores_answer(wanted: ScoresWanted, scores: Sequence[float], tokens: int, id: str, created: int) -> dict[str, Any]:
    data = [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]
    head: dict[str, Any] = {"id": id, "object": "list", "created": created, "model": wanted.model}
    return head | {"data": data, "usage": _usage(tokens)}


def _usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def _as_base64(vector: Sequence[float]) -> str:
    """Of little-endian floats of four bytes, which is what the processors that we run on have."""
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _texts(fields: Fields, name: str, *, objects: bool = False) -> list[str]:
    value = fields.all.get(name)
    if value is None:
        raise Refused(f"'{name}' is required", name)
    values: list[Any] = cast(list[Any], value) if isinstance(value, list) else [value]
    if are_tokens(values) or (values and all(map(are_tokens, values))):
        raise Refused(f"'{name}' must be text: this engine takes no token numbers", name)
    if not 1 <= len(values) <= MOST_TEXTS:
        raise Refused(f"'{name}' must have 1 to {MOST_TEXTS} texts, but has {len(values)}", name)
    if objects:
        # {"text": ...} is a document too.
        values = [cast(dict[str, Any], each).get("text") if isinstance(each, dict) else each for each in values]
    return [_text(each, f"{name}[{index}]" if isinstance(value, list) else name) for index, each in enumerate(values)]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise Refused(f"'{name}' must be a string that is not empty", name)
    return value
