"""Prefill and decode on separate replicas: lines that read prompts, beside the queue's own lines, which answer.

A request has a lease of one number on two lines of one revision. The one that reads holds its prompt until that was
handed over, at the first token at the latest; the one that answers holds prompt and answer to the end, and has nothing
to read. What lies where (prefixes, sessions, adapters) is a matter of the lines that read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from .adapters import Adapters
from .ask import Ask
from .ledger import Lease, Ledger, Line, Placed
from .need import Limits, LineFacts, LineId, Need
from .prefix_index import MOST_HITS, PrefixIndex
from .sessions import Sessions
from .share import Share


class Prefill:
    def __init__(
        self, answers: Ledger, prefixes: PrefixIndex[LineId], sessions: Sessions, adapters: Adapters, limits: Limits
    ) -> None:
        """`answers`: the ledger of the lines that answer."""
        self._answers = answers
        self._prefixes, self._sessions, self._adapters = prefixes, sessions, adapters
        self.limits = limits
        # Those that read, by revision; and those that answer.
        self._ledgers: dict[str, Ledger] = {}
        self._revisions: dict[LineId, str] = {}
        self._answering: dict[str, dict[LineId, None]] = {}
        self._leases: dict[int, Ledger] = {}
        # The line that is kept for one that waits.
        self._kept: tuple[Ask, Line, Ledger] | None = None

    # ---- lines

    def set_limits(self, limits: Limits) -> None:
        """How full lines that come, or offer something else, may get from now on."""
        self.limits = limits

    def set_line(self, id: LineId, facts: LineFacts, incarnation: int, revision: str) -> None:
        """A line reads, for those of its revision, or offers something else. In another one it is another line."""
        before = self.line(id)
        if before is not None and (before.incarnation != incarnation or self._revisions[id] != revision):
            self.drop_line(id)
        ledger = self._ledgers.get(revision)
        if ledger is None:
            ledger = self._ledgers[revision] = Ledger(self._answers.epoch, self.limits)
        self._revisions[id] = revision
        ledger.set_limits(self.limits)
        ledger.set_line(id, facts, incarnation)

    def drop_line(self, id: LineId) -> list[int]:
        """One that reads has ended. The leases whose prompts it had not handed over."""
        revision = self._revisions.pop(id, None)
        if revision is None:
            return []
        if self._kept is not None and self._kept[1].id == id:
            self._kept = None
        self._prefixes.drop(id)
        self._adapters.drop(id)
        ledger = self._ledgers[revision]
        ended = [lease.number for lease in ledger.drop_line(id)]
        for number in ended:
            del self._leases[number]
        if not ledger.lines:
            del self._ledgers[revision]
        return ended

    def answers_in(self, id: LineId, revision: str) -> None:
        """A line that answers is of this revision."""
        self.answers_no_more(id)
        self._answering.setdefault(revision, {})[id] = None

    def answers_no_more(self, id: LineId) -> None:
        for revision, lines in list(self._answering.items()):
            lines.pop(id, None)
            if not lines:
                del self._answering[revision]

    def line(self, id: LineId) -> Line | None:
        revision = self._revisions.get(id)
        return None if revision is None else self._ledgers[revision].lines[id]

    def lines(self) -> Iterator[Line]:
        for ledger in self._ledgers.values():
            yield from ledger.lines.values()

    @property
    def most_tokens(self) -> int:
        """The longest prompt that some line can ever hold; 0 without lines."""
        return max((ledger.most_tokens for ledger in self._ledgers.values()), default=0)

    @property
    def fastest(self) -> float:
        return max((ledger.fastest for ledger in self._ledgers.values()), default=1.0)

    def take_gained(self) -> bool:
        """Whether some that read may have more room than when this was last asked."""
        gained = [ledger.take_gained() for ledger in self._ledgers.values()]
        return any(gained)

    # ---- requests

    def find(
        self, ask: Ask, kept: Line | None, share: Share, chance: float, among: Collection[Line] | None = None
    ) -> tuple[Placed, Placed] | None:
        """Where it is read, and where it is answered: of all revisions the one where it is read soonest. `kept`: the
        line that is kept for it, of those that answer; `among`: the only ones of these to be looked at.
        """
        best: tuple[int, Placed, Placed] | None = None
        for revision, ledger in self._ledgers.items():
            if (reads := self._reads(ask, ledger, share, chance)) is None:
                continue
            if (answers := self._answer(ask, revision, kept, share, chance, among)) is None:
                continue
            busy = (reads.line.backlog + reads.uncached + 1) * (reads.line.at_work + 1)
            if best is None or busy < best[0]:
                best = busy, reads, answers
        return None if best is None else best[1:]

    def _answer(
        self, ask: Ask, revision: str, kept: Line | None, share: Share, chance: float, among: Collection[Line] | None
    ) -> Placed | None:
        there = self._answering.get(revision)
        if there is None:
            return None
        if kept is not None and kept.id in there and kept.has_room(ask.tokens, share):
            return Placed(kept, 0)
        if len(there) < len(self._answers.lines):
            # While one revision follows another, or some have not said theirs, they are looked at one by one.
            lines = self._answers.lines.values() if among is None else among
            among = [line for line in lines if line.id in there]
        found = self._answers.find(Need(0, ask.tokens), (), share, chance, among)
        return None if found is None else Placed(found.line, 0)

    def _reads(self, ask: Ask, ledger: Ledger, share: Share, chance: float) -> Placed | None:
        lines, prompt = ledger.lines, ask.prompt
        if self._kept is not None and self._kept[0] is ask:
            kept = self._kept[1]
            if self._kept[2] is ledger and kept.has_room(prompt, share):
                return Placed(kept, self._unread(ask, kept))
        found = [(lines[id], there) for id, there in self._prefixes.hits(ask.chain) if id in lines] if ask.chain else []
        if ask.session and (stays := self._of_session(ask, ledger, share)) is not None:
            return Placed(stays, self._unread(ask, stays))
        if ask.adapter and ask.load:
            saved = dict(found)
            for id in self._adapters.lines(ask.adapter):
                if (line := lines.get(id)) is not None:
                    saved[line] = saved.get(line, 0) + ask.load
            found = list(saved.items())
        placed = ledger.find(Need(prompt, 0), found, share, chance, None, ask.load)
        if placed is not None and len(found) >= MOST_HITS and placed.uncached >= prompt:
            return placed._replace(uncached=self._unread(ask, placed.line))
        return placed

    def _unread(self, ask: Ask, line: Line) -> int:
        return max(0, ask.prompt - self._prefixes.held(line.id, ask.chain)) if ask.chain else ask.prompt

    def _of_session(self, ask: Ask, ledger: Ledger, share: Share) -> Line | None:
        """Where its last turn was read, as long as that has not too much to read, and has not lost it."""
        id = self._sessions.line_of(ask.session)
        line = None if id is None else ledger.lines.get(id)
        if line is None or line.backlog > line.stays_backlog or not line.admits(ask.prompt, share):
            return None
        lost = ask.chain and self._sessions.has_blocks(ask.session) and not self._prefixes.held(line.id, ask.chain)
        return None if lost else line

    def admit(self, reads: tuple[Line, int, int], ask: Ask, lease: Lease) -> Lease:
        """The part of a lease where its prompt is read. Raises ValueError where that line does not admit it."""
        line, uncached, saved = reads
        ledger = self._ledgers[self._revisions[line.id]]
        if not (line.admits(ask.prompt, saved=saved) or (self._is_kept(ask, line) and line.has_room(ask.prompt))):
            raise ValueError(f"{line.id} does not admit a prompt of {ask.prompt} tokens")
        return self._have(ledger, line.id, lease.number, ask, uncached)

    def _is_kept(self, ask: Ask, line: Line) -> bool:
        return self._kept is not None and self._kept[0] is ask and self._kept[1] is line

    def _have(self, ledger: Ledger, id: LineId, number: int, ask: Ask, unread: int) -> Lease:
        lease = ledger.adopt(id, number, ask.router, Need(ask.prompt, 0), 0, unread)
        assert lease is not None
        self._leases[number] = ledger
        return lease

    def adopt(self, id: LineId, number: int, ask: Ask) -> bool:
        """A line says that it reads for a lease that another epoch gave. False if that is known."""
        revision = self._revisions.get(id)
        if revision is None or number in self._leases:
            return False
        self._have(self._ledgers[revision], id, number, ask, 0)
        return True

    def lease(self, number: int) -> Lease | None:
        """The part of a lease where its prompt is read, until it is handed over."""
        ledger = self._leases.get(number)
        return None if ledger is None else ledger.leases[number]

    def release(self, number: int) -> bool:
        """Its prompt is handed over, or nobody wants it any more. False if that is known."""
        ledger = self._leases.pop(number, None)
        if ledger is None:
            return False
        ledger.release(number)
        return True

    def unwanted(self, number: int) -> None:
        """Nobody waits for its prompt any more. A line that has begun to read it has it until it says so."""
        ledger = self._leases.get(number)
        if ledger is not None and not ledger.leases[number].has_begun:
            self.release(number)

    # ---- the line that is kept

    def keep_for(self, ask: Ask, kept: Line | None, share: Share) -> bool:
        """It fits nowhere, and others would pass: keep the line that can read it soonest, unless some can now. Whether
        it has no room among those that answer either.
        """
        pairs = [(revision, ledger) for revision, ledger in self._ledgers.items() if revision in self._answering]
        answered = [each for each in pairs if self._answer(ask, each[0], kept, share, 0.0, None) is not None]
        if self._kept is not None and self._kept[0] is not ask:
            self.let_go()
        # One of another revision than can answer it is of no use.
        ledgers = [ledger for _, ledger in answered or pairs]
        if self._kept is None and all(self._reads(ask, ledger, share, 0.0) is None for ledger in ledgers):
            soonest = [(ledger.soonest(ask.prompt), ledger) for ledger in ledgers]
            able = [(line, ledger) for line, ledger in soonest if line is not None]
            if able:
                line, ledger = max(able, key=lambda each: each[0].spare)
                self._kept = ask, line, ledger
                ledger.keep_line(line.id, True)
        return not answered

    def let_go(self, ask: Ask | None = None) -> bool:
        """Of the line that is kept, or only if it is for this one. Whether one was."""
        if self._kept is None or (ask is not None and self._kept[0] is not ask):
            return False
        _, line, ledger = self._kept
        self._kept = None
        ledger.keep_line(line.id, False)
        return True

    @property
    def kept_for(self) -> Ask | None:
        return None if self._kept is None else self._kept[0]

    def why(self, ask: Ask) -> str | None:
        """What it waits for where prompts are read; None if it could be read now."""
        pairs = [ledger for revision, ledger in self._ledgers.items() if revision in self._answering]
        if not pairs:
            return "no replica reads prompts for those that answer: of their revision there is none"
        if self._kept is not None and self._kept[0] is ask:
            kept = self._kept[1]
            if ask.prompt > kept.room:
                at = f"replica {kept.id.replica}, kept to read it, has room for {max(0, kept.room)}"
                return f"its prompt has {ask.prompt} tokens, and {at}"
            return None
        room = max(ledger.largest_room for ledger in pairs)
        if room < 0:
            return "at every replica that reads prompts no slot is free, or others wait there to be read"
        if ask.prompt > room:
            return f"its prompt has {ask.prompt} tokens, and no replica that reads has room for more than {room}"
        return None
