"""What a router has to say: nothing of it is lost or said twice, whichever threads say it while it is sent."""

from __future__ import annotations

import threading

from actorrt.serve.capacity_queue.messages import Messages, ToQueue, to_queue
from actorrt.serve.capacity_queue.outbox import Outbox


def said(written: list[bytes]) -> list[ToQueue]:
    return [to_queue.decode(message) for message in Messages().feed(b"".join(written))]


def test_nothing_is_sent_where_there_is_nothing_to_say() -> None:
    out, written = Outbox(), list[bytes]()
    out.send(1, written.append)
    assert written == []


def test_what_was_to_be_said_to_an_earlier_queue_is_not_said_to_the_next() -> None:
    out, written = Outbox(), list[bytes]()
    out.given_back.append(1)
    out.plain.append((1, 0.0))
    out.say("withdraw", 1)
    out.begin([7], ["r"])
    out.plain.append((2, 0.5))
    out.send(3, written.append)
    assert said(written) == [ToQueue(epoch=3, held=[7], full=[("r", True)], plain=[(2, 0.5)])]


def test_what_threads_say_while_others_send_is_said_once_and_no_request_after_it_is_withdrawn() -> None:
    out, written = Outbox(), list[bytes]()
    begun, ended = threading.Barrier(4), threading.Event()

    def say(first: int) -> None:
        begun.wait()
        for id in range(first, first + 2000):
            out.plain.append((id, 0.0))
            out.given_back.append(id)
            out.say("withdraw", id)

    def send() -> None:
        begun.wait()
        while not ended.is_set():
            out.send(1, written.append)

    sayers = [threading.Thread(target=say, args=(each,)) for each in (0, 10_000)]
    senders = [threading.Thread(target=send) for _ in range(2)]
    for each in [*sayers, *senders]:
        each.start()
    for each in sayers:
        each.join()
    ended.set()
    for each in senders:
        each.join()
    out.send(1, written.append)
    ids = [*range(2000), *range(10_000, 12_000)]
    asked, back, withdrawn = list[int](), list[int](), list[int]()
    for message in said(written):
        asked += [id for id, _ in message.plain]
        back += message.given_back
        withdrawn += message.withdraw
        assert set(withdrawn) <= set(asked)
    assert sorted(asked) == sorted(back) == sorted(withdrawn) == ids
