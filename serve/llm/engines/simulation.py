"""When an engine with continuous batching gives which token: a model of time, without text and without a clock.

The engine works in steps. A step reads a chunk of the prompts that came in, and gives each request that has read its
prompt one token; the last chunk of a prompt gives its first token. Requests wait, in the order of their arrival, for a
slot and for room in the key-value cache. One that grows while the cache is full is preempted, the youngest first: it
gives everything back and reads its prompt and its answer again later.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from .prefix_cache import PrefixCache


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the engine is and how much it holds."""

    prefill_tokens_per_s: float
    decode_step_s: float
    decode_step_per_request_s: float
    chunk_tokens: int
    """Prompt tokens that are read in one step at most."""
    slots: int
    kv_tokens: int
    block_tokens: int


class Stage(Enum):
    NEW = auto()
    RUNNING = auto()
    """It has a slot."""
    WAITING = auto()
    """It had one, and was preempted."""
    OVER = auto()


@dataclass(slots=True, eq=False)
class Running:
    """A request inside of the engine."""

    prompt: int
    """Its tokens, at least one."""
    keys: tuple[int, ...]
    """One for each full block of the prompt: see PrefixCache."""
    generated: int = 0
    cached: int = 0
    """Prompt tokens that were not read, since the cache had them when the request first got its slot."""
    unread: int = 0
    shared: tuple[int, ...] = ()
    private: int = 0
    stage: Stage = Stage.NEW

    @property
    def has_slot(self) -> bool:
        return self.stage is Stage.RUNNING

    def take_slot(self, known: tuple[int, ...], private: int, known_tokens: int) -> None:
        """It runs from now on, with these blocks; so many of its tokens need not be read."""
        if self.stage is Stage.NEW:
            self.cached = known_tokens
        self.stage = Stage.RUNNING
        self.shared, self.private = known, private
        self.unread = self.prompt + self.generated - known_tokens

    def leave_slot(self) -> None:
        """It has nothing of the cache any more, and waits."""
        self.stage = Stage.WAITING
        self.shared, self.private = (), 0

    def end(self) -> None:
        self.stage = Stage.OVER

    def read(self, tokens: int) -> bool:
        """So much of it was read. Whether that is all."""
        self.unread -= tokens
        return not self.unread

    def get_token(self) -> int:
        """It has one more. How many tokens it has, with its prompt."""
        self.generated += 1
        return self.prompt + self.generated

    def grow(self) -> None:
        self.private += 1

    def share(self, named: tuple[int, ...]) -> None:
        """Blocks of its own have these names from now on, by which others may have them too."""
        self.shared += named
        self.private -= len(named)


@dataclass(slots=True)
class _Step:
    ends_at: float
    duration: float
    tokens: list[Running]
    read: list[tuple[Running, int]] = field(default_factory=list[tuple[Running, int]])


