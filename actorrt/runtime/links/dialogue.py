"""Questions over a link, and their answers: each has a number, and whoever does not wait any more withdraws it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from actorrt import exceptions
from actorrt.wire.messages import (
    Answer,
    AnswerBody,
    AnyMessage,
    Ask,
    Question,
    Refusal,
    Unreadable,
    Withdraw,
    encode_batch,
    tag_of,
)

ASK: Final = tag_of(Ask)
ANSWER: Final = tag_of(Answer)
REFUSAL: Final = tag_of(Refusal)
# What a link answers, or hands to who has asked; all else is the receiver's.
DIALOGUE: Final = frozenset({Answer, Refusal, Ask, Withdraw})


class Dialogue:
    """The questions of one link, in both directions. Runs on the runtime loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[AnyMessage], None],
        answer: Callable[[Question], Awaitable[AnswerBody]],
        unwanted: Callable[[AnswerBody], None],
    ) -> None:
        """`answer` answers a question of the peer; `unwanted` takes back what came for who does not wait any more."""
        self._loop = loop
        self._send = send
        self._answer = answer
        self._unwanted = unwanted
        self._asks: dict[int, asyncio.Future[AnswerBody]] = {}
        self._last_rid = 0
        self._answering: dict[int, asyncio.Task[None]] = {}
        # Why nothing can be asked any more.
        self._ended: exceptions.LinkError | None = None

    def __len__(self) -> int:
        """How many questions wait for their answers, in both directions."""
        return len(self._asks) + len(self._answering)

    async def ask(self, question: Question) -> Any:
        """The peer's answer. Raises its refusal, or LinkError when the link ends first."""
        self._last_rid += 1
        rid = self._last_rid
        future: asyncio.Future[AnswerBody] = self._loop.create_future()
        self._asks[rid] = future
        self._send(Ask(rid, question))
        try:
            return await future
        except asyncio.CancelledError:
            if self._asks.pop(rid, None) is not None:
                if self._ended is None:
                    self._send(Withdraw(rid))
            elif future.done() and not future.cancelled() and future.exception() is None:
                # The answer came in this very turn; nobody will look at it.
                self._unwanted(future.result())
            raise
        finally:
            # An error would keep itself alive through this frame, and with it all that the frames above hold.
            del future

    def take(self, message: AnyMessage) -> None:
        """One of the messages of `DIALOGUE` has come."""
        if isinstance(message, Answer):
            future = self._asks.pop(message.rid, None)
            if future is None or future.done():
                # The asker was cancelled meanwhile; what it was granted has to be given back.
                self._unwanted(message.body)
            else:
                future.set_result(message.body)
        elif isinstance(message, Refusal):
            self._fail(message.rid, _rebuild_error(message))
        elif isinstance(message, Ask):
            task = self._loop.create_task(self._reply(message))
            self._answering[message.rid] = task
            task.add_done_callback(lambda _: self._answering.pop(message.rid, None))
        elif isinstance(message, Withdraw):
            answering = self._answering.get(message.rid)
            if answering is not None:
                answering.cancel()

    async def _reply(self, ask: Ask) -> None:
        try:
            body = await self._answer(ask.body)
        except exceptions.ActorrtError as error:
            self._send(_refusal(ask.rid, error))
        except Exception as error:
            self._loop.call_exception_handler({"message": f"{ask.body!r} could not be answered", "exception": error})
            self._send(Refusal(ask.rid, "ActorrtError", [f"{type(error).__name__}: {error}"]))
        else:
            self._send(Answer(ask.rid, body))

    def unsendable(self, message: AnyMessage, why: str) -> bool:
        """A message cannot be written: who waits for it hears of that. False if it is none of a dialogue."""
        if isinstance(message, Ask):
            self._fail(message.rid, exceptions.NotSentError(f"the question {type(message.body).__name__}", why))
        elif isinstance(message, Answer | Refusal):
            self._send(Refusal(message.rid, "NotSentError", ["the answer", why.encode(errors="replace").decode()]))
        else:
            return False
        return True

    def unreadable(self, message: Unreadable, why: str) -> bool:
        """The same for one that came and means nothing here."""
        if message.tag == ASK:
            self._send(Refusal(message.number, "NotSentError", ["the question", message.why]))
        elif message.tag in (ANSWER, REFUSAL):
            self._fail(message.number, exceptions.ActorrtError(why))
        else:
            return False
        return True

    def _fail(self, rid: int, error: Exception) -> None:
        future = self._asks.pop(rid, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def close(self, error: exceptions.LinkError) -> None:
        """The link has ended: nobody gets an answer any more."""
        self._ended = error
        asks, self._asks = self._asks, {}
        for future in asks.values():
            if not future.done():
                future.set_exception(error)
        for task in list(self._answering.values()):
            task.cancel()


def _refusal(rid: int, error: exceptions.ActorrtError) -> Refusal:
    refusal = Refusal(rid, type(error).__name__, list(error.args))
    try:
        encode_batch([refusal])
    except Exception:  # an error that holds what is no plain value
        return Refusal(rid, "ActorrtError", [f"{type(error).__name__}: {error}".encode(errors="replace").decode()])
    return refusal


def _rebuild_error(refusal: Refusal) -> Exception:
    kind = getattr(exceptions, refusal.error, exceptions.ActorrtError)
    try:
        return kind(*refusal.args)
    except TypeError:
        return exceptions.ActorrtError(f"{refusal.error}: {refusal.args}")
