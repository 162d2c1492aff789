"""Which paths there are, by which methods, and what each asks for. Nothing here answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from .problems import Api, Problem


class Kind(Enum):
    """What a request asks for."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    SCORE = "score"
    TOKENIZE = "tokenize"
    DETOKENIZE = "detokenize"
    MODELS = "models"
    MODEL = "model"
    LOAD_ADAPTER = "load_adapter"
    UNLOAD_ADAPTER = "unload_adapter"
    RESPONSES = "responses"
    RESPONSE = "response"
    RESPONSE_CANCEL = "response_cancel"
    RESPONSE_INPUT = "response_input"
    RESPONSE_TOKENS = "response_tokens"
    FILES = "files"
    FILE = "file"
    FILE_CONTENT = "file_content"
    BATCHES = "batches"
    BATCH = "batch"
    BATCH_CANCEL = "batch_cancel"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    HEALTH = "health"
    METRICS = "metrics"
    LOAD = "load"
    PAGE = "page"


@dataclass(frozen=True, slots=True)
class Route:
    kind: Kind
    methods: frozenset[str]
    api: Api = Api.OPENAI
    # Whether it may be asked without a key.
    open: bool = False


def _by(kind: Kind, *methods: str, api: Api = Api.OPENAI, open: bool = False) -> Route:
    return Route(kind, frozenset(methods), api, open)


_PATHS: Final[Mapping[str, Route]] = {
    "/v1/models": _by(Kind.MODELS, "GET"),
    "/v1/chat/completions": _by(Kind.CHAT, "POST"),
    "/v1/completions": _by(Kind.COMPLETION, "POST"),
    "/v1/embeddings": _by(Kind.EMBEDDINGS, "POST"),
    "/v1/rerank": _by(Kind.RERANK, "POST"),
    "/v1/score": _by(Kind.SCORE, "POST"),
    "/v1/tokenize": _by(Kind.TOKENIZE, "POST"),
    "/v1/detokenize": _by(Kind.DETOKENIZE, "POST"),
    "/v1/load_lora_adapter": _by(Kind.LOAD_ADAPTER, "POST"),
    "/v1/unload_lora_adapter": _by(Kind.UNLOAD_ADAPTER, "POST"),
    "/v1/responses": _by(Kind.RESPONSES, "POST"),
    "/v1/responses/input_tokens": _by(Kind.RESPONSE_TOKENS, "POST"),
    "/v1/files": _by(Kind.FILES, "GET", "POST"),
    "/v1/batches": _by(Kind.BATCHES, "GET", "POST"),
    "/v1/messages": _by(Kind.MESSAGES, "POST", api=Api.ANTHROPIC),
    "/v1/messages/count_tokens": _by(Kind.COUNT_TOKENS, "POST", api=Api.ANTHROPIC),
    "/health": _by(Kind.HEALTH, "GET", open=True),
    "/metrics": _by(Kind.METRICS, "GET", open=True),
    "/load": _by(Kind.LOAD, "GET", open=True),
    "/": _by(Kind.PAGE, "GET", open=True),
    # The prefix of the application, without a slash behind it.
    "": _by(Kind.PAGE, "GET", open=True),
}
_MODEL: Final = _by(Kind.MODEL, "GET")
# A model's name may hold slashes, so it is all that follows.
_MODELS_PREFIX: Final = "/v1/models/"
# By what stands before the id of one, and after it.
_BELOW: Final[Mapping[str, Mapping[str, Route]]] = {
    "/v1/responses/": {
        "": _by(Kind.RESPONSE, "GET", "DELETE"),
        "cancel": _by(Kind.RESPONSE_CANCEL, "POST"),
        "input_items": _by(Kind.RESPONSE_INPUT, "GET"),
    },
    "/v1/files/": {"": _by(Kind.FILE, "GET", "DELETE"), "content": _by(Kind.FILE_CONTENT, "GET")},
    "/v1/batches/": {"": _by(Kind.BATCH, "GET"), "cancel": _by(Kind.BATCH_CANCEL, "POST")},
}


def find(path: str) -> tuple[Route, str] | None:
    """The route of a path, and what the path names: a model, a response, a file or a batch, else ""."""
    if (route := _PATHS.get(path)) is not None:
        return route, ""
    if path.startswith(_MODELS_PREFIX) and len(path) > len(_MODELS_PREFIX):
        return _MODEL, path[len(_MODELS_PREFIX) :]
    for prefix, below in _BELOW.items():
        if path.startswith(prefix):
            name, _, rest = path[len(prefix) :].partition("/")
            if name and (route := below.get(rest)) is not None:
                return route, name
    return None


def allowed(route: Route) -> bytes:
    """The value of an Allow header."""
    methods = set(route.methods) | {"OPTIONS"}
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods)).encode()


def check_method(route: Route, method: str, path: str) -> None:
    """Problem 405 if the path is there and the method is not."""
    if method in route.methods or (method == "HEAD" and "GET" in route.methods):
        return
    named = " or ".join(sorted(route.methods))
    raise Problem(405, f"{path} is asked by {named}, not by {method[:32]}", headers=((b"allow", allowed(route)),))


def no_such_path(path: str) -> Problem:
    known = ", ".join(sorted(each for each in _PATHS if each.startswith("/v1/")))
    return Problem(404, f"there is no {path[:200]!r} here; there are {known}", code="not_found")
