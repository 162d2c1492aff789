"""How many tokens the prompt of a chat has, by what the engine offers for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .engines.interface import EngineCall
from .made_from_chat import engine_problem
from .problems import Problem
from .resume.events import a_dict

if TYPE_CHECKING:
    from .catalogue import Chosen
    from .exchange import Exchange
    from .services import Services

# What decides about the prompt, and nothing else.
_OF_THE_PROMPT: Final = ("model", "messages", "tools", "chat_template_kwargs", "reasoning_effort")
_APPLY: Final = "/apply-template"
_TOKENIZE: Final = "/tokenize"


async def count_prompt(services: Services, exchange: Exchange, chosen: Chosen, chat: Mapping[str, Any]) -> int:
    """Tokens of the prompt that the engine would make of this request. Problem 501 if it does not say."""
    facts = await chosen.served.facts()
    asked: dict[str, Any] = {name: chat[name] for name in _OF_THE_PROMPT if name in chat}
    if _APPLY in facts.paths:
        prompt = (await _ask(services, exchange, chosen, _APPLY, asked)).get("prompt")
        if isinstance(prompt, str):
            return len(await chosen.served.ask("tokenize", prompt, add_special=True))
    elif _TOKENIZE in facts.paths:
        # vLLM's takes a chat. An engine whose own takes only a text has nothing to count here, and refuses.
        count = (await _ask(services, exchange, chosen, _TOKENIZE, {**asked, "add_generation_prompt": True})).get(
            "count"
        )
        if isinstance(count, int):
            return count
    raise _cannot(chosen, facts.kind)


async def _ask(
    services: Services, exchange: Exchange, chosen: Chosen, path: str, asked: Mapping[str, Any]
) -> dict[str, Any]:
    call = EngineCall(path, msgspec.json.encode(asked), headers=services.call_headers(exchange))
    with services.generation(exchange, chosen, "count_tokens") as generation:
        head = await generation.open(call)
        body = await generation.rest()
    if head.status >= 400:
        problem = engine_problem(head, body)
        if path == _TOKENIZE and head.status < 500:
            raise _cannot(chosen, problem.message)
        raise problem
    try:
        return a_dict(msgspec.json.decode(body))
    except ValueError:
        raise _cannot(chosen, "what it answers is no JSON") from None


def _cannot(chosen: Chosen, why: str) -> Problem:
    return Problem(
        501,
        f"the engine of model {chosen.served.model_id!r} does not count the tokens of a chat ({why})",
        param="model",
        code="not_supported_by_engine",
    )
