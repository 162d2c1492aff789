"""Calls that go on at another replica when theirs dies: what is wrapped around `calling.open_call`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from actorrt import exceptions

from ...exceptions import ReplicaUnavailableError, RequestCancelledError, RequestStoppedError
from ...policies.policy import Cost
from ...routing.broadcast import ask_any, count_replicas
from ..calling import Answer, Open
from ..costs import with_more, with_ticket, without_deadline
from ..engines.interface import DeadlyRequestError, Delta, EngineCall, EngineDiedError, EngineError, EngineFacts, Head
from ..usage import USAGE_MARK, Usage, finish_in, usage_in
from .answer import CannotGoOnError, Runs
from .choices import ChoicesAnswer
from .engine_errors import giving_up_in, until_failure
from .messages import MessagesAnswer
from .responses import ResponsesAnswer

if TYPE_CHECKING:
    from ..catalogue import Served

logger = logging.getLogger("actorrt.serve.llm")

# A replica that takes longer to count the tokens of what was sent is not waited for.
COUNT_S: Final = 2.0
# By which an engine says that it has failed, or cannot now, and not that it was asked for something wrong.
_FAILED: Final = frozenset({500, 502, 503})
# After these the same may be asked of another replica. A deployment that is gone, or full, has none.
_BROKEN: Final = (ReplicaUnavailableError, EngineError, RequestCancelledError, RequestStoppedError)


def _runs_of(call: EngineCall, facts: EngineFacts) -> Runs | None:
    """How an answer to this is put together from several runs; None where that is not known."""
    match call.path:
        case "/v1/chat/completions":
            return ChoicesAnswer(
                call,
                continues=facts.continues_chat,
                continues_forms=facts.continues_forms,
                names_continuation=facts.names_continuation,
            )
        case "/v1/completions":
            return ChoicesAnswer(call)
        case "/v1/messages":
            return MessagesAnswer(call, continues=facts.continues_chat, continues_forms=facts.continues_forms)
        case "/v1/responses":
            return ResponsesAnswer(call, continues=facts.continues_chat, continues_forms=facts.continues_forms)
        case _:
            return None


def resuming(open_: Open) -> Open:
    """`open_`, with answers that survive their replica as often as the model's configuration allows."""

    async def open(served: Served, call: EngineCall, cost: Cost) -> Answer:
        if not served.config.max_resumes:
            return await open_(served, call, cost)
        if not call.stream:
            whole = _Whole(open_, served, call, cost)
            await whole.open()
            return whole
        stream = _Stream(open_, served, call, cost)
        await stream.open()
        return stream

    return open


class _Runs:
    """The runs of one call: opened one after the other, each counted."""

    def __init__(self, open_: Open, served: Served, call: EngineCall, cost: Cost) -> None:
        self._open = open_
        self._served = served
        self._most = served.config.max_resumes
        self._call = call
        # Of prompt and answer, however many replicas make it: what one has generated is part of the prompt of the next.
        self._cost = cost
        self._answer: Answer | None = None
        # Tokens that the client had been sent when an engine died under the request.
        self._died_at: int | None = None
        self._sent = 0
        self.resumes = 0
        self.queue_ms: int | None = None

    async def _opened(self) -> Answer:
        """Open the call, at another replica while it breaks before anything has come."""
        failed: Answer | None = None
        while True:
            try:
                answer = self._answer = await self._open(self._served, self._call, self._cost)
            except _BROKEN as error:
                self._broke(error)
                continue
            finally:
                if failed is not None:
                    failed.close()
            if self.queue_ms is None:
                self.queue_ms = answer.queue_ms
            if not await self._goes_elsewhere(answer.head):
                return answer
            self._count(f"the engine answered with status {answer.head.status}")
            # Not closed before another one has begun: as long as it counts for its replica, routers prefer others.
            failed, self._answer = answer, None

    async def _goes_elsewhere(self, head: Head) -> bool:
        """Whether a whole answer is that of an engine that failed, and another replica may do better."""
        if head.status not in _FAILED or self.resumes >= self._most:
            return False
        return await count_replicas(self._served.handle) > 1

    def _broke(self, error: Exception) -> None:
        """Count it; raise it once there were too many, or another engine would die of the request."""
        self.close()
        if isinstance(error, EngineDiedError):
            if self._died_at == self._sent:
                logger.error(
                    "model %s: request %s is given up: it seems to be what its engines die of, the last one after %d "
                    "tokens as the one before: %s",
                    self._served.model_id, dict(self._call.headers).get("x-request-id"), self._sent, error,
                )  # fmt: skip
                raise DeadlyRequestError(str(error)) from error
            self._died_at = self._sent
        if self.resumes >= self._most:
            raise error
        if isinstance(error, RequestStoppedError):
            self._cost = with_ticket(self._cost, error.ticket)
        self._count(error)

    def _count(self, why: object) -> None:
        self.resumes += 1
        # It has had its place in time once.
        self._cost = without_deadline(self._cost)
        logger.info(
            "model %s: an answer goes on at another replica (%d of %d): %s",
            self._served.model_id, self.resumes, self._most, why,
        )  # fmt: skip

    def report_used(self, used: Cost) -> None:
        if self._answer is not None:
            self._answer.report_used(used)

    def report_usage(self, usage: Usage, finish: str | None) -> None:
        if self._answer is not None:
            if self.resumes:
                # It is that of all runs together, and no run's own.
                self._answer.report_used(Cost(tokens=usage.prompt + usage.completion))
            else:
                self._answer.report_usage(usage, finish)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


