"""One choice of a simulated answer: which text each of its tokens brings, and when it ends and why."""

from collections.abc import Iterator, Sequence
from typing import Final

from .completion_bytes import Completion
from .simulated_request import Wanted
from .simulation import Running
from .word_pieces import Author, as_json, pieces

_MASK: Final = 0xFFFFFFFF


def block_keys(tokens: Sequence[str], block: int, before: int = 0) -> tuple[int, ...]:
    """A key for each full block of these tokens, which follow upon the block with the key `before`."""
    keys: list[int] = []
    for start in range(0, len(tokens) - block + 1, block):
        before = hash((before, *tokens[start : start + block]))
        keys.append(before)
    return tuple(keys)


class Prompt:
    """A prompt in tokens; all choices of it share this."""

    __slots__ = ("block", "keys", "length", "rest", "text")

    def __init__(self, text: str, block: int) -> None:
        # An engine has a token to begin with where the prompt has none.
        tokens = pieces(text) or [""]
        self.text, self.block, self.length = text, block, len(tokens)
        self.keys = block_keys(tokens, block)
        self.rest = tokens[len(self.keys) * block :]


class Choice:
    """Gives the events of each token once it is there: `next(events)`; `reason` is set with the last one."""

    __slots__ = ("_completion", "_mean_tokens", "_prompt", "_seed", "_wanted", "events", "index", "most", "reason",
                 "running", "shown", "tokens")  # fmt: skip

    def __init__(
        self, wanted: Wanted, prompt: Prompt, completion: Completion, index: int, *, most: int, mean_tokens: int
    ) -> None:
        self.running = Running(prompt.length, prompt.keys)
        self.index = index
        self.most: Final = most
        self.reason = ""
        self.shown: list[bytes] = []
        self.tokens = 0
        self._wanted, self._prompt, self._completion = wanted, prompt, completion
        self._seed = (wanted.seed + index % wanted.choices * 0x9E3779B1) & _MASK
        self._mean_tokens = mean_tokens
        self.events: Final = self._events()

    def _events(self) -> Iterator[bytes]:
        """All that is the same for each token is looked up once."""
        completion, index, shown_words = self._completion, self.index, self.shown
        before, after = completion.before_text(index), completion.after_text()
        first = completion.role(index)
        if self._wanted.echo:
            first += before + as_json(self._prompt.text) + after
        author, ends = self._author(), not self._wanted.ignore_end
        last, left = self._find_stop() if self._wanted.stop else (self.most, None)
        # Only an answer that someone else began can end without a word, or one of which none is wanted.
        if not self.most or (ends and author.wants_to_end()):
            self.reason = "stop" if self.most else "length"
            yield first + completion.end(index, self.reason)
            return
        word_of, wants_to_end = author.word, author.wants_to_end
        for token in range(1, last + 1):
            word = word_of()
            if left is not None:
                word = word[:left]
                left -= len(word)
            self.tokens = token
            if token == last:
                self.reason = "length" if left is None else "stop"
            elif ends and wants_to_end():
                self.reason = "stop"
            events = first
            first = b""
            if word:
                shown_words.append(word)
                events += before + word + after
            if self.reason:
                yield events + completion.end(index, self.reason)
                return
            yield events

    def text(self) -> str:
        """The answer as a body that is not streamed has it: with what it continues, as llama.cpp's server gives it."""
        before = self._prompt.text if self._wanted.echo else self._wanted.begun
        return before + b"".join(self.shown).decode()

    def answer_keys(self) -> tuple[int, ...]:
        """Keys of the blocks that the answer filled, for the prefix cache."""
        prompt = self._prompt
        if len(prompt.rest) + self.tokens < prompt.block:
            return ()
        answer = [word.decode() for word in self.shown]
        return block_keys(prompt.rest + answer, prompt.block, prompt.keys[-1] if prompt.keys else 0)

    def _author(self) -> Author:
        return Author(self._prompt.text, seed=self._seed, mean_tokens=self._mean_tokens)

    def _find_stop(self) -> tuple[int, int | None]:
        """Which token ends the answer, and after how many letters it does, where that is a stop string's doing.

        The text is known beforehand, so nothing must be held back.
        """
        author, text = self._author(), ""
        longest = max(map(len, self._wanted.stop))
        for token in range(1, self.most + 1):
            word = author.word().decode()
            text += word
            tail = text[-longest - len(word) :]
            if any(stop in tail for stop in self._wanted.stop):
                return token, min(at for at in map(text.find, self._wanted.stop) if at >= 0)
            if not self._wanted.ignore_end and author.wants_to_end():
                break
        return self.most, None
