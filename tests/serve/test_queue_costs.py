"""What a cost may say. It goes to the queue in one message with what other requests say, so nothing wrong may go."""

from typing import Any

import pytest

from actorrt.serve.capacity_queue.messages import Acquire, Messages, ToQueue, encode, to_queue
from actorrt.serve.request_router import Cost, QueueCost, QueueUse

TEXTS = ("model", "tenant", "user", "band", "session", "adapter", "ticket")
MOST = 2**53


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (5, TypeError, "must be a str, not int"),
        (None, TypeError, "must be a str, not NoneType"),
        (b"x", TypeError, "must be a str, not bytes"),
        ("\ud800", ValueError, "is not UTF-8: surrogates not allowed"),
        ("é" * 1025, ValueError, "must have at most 1024 characters, not 1025"),
    ],
)
def test_a_name_is_a_text(name: str, value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=f"^{name} of a cost {said}$"):
        QueueCost(**{name: value})


@pytest.mark.parametrize(
    ("kind", "wrong", "error", "said"),
    [
        (Cost, {"tokens": MOST + 1}, ValueError, f"tokens of a cost must be at most {MOST}, not {MOST + 1}"),
        (QueueCost, {"requests": 2**70}, ValueError, "requests of a cost must be at most"),
        (QueueCost, {"max_tokens": "5"}, TypeError, "max_tokens of a cost must be an int, not str"),
        (QueueCost, {"max_tokens": 2**70}, ValueError, "max_tokens of a cost must be at most"),
        (QueueCost, {"deadline_s": "5"}, TypeError, "deadline_s of a cost must be a number, not str"),
        (QueueCost, {"deadline_s": True}, TypeError, "deadline_s of a cost must be a number, not bool"),
        (
            QueueCost,
            {"deadline_s": float("nan")},
            ValueError,
            "deadline_s of a cost must be zero or more seconds, not nan",
        ),
        (QueueCost, {"deadline_s": 10**400}, ValueError, "deadline_s of a cost must be at most"),
        (QueueCost, {"chain": [1]}, TypeError, "chain of a cost must be a tuple of int"),
        (QueueCost, {"chain": 5}, TypeError, "chain of a cost must be a tuple of int"),
        (QueueCost, {"chain": (1, "a")}, TypeError, "chain of a cost must be a tuple of int"),
        (QueueCost, {"chain": (1, True)}, TypeError, "chain of a cost must be a tuple of int"),
        (QueueCost, {"chain": (2**64,)}, ValueError, "chain of a cost must be of numbers from 0 to"),
        (QueueCost, {"chain": (-1,)}, ValueError, "chain of a cost must be of numbers from 0 to"),
        (QueueUse, {"cached": "5"}, TypeError, "cached of a cost must be an int, not str"),
        (QueueUse, {"cached": -1}, ValueError, "cached of a cost must be zero or more, not -1"),
        (QueueUse, {"is_whole": 1}, TypeError, "is_whole of a cost must be a bool, not int"),
    ],
)
def test_a_number_is_one_that_a_message_holds(
    kind: type[Cost], wrong: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"^{said}"):
        kind(**wrong)


def test_the_largest_that_a_cost_may_be_comes_to_the_queue() -> None:
    cost = QueueCost(MOST, MOST, max_tokens=MOST, chain=(0, 2**64 - 1), **dict.fromkeys(TEXTS, "é\x00\u2028"))
    acquire = Acquire(
        1, cost.requests, cost.tokens, cost.max_tokens, cost.model, cost.tenant, cost.user, cost.band, 0.0, 1,
        cost.chain, False, cost.session, cost.adapter, cost.ticket,
    )  # fmt: skip
    (message,) = Messages().feed(encode(ToQueue(acquire=[acquire])))
    (came,) = to_queue.decode(message).acquire
    assert came == acquire
