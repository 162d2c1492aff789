"""What a client is told when something fails. An error's own words may hold what it should not see: they are logged."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from actorrt.exceptions import ActorrtError, TaskError

from ..base.user_errors import with_frames
from ..exceptions import (
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RequestRefusedError,
    ServeError,
)
from ..http.retry import TICKET
from .batches.database import StorageError
from .chat_answers import ChatError
from .engines.interface import DeadlyRequestError, EngineError
from .fields import FieldError
from .made_from_chat import chat_problem, field_problem
from .problems import Problem

if TYPE_CHECKING:
    from .exchange import Exchange

logger = logging.getLogger("actorrt.serve.llm")

# Where no router was asked.
RETRY_AFTER_S: Final = 1
# What OpenAI's and Anthropic's own clients look for, which try a status of 500 and more again.
_NO_RETRY: Final = ((b"x-should-retry", b"false"),)
# Of a request router's refusals. By that of a prompt that no replica holds clients know to shorten a conversation.
_REFUSALS: Final = {429: "overloaded", 503: "overloaded", 413: "context_length_exceeded"}


def problem_of(error: Exception, exchange: Exchange) -> Problem:
    match error:
        case Problem():
            return error
        case FieldError():
            return field_problem(error, exchange.api)
        case StorageError():
            logger.error("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            return error.problem
        case ChatError():
            logger.error("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            return chat_problem(error)
        case RequestRefusedError():
            code = _REFUSALS.get(error.status, "request_refused")
            ticket = ((TICKET, error.ticket.encode()),) if error.ticket else ()
            return Problem(error.status, str(error), code=code, retry_after_s=error.retry_after_s, headers=ticket)
        case DeploymentUnavailableError() | RequestCancelledError():
            logger.info("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            return Problem(503, "the model is not available", code="model_unavailable", retry_after_s=RETRY_AFTER_S)
        case ReplicaUnavailableError():
            logger.warning("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            message = "the replica that ran the model went away"
            return Problem(503, message, code="model_unavailable", retry_after_s=RETRY_AFTER_S)
        case DeadlyRequestError():
            logger.error("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            message = "the model's engine died of this request twice: it is not tried again"
            return Problem(502, message, code="engine_died", headers=_NO_RETRY)
        case EngineError():
            logger.error("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            return Problem(502, "the model's engine failed", code="engine_error")
        case ActorrtError() if not isinstance(error, TaskError | ServeError | TypeError):
            # Of this process's runtime, and of no code: as the session ends, say.
            logger.warning("%s %s, request %s: %s", exchange.method, exchange.shown_path, exchange.request_id, error)
            return Problem(503, "the model is not available", code="model_unavailable", retry_after_s=RETRY_AFTER_S)
        case _:
            logger.error(
                "%s %s failed, request %s:\n%s",
                exchange.method,
                exchange.shown_path,
                exchange.request_id,
                with_frames(error),
            )
            return Problem(500, "internal error", code="internal_error")
