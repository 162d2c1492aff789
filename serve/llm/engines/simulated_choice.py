"""One choice of a simulated answer: which text each of its tokens brings, and when it ends and why."""

from collections.abc import Sequence
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
    """Asked for each token once it is there (`token`); `reason` is set with the last one."""

    __slots__ = (
        "_after", "_author", "_before", "_completion", "_last", "_prompt", "_visible", "_wanted", "index", "most",
        "reason", "running", "shown", "tokens",
    )  # fmt: skip

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
        seed = (wanted.seed + index % wanted.choices * 0x9E3779B1) & _MASK
        self._author = Author(prompt.text, seed=seed, mean_tokens=mean_tokens)
        self._before, self._after = completion.before_text(index), completion.after_text()
        self._last, self._visible = most, -1
        if wanted.stop:
            self._find_stop(Author(prompt.text, seed=seed, mean_tokens=mean_tokens))

    def first_events(self) -> bytes:
        """What a stream gives with its first token, before it."""
        role = self._completion.role(self.index)
        return role + self._before + as_json(self._prompt.text) + self._after if self._wanted.echo else role

    def token(self) -> bytes:
        """The events of the next token, with those of the end once it is the last one."""
        author, ignore_end = self._author, self._wanted.ignore_end
        # Only an answer that someone else began can end without a word.
        if not self.tokens and not ignore_end and author.wants_to_end():
            self.reason = "stop"
            return self._completion.end(self.index, "stop")
        word = author.word()
        self.tokens += 1
        if self._visible >= 0:
            shown = word[: self._visible]
            self._visible -= len(shown)
        else:
            shown = word
        if self.tokens >= self._last:
            self.reason = "stop" if self._visible >= 0 else "length"
        elif not ignore_end and author.wants_to_end():
            self.reason = "stop"
        if shown:
            self.shown.append(shown)
            shown = self._before + shown + self._after
        return shown + self._completion.end(self.index, self.reason) if self.reason else shown

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

    def _find_stop(self, author: Author) -> None:
        """The text is known beforehand, so nothing must be held back: find the token that ends it, and where."""
        text = ""
        longest = max(map(len, self._wanted.stop))
        for token in range(1, self.most + 1):
            word = author.word().decode()
            text += word
            tail = text[-longest - len(word) :]
            if any(stop in tail for stop in self._wanted.stop):
                self._last = token
                self._visible = min(at for at in map(text.find, self._wanted.stop) if at >= 0)
                return
            if not self._wanted.ignore_end and author.wants_to_end():
                return
