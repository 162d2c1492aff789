"""The clocks and dice of the standard library, as code that is simulated finds them: the seed decides what they say."""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, Final

# The wall clock's time at which histories begin.
EPOCH: Final = 1_700_000_000
NANOSECONDS: Final = 1_000_000_000
# Of the machine, in the ids that name one: the bit of a group's address says that it is no real one's.
NODE: Final = 0x01_00_00_00_00_00

# What is replaced: an attribute of a module or class, and what stands there.
StandIn = tuple[Any, str, Any]


def stand_ins(monotonic: Callable[[], float], dice: Random) -> list[StandIn]:
    """What stands in the place of the system's clocks and dice. `monotonic`: virtual seconds."""
    return [*_clocks(monotonic), *_dice(dice)]


def _clocks(monotonic: Callable[[], float]) -> list[StandIn]:
    def now() -> float:
        return EPOCH + monotonic()

    def monotonic_ns() -> int:
        return round(monotonic() * NANOSECONDS)

    def now_ns() -> int:
        return EPOCH * NANOSECONDS + monotonic_ns()

    def clock(which: int) -> float:
        return now() if which == time.CLOCK_REALTIME else monotonic()

    def clock_ns(which: int) -> int:
        return now_ns() if which == time.CLOCK_REALTIME else monotonic_ns()

    def of_now(split: Callable[[float], Any], seconds: float | None = None) -> Any:
        return split(now() if seconds is None else seconds)

    localtime = partial(of_now, time.localtime)
    asctime_of, strftime_of = time.asctime, time.strftime

    def asctime(moment: Any = None) -> str:
        return asctime_of(localtime() if moment is None else moment)

    def strftime(form: str, moment: Any = None) -> str:
        return strftime_of(form, localtime() if moment is None else moment)

    return [
        (time, "time", now),
        (time, "time_ns", now_ns),
        *((time, name, monotonic) for name in ("monotonic", "perf_counter", "process_time", "thread_time")),
        *((time, f"{name}_ns", monotonic_ns) for name in ("monotonic", "perf_counter", "process_time", "thread_time")),
        (time, "clock_gettime", clock),
        (time, "clock_gettime_ns", clock_ns),
        (time, "localtime", localtime),
        (time, "gmtime", partial(of_now, time.gmtime)),
        (time, "ctime", partial(of_now, time.ctime)),
        (time, "asctime", asctime),
        (time, "strftime", strftime),
    ]


def _dice(dice: Random) -> list[StandIn]:
    seed = Random.seed

    def seeded(self: Random, a: Any = None, version: int = 2) -> None:
        seed(self, dice.getrandbits(128) if a is None else a, version)

    def getrandom(size: int, flags: int = 0) -> bytes:
        return dice.randbytes(size)

    return [
        (os, "urandom", dice.randbytes),
        (os, "getrandom", getrandom),
        # SystemRandom's, and by it that of `secrets`.
        (random, "_urandom", dice.randbytes),
        (Random, "seed", seeded),
        # That of the module's own dice, bound when it was imported.
        (random, "seed", partial(seeded, getattr(random.seed, "__self__"))),  # noqa: B009
        # uuid1 asks neither the system nor what it gave before.
        (uuid, "_generate_time_safe", None),
        (uuid, "_node", NODE),
        *((uuid, name, None) for name in vars(uuid) if name.startswith("_last_timestamp")),
    ]
