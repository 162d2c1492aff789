"""The simulated engine: no model, but words as fast or slow as one would give them.

All streams get their tokens of one step in one turn of the loop. Nothing here decides when: `Simulation` does.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from ..config import SimulatedEngine
from .completion_bytes import DONE, Completion, Usage
from .interface import Beside, Capacity, Delta, EngineCall, EngineError, EngineFacts, Head
from .request_fields import Refused, text_field, tokens_field
from .simulated_choice import Choice, Prompt
from .simulated_request import Wanted, prompt_of, read
from .simulation import Pace, Running, Simulation
from .word_pieces import number, pieces, text_of

_JSON: Final = (("content-type", "application/json; charset=utf-8"),)
_EVENTS: Final = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
_PATHS: Final = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/models", "/tokenize", "/detokenize", "/apply-template"}
)
_NO_ADAPTERS: Final = "the simulated engine has no model that a LoRA adapter could change"
_NO_SLEEP: Final = "the simulated engine holds nothing that it could give back"


class Simulated:
    """See `Engine`."""

    def __init__(self, config: SimulatedEngine) -> None:
        self._config = config
        self._simulation = self._made()
        self._context: Final = min(config.context, self._simulation.longest)
        self._choices: dict[Running, tuple[Choice, _Answer]] = {}
        self._timer: asyncio.Handle | None = None
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop

    def _made(self) -> Simulation:
        config = self._config
        return Simulation(
            Pace(
                prefill_tokens_per_s=config.prefill_tokens_per_s,
                decode_step_s=config.decode_step_s,
                decode_step_per_request_s=config.decode_step_per_request_s,
                chunk_tokens=config.chunk_tokens,
                slots=config.slots,
                kv_tokens=config.kv_tokens,
                block_tokens=config.block_tokens,
            )
        )

    async def start(self) -> EngineFacts:
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            # It has lost what it had in its cache.
            self._stopped, self._simulation = False, self._made()
        capacity = Capacity(kv_tokens=self._config.kv_tokens, slots=self._config.slots, context=self._context)
        return EngineFacts(kind="simulated", paths=_PATHS, capacity=capacity, continues_chat=True)

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        if self._stopped:
            raise EngineError("the simulated engine was stopped")
        try:
            answer = self._answer(call)
        except Refused as refusal:
            yield Head(refusal.status, _JSON)
            yield Delta(refusal.body())
            return
        if isinstance(answer, bytes):
            yield Head(200, _JSON)
            yield Delta(answer)
            return
        try:
            # Of an answer that is not streamed only once there is something of it.
            first = None if answer.wanted.stream else await answer.next()
            yield Head(200, _EVENTS if first is None else _JSON)
            if first is not None:
                yield first
            while not answer.complete:
                yield await answer.next()
        finally:
            for choice in answer.choices:
                self._end(choice)

    async def load_adapter(self, name: str, path: str) -> None:
        raise EngineError(_NO_ADAPTERS)

    async def unload_adapter(self, name: str) -> None:
        raise EngineError(_NO_ADAPTERS)

    async def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return [number(piece) for piece in pieces(text)]

    async def detokenize(self, tokens: list[int]) -> str:
        return text_of(tokens)

    async def sleep(self) -> None:
        raise EngineError(_NO_SLEEP)

    async def wake(self) -> None:
        raise EngineError(_NO_SLEEP)

    async def check(self) -> None:
        if self._stopped:
            raise EngineError("the simulated engine was stopped")

    async def statistics(self) -> dict[str, float]:
        simulation = self._simulation
        cache, block = simulation.cache, simulation.pace.block_tokens
        return {
            "running": len(simulation.running),
            "waiting": len(simulation.waiting),
            "kv_tokens_used": cache.used * block,
            "kv_tokens_cached": cache.idle * block,
            "preemptions": simulation.preemptions,
            "late_s": simulation.lost_s / self._config.speed,
        }

    async def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for choice, answer in [*self._choices.values()]:
            self._end(choice)
            answer.fail(EngineError("the simulated engine was stopped"))

    def _answer(self, call: EngineCall) -> "bytes | _Answer":
        match call.path:
            case "/v1/chat/completions" | "/v1/completions":
                return self._begin(read(call.body, chat=call.path == "/v1/chat/completions"))
            case "/v1/models":
                model: dict[str, Any] = {"id": "simulated", "object": "model", "owned_by": "actorrt"}
                meta = {"n_ctx": self._context}
                return msgspec.json.encode({"object": "list", "data": [model | {"created": 0, "meta": meta}]})
            case "/apply-template":
                return msgspec.json.encode({"prompt": prompt_of(call.body)})
            case "/tokenize":
                tokens = [number(piece) for piece in pieces(text_field(call.body, "content"))]
                return msgspec.json.encode({"tokens": tokens})
            case "/detokenize":
                try:
                    text = text_of(tokens_field(call.body, "tokens"))
                except Refused:
                    raise
                except ValueError as error:
                    raise Refused(str(error), "tokens") from None
                return msgspec.json.encode({"content": text})
            case _:
                raise Refused(f"the simulated engine does not answer {call.path}", kind="not_found_error", status=404)

    def _begin(self, wanted: Wanted) -> "_Answer":
        completion = Completion(
            chat=wanted.chat,
            id=f"{'chatcmpl' if wanted.chat else 'cmpl'}-{secrets.token_hex(16)}",
            model=wanted.model or "simulated",
            created=int(time.time()),
        )
        answer = _Answer(wanted, completion, self._loop)
        for text in wanted.prompts:
            prompt = Prompt(text, self._config.block_tokens)
            room = self._context - prompt.length
            if room < 1:
                raise Refused.too_long(prompt.length, self._context)
            most = room if wanted.most_tokens is None else min(room, wanted.most_tokens)
            for _ in range(wanted.choices):
                index = len(answer.choices)
                answer.choices.append(
                    Choice(wanted, prompt, completion, index, most=most, mean_tokens=self._config.answer_tokens)
                )
        for choice in answer.choices:
            self._choices[choice.running] = choice, answer
            self._simulation.submit(choice.running)
        if self._timer is None:
            # Not at once: those who come in this turn of the loop begin together.
            self._timer = self._loop.call_soon(self._turn)
        return answer

    def _end(self, choice: Choice) -> None:
        if self._choices.pop(choice.running, None) is not None:
            self._simulation.finish(choice.running, choice.answer_keys() if choice.reason else ())

    def _now(self) -> float:
        """In the time of the simulation, which may run faster or slower.

        Not the loop's time, of which uvloop counts milliseconds: until that changes, a step that takes no time would
        not be over, and be looked at again and again.
        """
        return time.monotonic() * self._config.speed

    def _turn(self) -> None:
        """End the step whose time has come, give what it brought, and wait for the end of the next one."""
        self._timer = None
        simulation, now = self._simulation, self._now()
        # uvloop's timers count milliseconds and may be early.
        if simulation.ends_at is not None and simulation.ends_at <= now:
            for running in simulation.end_step(now):
                choice, answer = self._choices[running]
                answer.add(choice)
                if choice.reason:
                    self._end(choice)
        simulation.begin_step(now)
        if simulation.ends_at is not None:
            left = (simulation.ends_at - now) / self._config.speed
            later = self._loop.call_later
            self._timer = later(left, self._turn) if left > 0 else self._loop.call_soon(self._turn)


class _Answer:
    """What the choices of one request give, until it is taken."""

    __slots__ = (
        "_beside", "_completion", "_error", "_is_plain", "_loop", "_tokens", "_waiter", "choices", "ended", "ready",
        "wanted",
    )  # fmt: skip

    def __init__(self, wanted: Wanted, completion: Completion, loop: asyncio.AbstractEventLoop) -> None:
        self.wanted = wanted
        self.choices: list[Choice] = []
        self.ready: list[bytes] = []
        self.ended = 0
        """Choices that have their last token."""
        self._completion = completion
        # Each token's events go out as they are.
        self._is_plain = wanted.stream and not wanted.timings
        self._loop = loop
        self._tokens = 0
        self._beside = Beside()
        self._waiter: asyncio.Future[None] | None = None
        self._error: EngineError | None = None

    @property
    def complete(self) -> bool:
        return self.ended == len(self.choices) and not self.ready

    def add(self, choice: Choice) -> None:
        """The choice has its next token."""
        before = choice.tokens
        events = next(choice.events)
        more = choice.tokens - before
        self._tokens += more
        if self._is_plain and not choice.reason:
            self.ready.append(events)
        else:
            events = self._with_the_rest(choice, events)
            if not events and not self._beside.came(more):
                return
            self.ready.append(events)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _with_the_rest(self, choice: Choice, events: bytes) -> bytes:
        """What is given with the last token, of all or of this choice; of an answer that is not streamed, all of it."""
        if choice.reason:
            self.ended += 1
        over = self.ended == len(self.choices)
        if not self.wanted.stream:
            texts = [(choice.text(), choice.reason) for choice in self.choices]
            return self._completion.whole(texts, self._usage()) if over else b""
        if self.wanted.timings:
            events = self._completion.stamped(events, time.monotonic_ns())
        if over:
            events += (self._completion.usage(self._usage()) + DONE) if self.wanted.usage else DONE
        return events

    def fail(self, error: EngineError) -> None:
        """Who waits gets the error, once what is there has been taken."""
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Delta:
        """All that is there, as soon as there is something."""
        if not self.ready:
            if self._error is not None:
                raise self._error
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
            if not self.ready:
                return await self.next()
        ready = self.ready
        delta = Delta(ready[0] if len(ready) == 1 else b"".join(ready), self._tokens)
        ready.clear()
        self._tokens = 0
        return delta

    def _usage(self) -> Usage:
        prompts = self.choices[:: self.wanted.choices]
        return Usage(
            prompt=sum(choice.running.prompt for choice in prompts),
            completion=sum(choice.tokens for choice in self.choices),
            cached=sum(choice.running.cached for choice in prompts),
        )
