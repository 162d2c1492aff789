"""An engine with continuous batching, in closed form: steps in which nothing changes are taken at once.

Its steps are those of actorrt's simulated engine (actorrt.serve.llm.engines.simulation), which takes them one by one:
tests hold that both give the same tokens at the same times. A step reads a chunk of the prompts that came in and gives
each request that has read its prompt one token; the last chunk of a prompt gives its first. Requests wait in the order
of their arrival for a slot and for room; one that grows while there is no room takes it from the youngest.

A plan is a number of steps until something happens: a prompt is read, an answer ends or has come `STEP_TOKENS` further,
or room runs out. An arrival cuts it short at the end of the step that is under way.
"""

from __future__ import annotations

import math
from collections import deque
from enum import IntEnum
from heapq import heappop, heappush
from typing import Final

from .engine_model import EngineModel
from .kv_blocks import KvBlocks
from .requests import Request

STEP_TOKENS: Final = 64
# Steps of a histogram of times: a twentieth each.
_LOG_STEP: Final = math.log(1.05)


class Heard(IntEnum):
    """What an engine says of a request."""

    FIRST = 0
    FURTHER = 1
    END = 2


class Engine:
    __slots__ = (
        "_chunk", "_growth_due", "_marks", "_mixed", "_phases", "_slope", "_step_s", "_steps_planned", "busy_s",
        "context", "decoding", "ends_at", "is_up", "kv", "kv_block_s", "model", "number", "pace", "plan", "preemptions",
        "reading", "running", "start", "steps", "token_times", "waiting",
    )  # fmt: skip

    def __init__(self, model: EngineModel, number: int = 0) -> None:
        self.model, self.number = model, number
        self.kv = KvBlocks(model.kv_tokens // model.block_tokens, model.hash_tokens // model.block_tokens)
        self.waiting: deque[Request] = deque()
        # In the order in which they got their slots.
        self.running: dict[Request, None] = {}
        self.reading: deque[Request] = deque()
        self.decoding = 0
        self.context = 0
        self.steps = 0
        # Those that decode, by when their tokens fill a block: (tokens - steps) % block_tokens.
        self._phases = [0] * model.block_tokens
        self._growth_due = False
        # (step, number of the request, its epoch, request): when it is heard of next.
        self._marks: list[tuple[int, int, int, Request]] = []
        self.is_up = True
        # How many times as long a step is as it is alone.
        self.pace = 1.0
        # The plan under way: `_steps_planned` steps from `start` on, the first of `_step_s`, each later one longer by
        # `_slope`. `_mixed`: what is read in its only step, else the first that reads has a whole chunk of each.
        self.plan = 0
        self.start = 0.0
        self.ends_at = math.inf
        self._step_s = self._slope = 0.0
        self._steps_planned = self._chunk = 0
        self._mixed: list[tuple[Request, int]] | None = None
        # Measures.
        self.preemptions = 0
        self.busy_s = self.kv_block_s = 0.0
        self.token_times: dict[int, int] = {}

    # ---- from outside

    def submit(self, request: Request, now: float) -> bool:
        """It gets its slot at the next step that begins and has one. Whether the plan ends earlier by that."""
        self.waiting.append(request)
        if not self._steps_planned or len(self.waiting) > 1 or len(self.running) >= self.model.slots:
            return False
        return self.cut(now)

    def take_back(self, request: Request) -> bool:
        """It waits for a slot here, and does not any more. False if it has one."""
        if request in self.running or request not in self.waiting:
            return False
        self.waiting.remove(request)
        return True

    def settle(self) -> list[tuple[Heard, Request]]:
        """The plan has ended. What is heard of its requests; afterwards `begin` is called."""
        steps, self._steps_planned = self._steps_planned, 0
        if not steps:
            return []
        decoding, kv = self.decoding, self.kv
        duration = self.ends_at - self.start
        self.busy_s += duration
        self.kv_block_s += kv.used * duration
        if decoding:
            bucket = math.floor(math.log(duration / steps) / _LOG_STEP) if duration else -400
            self.token_times[bucket] = self.token_times.get(bucket, 0) + steps * decoding
            if steps > 1 and (grown := self._grown(steps - 1)):
                kv.take_private(grown)
        self.steps += steps
        self.context += decoding * steps
        self._growth_due = True
        heard: list[tuple[Heard, Request]] = []
        if self._mixed is not None:
            self._read_mixed(heard)
        elif self.reading:
            self.reading[0].unread -= steps * self._chunk
        marks = self._marks
        while marks and marks[0][0] <= self.steps:
            _, _, epoch, request = heappop(marks)
            if epoch != request.epoch:
                continue
            generated = self.steps - request.base
            if generated >= request.output:
                self._finish(request)
                heard.append((Heard.END, request))
            else:
                heard.append((Heard.FURTHER, request))
                self._mark(request, generated)
        return heard

    def begin(self, now: float) -> None:
        """Plan the next steps, if there is something to do and nothing is under way."""
        if self._steps_planned or not self.is_up:
            return
        if self._growth_due:
            self._grow()
        if self.waiting:
            self._admit()
        self.plan += 1
        if not self.running:
            self.ends_at = math.inf
            return
        self.start = now
        self._plan()
        self.ends_at = self._end_of(self._steps_planned)

    def stop(self) -> list[Request]:
        """It dies. What it had, each with the tokens that it had given: the cache is gone."""
        running = [*self.running, *self.waiting]
        for request in self.running:
            if not request.is_reading:
                request.generated = self.steps - request.base
            request.epoch += 1
            request.is_reading, request.shared, request.unread = False, (), 0
        self.running.clear()
        self.waiting.clear()
        self.reading.clear()
        self._marks.clear()
        self.decoding = self.context = 0
        self._phases = [0] * self.model.block_tokens
        self._steps_planned = 0
        self._growth_due = False
        self._mixed = None
        self.kv = KvBlocks(self.kv.blocks, self.kv.per_hash)
        self.is_up = False
        self.ends_at = math.inf
        self.plan += 1
        return running

    def generated(self, request: Request) -> int:
        """Tokens that it has by the end of the last plan."""
        return request.generated if request.is_reading or request not in self.running else self.steps - request.base

    # ---- steps

    def _end_of(self, steps: int) -> float:
        return self.start + steps * self._step_s + self._slope * (steps * (steps - 1) // 2)

    def _plan(self) -> None:
        model, decoding = self.model, self.decoding
        self._mixed = None
        read = 0
        steps = 0
        if self.reading:
            unread = self.reading[0].unread
            chunk = self._chunk = model.chunk(decoding)
            if unread > chunk:
                steps = (unread - 1) // chunk
                read = chunk
            else:
                steps = 1
                budget = chunk
                self._mixed = []
                for request in self.reading:
                    part = min(budget, request.unread)
                    budget -= part
                    self._mixed.append((request, part))
                    if not budget:
                        break
                read = chunk - budget
        if decoding:
            marks = self._marks
            while marks[0][2] != marks[0][3].epoch:
                heappop(marks)
            until = marks[0][0] - self.steps
            steps = min(steps, until) if steps else until
            room = self.kv.room
            if steps > 1 and decoding * (steps // model.block_tokens + 1) > room:
                steps = self._steps_in(room, steps)
        self._step_s = self.pace * model.step_s(read, decoding, self.context)
        self._slope = self.pace * model.decode_step_per_context_token_s * decoding
        self._steps_planned = steps

    def cut(self, now: float) -> bool:
        """End the plan with the step that is under way, if there is one. Whether it ends earlier by that."""
        if not self._steps_planned:
            return False
        past = now - self.start
        if past <= 0:
            steps = 1
        elif self._slope:
            linear = self._step_s - self._slope / 2
            steps = math.ceil((math.sqrt(linear * linear + 2 * self._slope * past) - linear) / self._slope)
        else:
            steps = math.ceil(past / self._step_s) if self._step_s else 1
        steps = max(1, min(steps, self._steps_planned))
        # What rounding has done.
        while steps > 1 and self._end_of(steps - 1) >= now:
            steps -= 1
        while steps < self._steps_planned and self._end_of(steps) < now:
            steps += 1
        if steps == self._steps_planned:
            return False
        self._steps_planned = steps
        self.ends_at = self._end_of(steps)
        self.plan += 1
        return True

    def _grown(self, steps: int) -> int:
        """Blocks that are taken by what so many more steps give."""
        whole, part = divmod(steps, self.model.block_tokens)
        phases, size = self._phases, self.model.block_tokens
        # Each step fills the phase below that of the step before.
        end = -(self.steps + 1) % size + 1
        begin = end - part
        grown = sum(phases[begin:end]) if begin >= 0 else sum(phases[:end]) + sum(phases[begin:])
        return whole * self.decoding + grown

    def _steps_in(self, room: int, most: int) -> int:
        """After so many steps of `most` there is no room for what the next would need."""
        phases, size = self._phases, self.model.block_tokens
        steps = 1
        while steps < most:
            room -= phases[-(self.steps + steps) % size]
            if room < 0:
                break
            steps += 1
        return steps

    def _read_mixed(self, heard: list[tuple[Heard, Request]]) -> None:
        assert self._mixed is not None
        for request, part in self._mixed:
            request.unread -= part
            if not request.unread:
                self.reading.popleft()
                self._decodes(request)
                heard.append((Heard.FIRST if request.generated == 1 else Heard.FURTHER, request))
                if request.generated >= request.output:
                    self._finish(request)
                    heard.append((Heard.END, request))
                else:
                    self._mark(request, request.generated)
        self._mixed = None

    def _decodes(self, request: Request) -> None:
        """Its prompt is read, and it has a token by that."""
        kv = self.kv
        new = request.chain[len(request.shared) : request.prompt // self.model.hash_tokens]
        named = kv.name(new)
        request.shared += new[:named]
        request.is_reading = False
        request.generated += 1
        request.base = self.steps - request.generated
        self.decoding += 1
        self.context += request.tokens
        self._phases[(request.tokens - self.steps) % self.model.block_tokens] += 1

    def _mark(self, request: Request, generated: int) -> None:
        further = min(request.output, (generated // STEP_TOKENS + 1) * STEP_TOKENS)
        heappush(self._marks, (request.base + further, request.number, request.epoch, request))

    def _leaves(self, request: Request) -> int:
        """It runs no more. The blocks of its own that it had."""
        model = self.model
        request.epoch += 1
        own = len(request.shared) * self.kv.per_hash
        if request.is_reading:
            return request.tokens // model.block_tokens + 1 - own
        request.generated = self.steps - request.base
        self.decoding -= 1
        self.context -= request.tokens
        self._phases[(request.tokens - self.steps) % model.block_tokens] -= 1
        return -(-request.tokens // model.block_tokens) - own

    def _finish(self, request: Request) -> None:
        del self.running[request]
        private = self._leaves(request)
        kv = self.kv
        if request.answer and len(request.shared) == request.prompt // self.model.hash_tokens:
            named = kv.name(request.answer[: private // kv.per_hash])
            request.shared += request.answer[:named]
            private -= named * kv.per_hash
        kv.release(request.shared, private)

    def _grow(self) -> None:
        """Whose last block is full gets another one, if need be from the youngest."""
        self._growth_due = False
        size, kv = self.model.block_tokens, self.kv
        count = self._phases[-self.steps % size]
        if count <= kv.room:
            if count:
                kv.take_private(count)
            return
        grown: set[Request] = set()
        decoding = [request for request in self.running if not request.is_reading]
        for request in decoding:
            if (request.prompt + self.steps - request.base) % size:
                continue
            while request in self.running and not kv.room:
                youngest = next(reversed(self.running))
                self._preempt(youngest, youngest in grown)
            if request in self.running:
                kv.take_private(1)
                grown.add(request)

    def _preempt(self, request: Request, has_grown: bool) -> None:
        self.preemptions += 1
        request.preempted += 1
        del self.running[request]
        private = self._leaves(request) + has_grown
        if request.is_reading:
            self.reading.remove(request)
        self.kv.release(request.shared, private)
        request.shared, request.is_reading, request.unread = (), False, 0
        # It is read here, as all of it is gone.
        request.is_handed_over = False
        self.waiting.appendleft(request)

    def _admit(self) -> None:
        model, kv, waiting = self.model, self.kv, self.waiting
        while waiting and len(self.running) < model.slots:
            request = waiting[0]
            tokens = request.tokens
            # The last token is always read: it is what gives the next one.
            most = min(request.prompt, tokens - 1) // model.hash_tokens
            known = kv.known(request.chain, most) if request.chain else 0
            shared = request.chain[:known]
            if not kv.take(shared, tokens // model.block_tokens + 1 - known * kv.per_hash):
                return
            waiting.popleft()
            request.shared, request.is_reading = shared, True
            if request.is_handed_over:
                # It goes on from its last token.
                request.unread = 1
            else:
                request.unread = tokens - known * model.hash_tokens
                if not request.generated:
                    request.cached = known * model.hash_tokens
            self.running[request] = None
            self.reading.append(request)