class Simulation:
    """Advanced from outside: `begin_step(now)`, and at `ends_at` `end_step()`. Times are seconds of any one clock."""

    def __init__(self, pace: Pace) -> None:
        blocks = pace.kv_tokens // pace.block_tokens
        if blocks < 1:
            raise ValueError(f"kv_tokens ({pace.kv_tokens}) must hold a block of {pace.block_tokens} tokens")
        self.pace: Final = pace
        self.cache: Final = PrefixCache(blocks)
        self.longest: Final = blocks * pace.block_tokens
        """Tokens of the longest request that fits alone: prompt and answer. Whoever reaches it must be finished."""
        self.waiting: deque[Running] = deque()
        self.running: list[Running] = []
        """In the order in which they got their slots."""
        self.preemptions = 0
        self.lost_s = 0.0
        """Seconds by which steps ended late because nobody asked in time: above 0 the simulation was the bottleneck."""
        self._step: _Step | None = None
        self._full: list[Running] = []
        self._ended: float | None = None

    @property
    def ends_at(self) -> float | None:
        """When the present step ends; None: there is nothing to do."""
        return None if self._step is None else self._step.ends_at

    def submit(self, request: Running) -> None:
        """It gets its slot at the next step that begins and has one."""
        if not 1 <= request.prompt < self.longest:
            raise ValueError(f"a prompt of {request.prompt} tokens does not fit: 1 to {self.longest - 1} do")
        self.waiting.append(request)

    def finish(self, request: Running, answer_keys: tuple[int, ...] = ()) -> None:
        """The request ends, with its last token or before; the keys name the full blocks that its answer filled."""
        if request.stage is Stage.OVER:
            return
        has_slot = request.has_slot
        request.end()
        if not has_slot:
            self.waiting.remove(request)
            return
        self.running.remove(request)
        named = 0
        if not request.unread and len(request.shared) == len(request.keys):
            named = self.cache.name(answer_keys[: request.private])
        self.cache.release((*request.shared, *answer_keys[:named]), request.private - named)

    def end_step(self, now: float) -> list[Running]:
        """What the step that has ended gave: these requests have one more token. Those over meanwhile are left out."""
        step, self._step = self._step, None
        if step is None:
            return []
        for request, tokens in step.read:
            if request.has_slot and request.read(tokens):
                self._name_prompt(request)
        block = self.pace.block_tokens
        given: list[Running] = []
        for request in step.tokens:
            if request.has_slot:
                if request.get_token() % block == 0:
                    self._full.append(request)
                given.append(request)
        # A timer that fires a little late does not slow the engine down; what is late by more than a step is lost.
        self._ended = step.ends_at
        if now - step.ends_at > step.duration:
            self.lost_s += now - step.ends_at
            self._ended = now
        return given

    def begin_step(self, now: float) -> None:
        """Plan the next step, unless one is under way or there is nothing to do. It follows upon the last one."""
        if self._step is not None:
            return
        start, self._ended = now if self._ended is None else self._ended, None
        self._grow()
        self._admit()
        if not self.running:
            return
        budget, read, tokens = self.pace.chunk_tokens, list[tuple[Running, int]](), list[Running]()
        decoding = 0
        for request in self.running:
            if not request.unread:
                decoding += 1
                tokens.append(request)
            elif budget:
                part = min(budget, request.unread)
                budget -= part
                read.append((request, part))
                if part == request.unread:
                    tokens.append(request)
        pace = self.pace
        duration = (pace.chunk_tokens - budget) / pace.prefill_tokens_per_s
        if decoding:
            duration += pace.decode_step_s + pace.decode_step_per_request_s * (decoding - 1)
        self._step = _Step(start + duration, duration, tokens, read)

    def _name_prompt(self, request: Running) -> None:
        new = request.keys[len(request.shared) :]
        request.share(new[: self.cache.name(new)])

    def _grow(self) -> None:
        """Each request whose last block is full gets another one, if need be from the youngest."""
        full, self._full = self._full, []
        for request in full:
            if request.has_slot and request.prompt + request.generated >= self.longest:
                raise RuntimeError(f"a request of {self.longest} tokens was not finished")
            while request.has_slot and not self.cache.take((), 1):
                self._preempt(self.running[-1])
            if request.has_slot:
                request.grow()

    def _preempt(self, request: Running) -> None:
        self.preemptions += 1
        self.running.remove(request)
        self.cache.release(request.shared, request.private)
        request.leave_slot()
        self.waiting.appendleft(request)

    def _admit(self) -> None:
        block = self.pace.block_tokens
        while self.waiting and len(self.running) < self.pace.slots:
            request = self.waiting[0]
            tokens = request.prompt + request.generated
            # The last token is always read: it is what gives the next one.
            known = request.keys[: self.cache.known(request.keys[: (tokens - 1) // block])]
            private = tokens // block + 1 - len(known)
            if not self.cache.take(known, private):
                return
            self.waiting.popleft()
            request.take_slot(known, private, len(known) * block)
            self.running.append(request)
