"""A tokenizer and an author without a model: text to numbers and back, and a next word for every text.

A token is a short word with the space before it, a part of a longer one, or a single character; its number spells its
bytes, so that every text has tokens and every token is whole characters. The next word depends on the text before it
and on nothing else: whoever goes on with a text that was broken off between two tokens gets the same words.
"""

import json
import re
from collections.abc import Sequence
from typing import Final
from zlib import crc32

_PIECE: Final = re.compile(r" ?[A-Za-z0-9]{1,5}|[\x00-\x7f]|[^\x00-\x7f]")
WORDS: Final = tuple(
    re.findall(
        rb"\w+",
        b"a about above after again air all also and any are as ask at away back be been below black book"
        b" both boy build but by call came can car city close cold come could cut day did do does done door down"
        b" draw each early earth eat end even ever every eye face fact fall far farm fast feet few field find fire"
        b" first fish five fly food foot for form four free from full gave get girl give go gold good got great"
        b" green group grow half hand hard has have he head hear heat help here high him his hold horse hot hour"
        b" house how idea if in inch is it just keep kind king know land large last late lay lead learn leave left"
        b" less let life light like line list live long look love low made main make man many map mark may me mean"
        b" men might mile mind miss moon more most move much music must my name near need never new next night no"
        b" north note now of off often oil old on once one only open or order other our out over own page paper"
        b" part pass place plain plan plant play point port power press pull put quick rain ran reach read ready"
        b" real red rest right river road rock room round rule run said same saw say sea see seem self serve set"
        b" shape she ship short show side sing sit six sleep slow small snow so some song soon sound south space"
        b" spell stand star start state stay step still stop story study such sun sure",
    )
)
SPACED: Final = tuple(b" " + word for word in WORDS)
_COUNT: Final = len(WORDS)


def pieces(text: str) -> list[str]:
    """The text in its tokens; together they are the text."""
    return _PIECE.findall(text)


def number(piece: str) -> int:
    """The token's number, below 2**53 as JavaScript needs it: a 1 and the bytes."""
    return int.from_bytes(b"\x01" + piece.encode("utf-8", "surrogatepass"), "big")


def piece(number: int) -> str:
    """What the token's number stands for. Raises ValueError for a number that is no token."""
    data = number.to_bytes((max(number, 0).bit_length() + 7) // 8, "big") if number > 0 else b""
    if len(data) > 1 and data[0] == 1:
        try:
            text = data[1:].decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            text = ""
        if _PIECE.fullmatch(text):
            return text
    raise ValueError(f"{number} is no token of the simulated engine: /tokenize gives those that are")


def text_of(numbers: Sequence[int]) -> str:
    """The text that these tokens are. Raises ValueError for a number that is no token."""
    return "".join(map(piece, numbers))


def as_json(text: str) -> bytes:
    """The text as JSON has it inside of the quotation marks."""
    return json.dumps(text)[1:-1].encode()


class Author:
    """Writes on, word by word; a chance of one in `mean_tokens` after each word that the text ends there."""

    __slots__ = ("_mean_tokens", "_spaced", "_state")

    def __init__(self, text: str, *, seed: int = 0, mean_tokens: int) -> None:
        self._state = crc32(text.encode("utf-8", "surrogatepass"), seed & 0xFFFFFFFF)
        self._spaced = text[-1:].isalnum()
        self._mean_tokens = mean_tokens

    def wants_to_end(self) -> bool:
        """Never before a word: an answer to a question is not empty."""
        return self._spaced and (self._state * 0x9E3779B1 >> 16) % self._mean_tokens == 0

    def word(self) -> bytes:
        """The next token. All are ASCII, and need no escape in JSON."""
        index = (self._state * 0x85EBCA6B >> 13) % _COUNT
        if self._spaced:
            word = SPACED[index]
        else:
            word, self._spaced = WORDS[index], True
        self._state = crc32(word, self._state)
        return word
