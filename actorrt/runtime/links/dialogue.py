"""Questions over a link, and their answers, as futures and tasks. wire/questions.py decides what becomes of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from actorrt import exceptions
from actorrt.wire.messages import Answer, AnswerBody, AnyMessage, Ask, Question, Refusal, Unreadable, Withdraw
from actorrt.wire.questions import Action, Event, Failed, Questions, error_in, refusal_of, unreadable, unsendable


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
        self._questions = Questions()
        self._asks: dict[int, asyncio.Future[AnswerBody]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """How many questions wait for their answers, in both directions."""
        return len(self._asks) + len(self._answering)

    async def ask(self, question: Question) -> Any:
        """The peer's answer. Raises its refusal, or LinkError when the link ends first."""
        rid = self._questions.ask()
        future: asyncio.Future[AnswerBody] = self._loop.create_future()
        self._asks[rid] = future
        self._send(Ask(rid, question))
        try:
            return await future
        except asyncio.CancelledError:
            match self._questions.on(rid, Event.CANCELLED):
                case Action.WITHDRAW:
                    self._send(Withdraw(rid))
                case Action.TAKE_BACK:
                    self._unwanted(future.result())
                case _:
                    pass
            raise
        finally:
            self._questions.over(rid)
            del self._asks[rid]
            # An error would keep itself alive through this frame, and with it all that the frames above hold.
            del future

    def take(self, message: AnyMessage) -> None:
        """One of the messages of `DIALOGUE` has come."""
        if isinstance(message, Answer):
            self._answered(message)
        elif isinstance(message, Refusal):
            self._fail(message.rid, error_in(message))
        elif isinstance(message, Ask):
            task = self._loop.create_task(self._reply(message))
            self._answering[message.rid] = task
            task.add_done_callback(lambda _: self._answering.pop(message.rid, None))
        elif isinstance(message, Withdraw):
            answering = self._answering.get(message.rid)
            if answering is not None:
                answering.cancel()

    def _answered(self, answer: Answer) -> None:
        future = self._asks.get(answer.rid)
        event = Event.UNAWAITED if future is None or future.done() else Event.ANSWERED
        match self._questions.on(answer.rid, event):
            case Action.GIVE if future is not None:
                future.set_result(answer.body)
            case Action.TAKE_BACK:
                self._unwanted(answer.body)
            case _:
                pass

    async def _reply(self, ask: Ask) -> None:
        try:
            body = await self._answer(ask.body)
        except Exception as error:
            if not isinstance(error, exceptions.ActorrtError):
                said = f"{ask.body!r} could not be answered"
                self._loop.call_exception_handler({"message": said, "exception": error})
            self._send(refusal_of(ask.rid, error))
        else:
            self._send(Answer(ask.rid, body))

    def unsendable(self, message: AnyMessage, why: str) -> bool:
        """A message cannot be written: who waits for it hears of that. False if it is none of a dialogue."""
        return self._tell(unsendable(message, why))

    def unreadable(self, message: Unreadable, why: str) -> bool:
        """The same for one that came and means nothing here."""
        return self._tell(unreadable(message, why))

    def _tell(self, found: Failed | Refusal | None) -> bool:
        if isinstance(found, Failed):
            self._fail(found.number, found.error)
        elif found is not None:
            self._send(found)
        return found is not None

    def _fail(self, rid: int, error: Exception) -> None:
        future = self._asks.get(rid)
        if self._questions.on(rid, Event.FAILED) is Action.RAISE and future is not None and not future.done():
            future.set_exception(error)

    def close(self, error: exceptions.LinkError) -> None:
        """The link has ended: nobody gets an answer any more."""
        for rid in self._questions.all():
            self._fail(rid, error)
        for task in list(self._answering.values()):
            task.cancel()
