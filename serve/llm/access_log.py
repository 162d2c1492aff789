"""A line of the log for each request: what it asked, how it ended, its tokens and times."""

from __future__ import annotations

import json
import logging
import re
from time import monotonic
from typing import TYPE_CHECKING, Final

from .metrics import error_type

if TYPE_CHECKING:
    from .exchange import Exchange

_PLAIN: Final = re.compile(r"[\w./:@+-]+", re.ASCII)
logger: Final = logging.getLogger("actorrt.serve.llm.access")


def show() -> None:
    """Have the lines written to stderr, which reaches the driver as any output of a worker does."""
    logger.setLevel(logging.INFO)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler())


def log(exchange: Exchange) -> None:
    logger.info("%s", line(exchange, monotonic()))


def line(exchange: Exchange, now: float) -> str:
    """Facts as `name=value`; what is not known is left out."""
    facts: dict[str, object] = {"request": exchange.request_id, "status": exchange.status or "-"}
    if exchange.tenant:
        facts["tenant"] = exchange.tenant
    if (generation := exchange.generation) is not None:
        facts["model"] = generation.model
        if (usage := generation.usage) is not None:
            facts |= {"prompt_tokens": usage.prompt, "cached_tokens": usage.cached, "tokens": usage.completion}
        else:
            facts["tokens"] = generation.tokens
        if generation.finish is not None:
            facts["finish"] = generation.finish
        if generation.first_at:
            facts["first_token_s"] = f"{generation.first_at - generation.started_at:.3f}"
        if generation.resumes:
            facts["resumes"] = generation.resumes
        if error := error_type(generation):
            facts["error"] = error
    elif exchange.gone:
        facts["error"] = "client_left"
    facts["total_s"] = f"{now - exchange.came_at:.3f}"
    return f"{exchange.method} {exchange.shown_path} " + " ".join(f"{name}={_one(v)}" for name, v in facts.items())


def _one(value: object) -> str:
    """A value that reads as one, whatever a client has put into it."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
