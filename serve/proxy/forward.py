"""Carry one HTTP request from the proxy to a replica and its answer back.

A request is one actor call without a task: the router sends it, and the callback of its ref writes the answer. Large
bodies, and responses that are made in parts, go beside that call, by its pipe: what comes from one socket is written to
the other. A response that is large enough the replica writes itself, to its client's socket, which it is lent.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
from functools import partial
from typing import Any, Final

from actorrt import ObjectRef, Pipe, cancel

from ..exceptions import RequestStoppedError, ServeError
from ..http.incoming import DISCONNECT_GRACE_S
from ..http.listener import lend
from ..http.loan import Lender
from ..http.request_head import pack_head
from ..http.responses import LARGEST_WHOLE, error_page, queue_line
from ..http.unavailable import Answer as Page
from ..policies.policy import ONE_REQUEST, Cost, Grant
from ..routing.lending import Lending
from ..routing.router import Router
from ..routing.target import Target
from .answer import Answer
from .http_request import OVER, HttpRequest
from .place import Place, PlaceEvent, after
from .request_life import Action, Event, State, actions, failure, may_repeat, page, page_after, state_of

logger = logging.getLogger("actorrt.serve.proxy")

# Above all that a proxy before this one has given.
_keys: Final = itertools.count(random.SystemRandom().getrandbits(62))

# Python looks up the members of an enum slowly, and each request asks for these.
HELD: Final = Place.HELD
CLOSED: Final = Lending.CLOSED

# A replica is told of so much room at once; no more than the smaller one of the pieces that its first room is sent in.
ROOM_STEP: Final = 248 * 1024


class Forwarded:
    """One request under way. What the router calls, and what the refs and the client bring."""

    # What most requests keep from the start and are seldom asked for stands in the class: there are many of them.
    cost: Cost = ONE_REQUEST
    # The replica's call, where it runs, and by which number the request is known there.
    _ref: ObjectRef[Any] | None = None
    _target: Target | None = None
    _key = 0
    # Its place there, until it is given back.
    _grant: Grant | None = None
    # So often its call has failed before its client was answered.
    _failures = 0
    # Where the request's body goes, once the replica wants it.
    _pipe: Pipe | None = None
    # Bytes of the response that the client has taken and the replica was not told of.
    _taken = 0

    def __init__(
        self,
        request: HttpRequest,
        router: Router,
        base_path: bytes,
        root_path: bytes,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float | None,
    ) -> None:
        self._request = request
        self._router = router
        # What a server in front of this one has taken from the path, and that with the application's prefix.
        self._base = base_path
        self._root = root_path
        self._loop = loop
        # When it is cancelled, if its client has gone.
        self._grace: asyncio.TimerHandle | None = None
        self._place = HELD
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            self._timer = loop.call_later(timeout_s, self._too_late)
        # Not by a call: each request does this.
        request.on_gone = self._client_gone

    def start(self) -> None:
        try:
            self._router.submit(self)
        except ServeError as error:
            logger.info("request %s: %s", self._request.name, error)
            self.fail(error)

    # The router's side.

    @property
    def request_id(self) -> str:
        return self._request.name

    def header(self, name: bytes) -> bytes | None:
        """By its name in lower case."""
        fields = self._request.fields
        names = fields[::2]
        return fields[2 * names.index(name) + 1] if name in names else None

    def call(self) -> tuple[tuple[str, str, dict[str, str], int], dict[str, Any]]:
        """Method, path, headers by lower-case names, and bytes of the body, as far as that is here."""
        request = self._request
        names, values = request.fields[::2], request.fields[1::2]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in zip(names, values, strict=True)}
        path = request.path.decode("latin-1")
        return (request.method.decode("latin-1"), path, headers, 0 if request.streams else len(request.body)), {}

    def send(self, target: Target, grant: Grant) -> None:
        request = self._request
        if request.answer is OVER:
            self._router.released(grant)
            return
        try:
            head = pack_head(
                request.line,
                self._root,
                request.method,
                request.version,
                self._base + request.path if self._base else request.path,
                request.query,
                request.request_id,
                request.fields,
            )
        except ValueError:
            self._router.released(grant)
            self._refuse(Page(400, "malformed request", None))
            return
        self._target, self._key = target, (key := next(_keys))
        body = None if request.streams else request.body
        framing = request.framing
        if (lender := target.lender) is not None:
            framing |= lender.framing
            lender.requests[key] = self
        tag = grant.tag
        ref: ObjectRef[Any] = (
            target.http.remote_piped(self, head, body, framing, key)
            if tag is None
            else target.http_leased.remote_piped(self, tuple(tag), head, body, framing, key)
        )
        self._ref, self._grant = ref, grant
        ref.add_done_callback(partial(self._answered, target), here=True)

    def fail(self, error: BaseException) -> None:
        self._refuse(page(error))

    def stop(self, error: RequestStoppedError) -> None:
        """Its router wants its place back. A client that has some of the response sees it break off."""
        self._meet(Event.STOPPED, error)

    # The answer.

    def _answered(self, target: Target, ref: ObjectRef[Any]) -> None:
        self._ref = None
        if target.lender is not None:
            target.lender.requests.pop(self._key, None)
        if self._grace is not None:
            self._grace.cancel()
        error = ref.exception()
        if error is not None:
            self._act(state_of(True, self._request.answer), failure(error), error)
            return
        answer = ref.peek()
        grant, self._grant = self._grant, None
        if type(answer) is int:
            self._router.refused(self, target, grant, answer)
            return
        data, close = (answer, False) if type(answer) is bytes else answer
        self._done()
        self._request.respond(data, close)
        if grant is not None:
            self._router.released(grant)

    def _judge(self, error: BaseException) -> None:
        """Its router says whether it goes to another replica."""
        assert self._target is not None
        self._failures += 1
        self._place = after(self._place, PlaceEvent.REPEATED)
        repeatable = may_repeat(self._request.method, self._request.streams, self._failures)
        grant, self._grant = self._grant, None
        final = self._router.failed(self, self._target, grant, error, repeatable)
        if final is not None:
            logger.error("request %s: %s", self._request.name, final)
            self.fail(final)

    # The pipe: bytes of the response come, bytes of the request go. A replica has these only when it asks for them, so
    # that one that refuses the request has taken nothing of it.

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        request = self._request
        if request.answer is OVER:
            return
        self._taken += len(data)
        # What is made in parts comes in small ones: it is not a response that its replica would write itself.
        large = len(data) > LARGEST_WHOLE and not last
        if large and (target := self._target) is not None and target.lending is CLOSED and request.can_lend:
            _open_channel(target)  # for the next one
        if request.pass_on(data):
            self._make_room(pipe)
        else:
            request.watch_taking(partial(self._make_room, pipe), self._client_slow if self._place is HELD else None)

    def lend(self, status: bytes) -> int:
        fd = self._request.lend(status)
        if fd >= 0 and self._place is HELD:
            self._request.watch_slowness(self._client_slow)
        return fd

    def not_lent(self) -> None:
        self._request.watch_slowness(None)
        self._request.take_back()

    def _is_untouched(self) -> bool:
        """The process that the client's socket was lent to has gone, and had written nothing: others may answer."""
        lender = self._target.lender if self._target is not None else None
        return lender is not None and lender.borrower_has_gone() and self._request.take_back()

    def _make_room(self, pipe: Pipe) -> None:
        self._request.taken()
        if self._taken >= ROOM_STEP:
            taken, self._taken = self._taken, 0
            pipe.grant(taken)

    def _client_slow(self) -> None:
        """Only its client keeps this response: other requests need not wait for that, if its code has ended."""
        self._request.watch_slowness(None)
        if self._place is HELD and self._ref is not None and self._target is not None:
            self._place = after(self._place, PlaceEvent.CLIENT_SLOW)
            ended: ObjectRef[bool] = self._target.code_ended.remote(self._key)
            ended.add_done_callback(partial(self._code_ended, self._ref), here=True)

    def _code_ended(self, ref: ObjectRef[Any], ended: ObjectRef[bool]) -> None:
        if self._ref is ref and ended.exception() is None and ended.peek():
            self._place = after(self._place, PlaceEvent.CODE_ENDED)
            self._release()

    def _release(self) -> None:
        grant, self._grant = self._grant, None
        if grant is not None:
            self._router.released(grant)

    def has_room(self, pipe: Pipe) -> None:
        request = self._request
        if self._ref is not None and request.answer is not OVER:
            self._pipe = pipe
            request.watch_body(self._send_body)
            self._send_body()

    def _send_body(self) -> None:
        """Send of the body what is here and what the replica has room for."""
        request, pipe = self._request, self._pipe
        if pipe is None or request.answer is OVER:
            return
        while (room := pipe.room()) > 0:
            parts = request.take(room)
            if not parts:
                if request.ends_body():
                    pipe.write(last=True)
                return
            pipe.write(*parts)

    # Ends that nobody asked for.

    def _client_gone(self, answer: Answer) -> None:
        self._done()
        self._act(state_of(self._ref is not None, answer), Event.CLIENT_GONE)

    def _too_late(self) -> None:
        self._meet(Event.TOO_LATE)

    def _told(self, told: ObjectRef[bool]) -> None:
        heard = told.exception() is None and told.peek()
        self._meet(Event.HEARD if heard else Event.NOT_HEARD)

    def _meet(self, event: Event, error: BaseException | None = None) -> None:
        self._act(state_of(self._ref is not None, self._request.answer), event, error)

    def _act(self, state: State, event: Event, error: BaseException | None = None) -> None:
        ref, target = self._ref, self._target
        for action in actions(state, event):
            match action:
                case Action.WITHDRAW:
                    self._router.withdraw(self)
                case Action.TELL if target is not None:
                    told: ObjectRef[bool] = target.gone.remote(self._key)
                    told.add_done_callback(self._told, here=True)
                case Action.GIVE_TIME:
                    self._grace = self._loop.call_later(DISCONNECT_GRACE_S, self._meet, Event.GRACE_OVER)
                case Action.CANCEL if ref is not None:
                    cancel(ref)
                case Action.CANCEL_ALONE if ref is not None:
                    cancel(ref, recursive=False)
                case Action.RELEASE:
                    self._release()
                case Action.REFUSE:
                    self._refuse(page_after(event, error))
                case Action.CUT:
                    logger.info("a response broke off, request %s: %s", self._request.name, error or event.value)
                    self._done()
                    self._request.abort()
                case Action.TAKE_BACK:
                    self._act(state, Event.UNTOUCHED if self._is_untouched() else Event.TOUCHED, error)
                case Action.JUDGE if error is not None:
                    self._judge(error)
                case _:
                    raise AssertionError(action)

    def _refuse(self, page: Page) -> None:
        self._done()
        request = self._request
        each = b"x-request-id: %b\r\n" % request.request_id
        if page.queue_ms is not None:
            each += queue_line(page.queue_ms)
        request.respond(error_page(page.status, page.text, request.framing, each, page.retry_after_s, page.ticket))

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _open_channel(target: Target) -> None:
    """Have a channel to this replica, by which it gets its clients' sockets. It is on this machine, or gets none."""
    target.lending_begins()
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return
    try:
        with theirs:
            name = lend(theirs)
    except OSError:
        ours.close()
        return
    fetched: ObjectRef[int] = target.handle.http_fetch_channel.remote(name)
    fetched.add_done_callback(partial(_opened, target, ours), here=True)


def _opened(target: Target, channel: socket.socket, fetched: ObjectRef[int]) -> None:
    if fetched.exception() is not None or not (number := fetched.peek()):
        channel.close()
        return
    target.lends_by(Lender(channel, number, target.lending_ended))
