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

from actorrt import ObjectRef, Pipe, cancel, exceptions

from ..exceptions import RequestRouterError, RequestStoppedError, ServeError
from ..http.incoming import DISCONNECT_GRACE_S
from ..http.listener import lend
from ..http.loan import Lender
from ..http.request_head import pack_head
from ..http.responses import LARGEST_WHOLE, error_page, queue_line
from ..http.unavailable import RETRY_AFTER_S, answer_to, client_text
from ..policies.policy import ONE_REQUEST, Cost, Grant
from ..routing.lending import Lending
from ..routing.router import Router
from ..routing.target import Target
from .http_request import OVER, HttpRequest
from .place import Place, PlaceEvent, after

logger = logging.getLogger("actorrt.serve.proxy")

# Above all that a proxy before this one has given.
_keys: Final = itertools.count(random.SystemRandom().getrandbits(62))

# Python looks up the members of an enum slowly, and each request asks for these.
HELD: Final = Place.HELD
FREED: Final = Place.FREED
CLOSED: Final = Lending.CLOSED

# A request that changes nothing by its meaning (RFC 9110, 9.2.1) goes to another replica if its own has died before it
# answered: so often, since the request itself may be what a replica dies of.
SAFE_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})
REPEATS: Final = 2

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
    _grant: Grant
    _repeats_left = 0
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
        if not request.streams and request.method in SAFE_METHODS:
            self._repeats_left = REPEATS
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
        connection = request.connection
        if connection is None or request.answer is OVER:
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
            self._refuse(400, "malformed request")
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
        self._ref = ref
        ref.add_done_callback(partial(self._answered, target, grant), here=True)
        self._grant = grant

    def fail(self, error: Exception) -> None:
        if (found := answer_to(error)) is not None:
            self._refuse(*found)
        elif isinstance(error, exceptions.ActorrtError) and not isinstance(
            error, exceptions.TaskError | RequestRouterError
        ):
            # Not the application's own: a process, or all of the session, has come to its end under the request.
            self._refuse(503, client_text(error), RETRY_AFTER_S)
        else:
            self._refuse(500, "Internal Server Error")

    def stop(self, error: RequestStoppedError) -> None:
        """Its router wants its place back. A client that has some of the response sees it break off."""
        if self._ref is None or self._request.answer is OVER:
            return
        self._cancel()
        if self._request.is_begun:
            self._done()
            self._request.abort()
        else:
            self.fail(error)

    # The answer.

    def _answered(self, target: Target, grant: Grant, ref: ObjectRef[Any]) -> None:
        if self._ref is not ref:
            return
        self._ref = None
        if target.lender is not None:
            target.lender.requests.pop(self._key, None)
        if self._grace is not None:
            self._grace.cancel()
        error = ref.exception()
        if error is not None:
            self._failed(target, grant, error)
            return
        answer = ref.peek()
        if type(answer) is bytes:
            self._done()
            self._request.respond(answer)
            if self._place is not FREED:
                self._router.released(grant)
        elif type(answer) is int:
            self._router.refused(self, target, grant, answer)
        else:
            first, close = answer
            self._done()
            self._request.respond(first, close)
            self._release(grant)

    def _failed(self, target: Target, grant: Grant, error: BaseException) -> None:
        if (
            isinstance(error, exceptions.TaskCancelledError)
            or self._request.answer is OVER
            or self._request.connection is None
        ):
            self._release(grant)
            self._refuse(503, "the request was cancelled")
            return
        if self._request.is_begun and not self._take_back(target):
            # Part of the response has reached the client: the rest cannot come from another replica.
            logger.info("a response broke off, request %s: %s", self._request.name, error)
            self._release(grant)
            self._done()
            self._request.abort()
            return
        # Nothing of an answer has reached the client, who could not tell a repetition from a slow answer.
        self._repeats_left -= 1
        freed = self._place is FREED
        self._place = after(self._place, PlaceEvent.REPEATED)
        final = self._router.failed(self, target, None if freed else grant, error, self._repeats_left >= 0)
        if final is not None:
            logger.error("request %s: %s", self._request.name, final)
            self.fail(final if isinstance(final, Exception) else RuntimeError(str(final)))

    # The pipe: bytes of the response come, bytes of the request go. A replica has these only when it asks for them, so
    # that one that refuses the request has taken nothing of it.

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        request = self._request
        if request.answer is OVER or request.connection is None:
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

    def _take_back(self, target: Target) -> bool:
        return target.lender is not None and target.lender.borrower_has_gone() and self._request.take_back()

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
            self._router.released(self._grant)

    def _release(self, grant: Grant) -> None:
        if self._place is not FREED:
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

    def _client_gone(self) -> None:
        self._cancel()
        self._done()

    def _too_late(self) -> None:
        self._timer = None
        self._cancel()
        if self._request.is_begun:
            self._request.abort()
        else:
            self._refuse(408, "the request took too long")

    def _cancel(self) -> None:
        if self._router.withdraw(self):
            return
        if self._ref is not None and self._request.is_begun:
            # The response has begun: the replica tells its code, and gives it time.
            cancel(self._ref, recursive=False)
        elif self._ref is not None and self._target is not None:
            told: ObjectRef[bool] = self._target.gone.remote(self._key)
            told.add_done_callback(partial(self._told, self._ref), here=True)

    def _told(self, ref: ObjectRef[Any], told: ObjectRef[bool]) -> None:
        """The replica knows that nobody waits any more. What runs there may end by itself, if it listens for that."""
        if self._ref is not ref:
            return
        if told.exception() is None and told.peek():
            self._grace = self._loop.call_later(DISCONNECT_GRACE_S, self._cut, ref)
        else:
            cancel(ref)

    def _cut(self, ref: ObjectRef[Any]) -> None:
        if self._ref is ref:
            cancel(ref)

    def _refuse(
        self,
        status: int,
        text: str,
        retry_after_s: float | None = None,
        ticket: str = "",
        queue_ms: int | None = None,
    ) -> None:
        self._done()
        request = self._request
        each = b"x-request-id: %b\r\n" % request.request_id
        if queue_ms is not None:
            each += queue_line(queue_ms)
        request.respond(error_page(status, text, request.framing, each, retry_after_s, ticket))

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
