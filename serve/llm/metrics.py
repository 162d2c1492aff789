"""What the front counts: requests to models, their times and tokens, by model and tenant.

The names are those of OpenTelemetry's semantic conventions for generative AI, where these have one:
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from ..exceptions import RequestRefusedError, ServeError
from .chat_answers import ChatError
from .engines.interface import DeadlyRequestError, EngineError
from .exchange import ClientGone
from .problems import Problem
from .tallies import Bounded, Counter, Histogram

if TYPE_CHECKING:
    from .generation import Generation

# The conventions' own bounds.
_FIRST_TOKEN: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
_EACH_TOKEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_DURATION: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

_FIRST_ERROR: Final = 400


class Totals:
    """All that is counted, as plain values, which can be sent to another process."""

    def __init__(self) -> None:
        # By operation, model and tenant.
        self.first_token = Histogram(_FIRST_TOKEN)
        self.each_token = Histogram(_EACH_TOKEN)
        # And by the kind of error, "" for none.
        self.duration = Histogram(_DURATION)
        # And by the kind of token.
        self.tokens = Histogram(_TOKENS)
        # By model and tenant.
        self.cached_tokens = Counter()
        self.running = Counter()
        self.resumes = Counter()
        self.aborted = Counter()
        self.given_up = Counter()
        # Requests of batches that have an answer, by how it is: "completed" or "failed".
        self.batch_requests = Counter()
        # By status: requests that came to no model.
        self.refused = Counter()


class Meter:
    """Told of each request to a model, when it begins and when it has ended."""

    def __init__(self) -> None:
        self.totals = Totals()
        self._tenants = Bounded()
        self._models = Bounded()

    def refused(self, status: int) -> None:
        self.totals.refused.add((str(status),))

    def began(self, generation: Generation) -> None:
        self.totals.running.add(self._of(generation))

    def ended(self, generation: Generation) -> None:
        totals = self.totals
        of = self._of(generation)
        by = (generation.operation, *of)
        totals.running.add(of, -1)
        totals.duration.add((*by, error_type(generation)), monotonic() - generation.started_at)
        if generation.first_at:
            totals.first_token.add(by, generation.first_at - generation.started_at)
            if generation.tokens > 1 and generation.last_at > generation.first_at:
                totals.each_token.add(by, (generation.last_at - generation.first_at) / (generation.tokens - 1))
        if (usage := generation.usage) is not None:
            totals.tokens.add((*by, "input"), usage.prompt)
            totals.tokens.add((*by, "output"), usage.completion)
            if usage.cached:
                totals.cached_tokens.add(of, usage.cached)
        elif generation.tokens:
            totals.tokens.add((*by, "output"), generation.tokens)
        if generation.resumes:
            totals.resumes.add(of, generation.resumes)
        if isinstance(generation.error, DeadlyRequestError):
            totals.given_up.add(of)
        if _has_left(generation.error):
            totals.aborted.add(of)

    def _of(self, generation: Generation) -> tuple[str, str]:
        return self._models(generation.model), self._tenants(generation.tenant)


def error_type(generation: Generation) -> str:
    """The value of `error.type`: "" for none, a status that the engine gave, else what happened."""
    error = generation.error
    if error is None:
        return str(generation.status) if generation.status >= _FIRST_ERROR else ""
    match error:
        case asyncio.CancelledError() | ClientGone():
            return "client_left"
        case DeadlyRequestError():
            return "engine_died"
        case EngineError():
            return "engine_failed"
        case RequestRefusedError():
            return "overloaded"
        case ServeError():
            return "model_unavailable"
        case Problem() | ChatError():
            # The engine's own, where its answer was to be made into that of another API.
            return str(error.status)
        case _:
            return "internal_error"


def _has_left(error: BaseException | None) -> bool:
    return isinstance(error, asyncio.CancelledError | ClientGone)
