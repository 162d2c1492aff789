"""One line's ledger over time as a picture: `python -m loadtests.simulation.ledger_picture [FILE]`.

A few requests go through the real queue to one line, in virtual time. Its engine reads one prompt after the other and
gives each that runs TOKEN_RATE tokens a second.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from actorrt.serve.capacity.ask import Ask, Refusal
from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.queue import CapacityQueue

DOCS: Final = Path(__file__).resolve().parent.parent.parent / "docs"
LINE: Final = LineId("replica")
FACTS: Final = LineFacts(kv_tokens=8_000, slots=8, prefill_rate=1_000)
TOKEN_RATE: Final = 100
STEP_S: Final = 0.05
LASTS_S: Final = 23.0
EARLIER: Final = 200


@dataclass(slots=True)
class Story:
    """A request: when it comes, its tokens, and where its answer really ends."""

    name: str
    comes_s: float
    prompt: int
    max_tokens: int
    answer: int
    number: int = 0
    unread: float = 0.0
    generated: float = 0.0


STORIES: Final = (
    Story("A", 0.0, 1_500, 900, 900),
    Story("B", 0.5, 1_000, 1_500, 350),
    Story("C", 0.6, 1_800, 700, 700),
    Story("D", 1.0, 2_500, 400, 400),
    Story("E", 1.5, 900, 800, 800),
)


@dataclass(slots=True)
class Drawn:
    """What the ledger said at each time, in seconds: by request its (prompt, generated, still expected) tokens."""

    times: list[float] = field(default_factory=list[float])
    debits: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict[str, list[tuple[int, int, int]]])
    backlog: list[int] = field(default_factory=list[int])
    waiting: list[int] = field(default_factory=list[int])
    most_backlog: float = 0.0
    fill_tokens: int = 0
    begun: dict[str, float] = field(default_factory=dict[str, float])


def drive() -> Drawn:
    stories = [replace(story) for story in STORIES]
    queue = CapacityQueue(1, 0.0)
    queue.set_line(LINE, FACTS, 1)
    line = queue.ledger.lines[LINE]
    drawn = Drawn(debits={story.name: [] for story in stories}, most_backlog=line.most_backlog)
    drawn.fill_tokens = line.fill_tokens
    for story in stories:
        # Earlier answers were as long as they may be.
        for _ in range(EARLIER):
            queue.lengths.learn(story.name, "", story.prompt, story.max_tokens)
    asks: dict[Ask, Story] = {}
    running: list[Story] = []

    def begins(story: Story, lease: Lease, now: float) -> None:
        story.number, story.unread = lease.id.number, lease.unread
        drawn.begun[story.name] = now
        running.append(story)

    for step in range(int(LASTS_S / STEP_S)):
        now = step * STEP_S
        while stories and stories[0].comes_s <= now + 1e-9:
            story = stories.pop(0)
            ask = Ask(story.name, story.prompt, story.max_tokens, arrived=now)
            if (lease := queue.submit(ask, now)) is not None:
                begins(story, lease, now)
            else:
                asks[ask] = story
        for ask, found in queue.next(now, lambda: 0.0):
            assert not isinstance(found, Refusal)
            begins(asks.pop(ask), found, now)
        leases = {story.name: queue.ledger.leases[story.number] for story in running}
        drawn.times.append(now)
        drawn.backlog.append(line.backlog)
        drawn.waiting.append(sum(ask.tokens for ask in asks))
        for name, found in drawn.debits.items():
            lease = leases.get(name)
            left = 0 if lease is None else lease.tokens - lease.prompt - lease.generated
            found.append((0, 0, 0) if lease is None else (lease.prompt, lease.generated, left))
        _run(queue, running)
    return drawn


def _run(queue: CapacityQueue, running: list[Story]) -> None:
    """One step of the engine."""
    read = FACTS.prefill_rate * STEP_S
    for story in list(running):
        if story.unread > 0:
            taken = min(read, story.unread)
            story.unread -= taken
            read -= taken
            continue
        story.generated = min(story.answer, story.generated + TOKEN_RATE * STEP_S)
        if story.generated >= story.answer:
            queue.release(story.number, story.answer, is_whole=True)
            running.remove(story)
        else:
            queue.progress(story.number, int(story.generated))


def draw(drawn: Drawn, target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"font.size": 8, "svg.hashsalt": "actorrt", "svg.fonttype": "none"})
    figure, (tokens, backlog, waiting) = plt.subplots(
        3, 1, figsize=(8, 5.4), layout="constrained", sharex=True, height_ratios=(4, 1, 1)
    )
    below: list[int] = [0] * len(drawn.times)
    for place, (name, debits) in enumerate(drawn.debits.items()):
        colour = f"C{place}"
        for part, shade, hatch in ((0, 0.9, None), (1, 0.5, None), (2, 0.12, "////")):
            top = [low + debit[part] for low, debit in zip(below, debits, strict=True)]
            tokens.fill_between(
                drawn.times, below, top, step="post", color=colour, alpha=shade, hatch=hatch, linewidth=0
            )
            if part == 0 and any(debit[0] for debit in debits):
                first = next(index for index, debit in enumerate(debits) if debit[0])
                middle = below[first] + debits[first][0] / 2
                tokens.annotate(
                    name, (drawn.times[first], middle), (3, 0), textcoords="offset points", va="center", color="white"
                )
            below = top
    for height, text in ((FACTS.kv_tokens, "K"), (drawn.fill_tokens, "0.9 K")):
        tokens.axhline(height, color="black", linewidth=0.8, linestyle="--")
        tokens.annotate(text, (drawn.times[-1], height), (2, -2), textcoords="offset points", va="top", ha="right")
    tokens.set_ylabel("tokens given (K = 8,000)")
    tokens.set_title(
        "dark: prompt; lighter: answer so far; hatched: answer still expected. B ends at 350 of 1,500 tokens",
        fontsize=8,
    )
    backlog.fill_between(drawn.times, drawn.backlog, step="post", color="#8c959f")
    backlog.axhline(drawn.most_backlog, color="black", linewidth=0.8, linestyle="--")
    backlog.set_ylabel("prompts unread\n(at most 2 s x P)")
    waiting.fill_between(drawn.times, drawn.waiting, step="post", color="#cf222e", alpha=0.6)
    waiting.set_ylabel("tokens\nthat wait")
    waiting.set_xlabel("seconds")
    for axis in (tokens, backlog, waiting):
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylim(0)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def main() -> int:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS / "ledger.png"
    draw(drive(), target)
    print(f"{target} is drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())
