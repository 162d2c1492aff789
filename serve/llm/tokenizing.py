"""`/v1/tokenize` and `/v1/detokenize`, in the shapes of vLLM's, whatever tokenizer the engine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from ..exceptions import ReplicaUnavailableError
from .checks import check
from .engines.interface import EngineCall, EngineFacts
from .json_kinds import is_whole
from .pass_through import content_type
from .problems import Problem
from .reading import wrong_type
from .routes import Kind
from .unsupported import unsupported

if TYPE_CHECKING:
    from .catalogue import Chosen
    from .exchange import Exchange
    from .services import Services

# llama.cpp makes a text of messages by this, and tokens of a text in a shape of its own.
_TEMPLATE = "/apply-template"


async def tokenize(services: Services, exchange: Exchange, name: str) -> None:
    asked = await services.read(exchange)
    fields = asked.fields
    chosen = services.catalogue.choose(asked.model)
    check(Kind.TOKENIZE, fields)
    facts = await services.check_path(chosen, "/tokenize")
    if _speaks_vllms(facts):
        await _ask(services, exchange, services.call(exchange, chosen, "/tokenize", asked), chosen)
        return
    if fields.get("return_token_strs") and services.config.unsupported == "refuse":
        raise unsupported("return_token_strs", facts.kind)
    special = fields.get("add_special_tokens") is not False
    if fields.get("messages") is not None:
        text = await _text_of(services, exchange, chosen, facts, asked.body)
        if text is None:
            return
        # What the tokenizer puts before each prompt llama.cpp takes out of what the template makes.
        special = True
    else:
        text = fields.get("prompt")
        if text is None:
            text = fields["content"]
        if not isinstance(text, str):
            raise wrong_type("prompt", "a string", text)
    tokens: list[int] = await chosen.served.ask("tokenize", text, add_special=special)
    answer = {"count": len(tokens), "max_model_len": facts.capacity.context, "tokens": tokens, "token_strs": None}
    await exchange.respond_json(msgspec.json.encode(answer))


async def detokenize(services: Services, exchange: Exchange, name: str) -> None:
    asked = await services.read(exchange)
    chosen = services.catalogue.choose(asked.model)
    check(Kind.DETOKENIZE, asked.fields)
    tokens = asked.fields["tokens"]
    if wrong := [each for each in tokens if not is_whole(each) or each < 0]:
        raise wrong_type("tokens", "an array of token ids", wrong[0])
    await services.check_path(chosen, "/detokenize")
    try:
        text: str = await chosen.served.ask("detokenize", tokens)
    except ValueError as error:
        message = str(getattr(error, "cause", error))
        raise Problem(400, message, param="tokens", code="invalid_value") from None
    await exchange.respond_json(msgspec.json.encode({"prompt": text}))


def _speaks_vllms(facts: EngineFacts) -> bool:
    return facts.kind == "server" and "/tokenize" in facts.paths and _TEMPLATE not in facts.paths


async def _text_of(
    services: Services, exchange: Exchange, chosen: Chosen, facts: EngineFacts, body: bytes
) -> str | None:
    """The prompt that messages make; None if the engine has refused them, which the client was told."""
    if _TEMPLATE not in facts.paths:
        raise Problem(501, f"the engine ({facts.kind}) tokenizes a prompt and no messages", param="messages")
    call = EngineCall(_TEMPLATE, body, headers=services.call_headers(exchange))
    answer = await _ask(services, exchange, call, chosen, only_errors=True)
    if answer is None:
        return None
    try:
        value: Any = msgspec.json.decode(answer)
        return str(cast("dict[str, Any]", value)["prompt"])
    except (ValueError, KeyError, TypeError):
        raise ReplicaUnavailableError(chosen.served.model_id, "", "its answer is no prompt") from None


async def _ask(
    services: Services, exchange: Exchange, call: EngineCall, chosen: Chosen, *, only_errors: bool = False
) -> bytes | None:
    """What the engine answers; None once the client was given it: always, or if it is an error."""
    with services.generation(exchange, chosen, "tokenize") as generation:
        head = await generation.open(call)
        body = await generation.rest()
    if only_errors and head.status < 400:
        return body
    await exchange.respond(head.status, content_type(head), body)
    return None
