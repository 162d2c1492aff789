"""What an engine is to the front: it answers requests of the OpenAI kind, as they are, and can be stopped.

An engine speaks in bytes: the front hands on what a client sent and gives the client what the engine answers. What
must be known of an answer on its way (tokens, the end) stands beside the bytes, in `Delta.tokens`.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from ...exceptions import PlainError

ADAPTER: Final = "x-actorrt-adapter"
"""Header of a call whose model is an adapter that was loaded live: "NAME=PATH", for a replica that has not got it."""

RANK: Final = "x-data-parallel-rank"
"""Header of a call that is for one rank of an engine that has several."""


class EngineCall(NamedTuple):
    """A request as it goes to an engine."""

    path: str
    """Without query: "/v1/chat/completions"."""
    body: bytes = b""
    """JSON, as the client sent it wherever nothing had to be changed."""
    stream: bool = False
    """Whether the body asks for server-sent events."""
    method: str = "POST"
    headers: tuple[tuple[str, str], ...] = ()
    """Those that are handed on, by lower-case names; content-type and content-length are the engine's own matter."""


class Head(NamedTuple):
    """The first item of each answer."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """By lower-case names, without those of the connection (content-length, transfer-encoding, date, server...)."""

    @property
    def streams(self) -> bool:
        return any(name == "content-type" and value.startswith("text/event-stream") for name, value in self.headers)


class Delta(NamedTuple):
    """The next bytes of an answer: of a stream always whole server-sent events, each with its empty line.

    Of an answer that is not streamed some may be empty and stand for tokens that have come, of which all bytes follow
    at its end (`Beside`): the first says that the prompt is read.
    """

    data: bytes
    tokens: int = 0
    """How many generated tokens these events bring: 0 for what only says a role, the end, or the usage."""


class Beside:
    """When the tokens of an answer that is not streamed are told: the first at once, and then so many together."""

    EACH: Final = 64

    def __init__(self) -> None:
        self._untold = 0
        self.told = 0

    def came(self, tokens: int) -> int:
        """So many more have come. How many are to be told now."""
        self._untold += tokens
        if self._untold < (self.EACH if self.told else 1):
            return 0
        more, self._untold = self._untold, 0
        self.told += more
        return more


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine can hold at once. Each number is for one rank, of which there are `ranks`."""

    kv_tokens: int
    """Tokens that its key-value cache holds."""
    slots: int
    """Requests that run at once; more wait inside of the engine."""
    context: int
    """Tokens of the longest request: prompt and answer together."""
    ranks: int = 1


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known of an engine once it has started."""

    kind: str
    """The name of its configuration: "llamacpp", "server", "simulated", "wordllama"."""
    paths: frozenset[str]
    """What it answers itself. The front makes the rest from these, or refuses it."""
    capacity: Capacity
    continues_chat: bool = False
    """Whether a last message of the assistant is continued, so that a broken stream can go on elsewhere."""
    continues_forms: bool = False
    """Whether that holds also within a form that `response_format` asks for, which many begin anew."""
    names_continuation: bool = False
    """Whether that must be asked for (`continue_final_message`), as of vLLM and SGLang."""
    takes_tools: bool = True
    """False where it is known that the model's chat template says nothing of them, so that they are left unread."""
    adapters: tuple[str, ...] = field(default=())
    """LoRA adapters that are loaded now."""


class EngineError(PlainError):
    """The engine could not do what was asked: it did not start, has ended, or answers what is no HTTP.

    An error that the engine itself reports (a status of 400 or more) is an answer and not this.
    """


class EngineDiedError(EngineError):
    """The engine's process ended while it had the request, or was ended since it hung."""


class DeadlyRequestError(EngineError):
    """A second engine died under a request that had come no further since the first: no third one is given it."""


class Engine(Protocol):
    """An engine in a replica. All methods run on the replica's event loop; none may block it."""

    async def start(self) -> EngineFacts:
        """Load the model and return when requests are answered. Raises EngineError with the engine's last words."""
        ...

    def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        """Answer a request: one Head, then deltas as soon as they are there.

        Closing the generator (`aclose`, or cancelling who waits for it) aborts the request inside of the engine and
        frees its slot. Raises EngineError when the engine fails, before the Head or in the midst of the deltas.
        """
        ...

    async def load_adapter(self, name: str, path: str) -> None:
        """Load a LoRA adapter under a name, beside those that are there. Raises EngineError, or ValueError by name."""
        ...

    async def unload_adapter(self, name: str) -> None: ...

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]: ...

    async def detokenize(self, tokens: list[int]) -> str: ...

    async def sleep(self) -> None:
        """Give back what it can (memory, a GPU) until `wake`. Raises EngineError where the engine has no such thing."""
        ...

    async def wake(self) -> None: ...

    async def check(self) -> None:
        """Raises EngineError if it does not work any more."""
        ...

    async def statistics(self) -> dict[str, float]:
        """Numbers by name for `actorrt status` and /metrics: at least `running` and `waiting` (requests)."""
        ...

    async def stop(self) -> None:
        """End it and everything that it started. After this nothing of it is left, whatever state it was in."""
        ...