class _Whole(_Runs):
    """An answer that is not streamed: its client has none of it yet, so a further run begins anew."""

    head: Head

    async def open(self) -> None:
        while True:
            answer = await self._opened()
            try:
                deltas: list[Delta] = []
                finish = None
                while values := await answer.take():
                    deltas += values
                    finish = _tell_usage(answer, values, finish)
                if self.resumes < self._most:
                    _check_kept_up(deltas)
            except _BROKEN as error:
                self._broke(error)
            else:
                self.head, self._deltas = answer.head, deltas
                return

    async def take(self) -> list[Delta]:
        deltas, self._deltas = self._deltas, []
        return deltas


def _tell_usage(answer: Answer, values: Sequence[Delta], finish: str | None) -> str | None:
    """While the answer goes on: who reads it has it at its end, when its place was given back. Why it ended, by now."""
    for data, _ in values:
        finish = finish_in(data) or finish
        if USAGE_MARK in data and (usage := usage_in(data)) is not None:
            answer.report_usage(usage, finish)
    return finish


def _check_kept_up(deltas: Sequence[Delta]) -> None:
    """EngineError for a whole answer that its engine gave up."""
    if (finish := giving_up_in(b"".join([delta.data for delta in deltas]))) is not None:
        raise EngineError(f"the engine gave its answer up ({finish})")


class _Stream(_Runs):
    """A streamed answer: what its client has is followed by the rest."""

    head: Head
    # What the engine said of itself behind what was taken last.
    _failed: str | None = None

    async def open(self) -> None:
        facts = await self._served.facts()
        self.head = (await self._opened()).head
        self._runs = _runs_of(self._call, facts) if self.head.streams else None

    async def take(self) -> list[Delta]:
        runs = self._runs
        while True:
            assert self._answer is not None
            try:
                if self._failed is not None:
                    raise EngineError(f"the engine failed as it answered: {self._failed}")
                deltas = await self._answer.take()
            except _BROKEN as error:
                self._failed = None
                if runs is None:
                    raise
                if _is_whole(runs):
                    return []
                deltas = await self._go_on(runs, error)
            else:
                if runs is None or not deltas:
                    return deltas
                if self.resumes < self._most:
                    deltas, self._failed = until_failure(deltas)
                deltas = _follow(runs, deltas)
                self._sent += sum([delta.tokens for delta in deltas])
            if deltas:
                return deltas

    async def _go_on(self, runs: Runs, error: Exception) -> list[Delta]:
        """Ask for the rest at another replica. What is to be sent without asking, if that is all."""
        self._broke(error)
        call = runs.again(await self._counted(runs.generated()))
        if isinstance(call, bytes):
            self._answer = _Nothing(self.head)
            return [Delta(call)]
        self._cost = with_more(self._cost, len(call.body) - len(self._call.body))
        self._call = call
        answer = await self._opened()
        if answer.head.status < 300 and answer.head.streams:
            return []
        # It refuses what it was asked: no other one would take it.
        words = b"".join([data for data, _ in await answer.take()])[:500].decode("utf-8", "replace")
        raise EngineError(f"the rest of an answer was refused with status {answer.head.status}: {words}") from error

    async def _counted(self, text: str) -> int | None:
        """Its tokens, since the number of events may not be theirs: a character may take several, and an engine that
        has held some back, as they might have become a stop string, gives them as one event.
        """
        if not text:
            return None
        try:
            tokens: list[int] = await ask_any(self._served.handle, "tokenize", text, timeout_s=COUNT_S)
        except (LookupError, exceptions.ActorrtError):
            return None
        return len(tokens)


class _Nothing:
    """The answer of nobody: nothing is left to come."""

    resumes = 0
    queue_ms = None

    def __init__(self, head: Head) -> None:
        self.head = head

    async def take(self) -> list[Delta]:
        return []

    def report_used(self, used: Cost) -> None:
        pass

    def report_usage(self, usage: Usage, finish: str | None) -> None:
        pass

    def close(self) -> None:
        pass


def _is_whole(runs: Runs) -> bool:
    """Whether the client has all of it. EngineError for an answer that cannot be read."""
    try:
        runs.read_kept()
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"an answer that broke off cannot be read: {error!r}") from error
    return runs.done


def _follow(runs: Runs, deltas: Sequence[Delta]) -> list[Delta]:
    followed: list[Delta] = []
    try:
        for delta in deltas:
            data = runs.take(delta)
            if data is delta.data:
                followed.append(delta)  # so is each of a first run
            elif data:
                followed.append(Delta(data, delta.tokens))
    except CannotGoOnError as error:
        raise EngineError(str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineError(f"the rest of an answer cannot be read: {error!r}") from error
    return followed
