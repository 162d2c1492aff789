"""Whether a text can be sent: Python's strings hold lone surrogates, as of an argument of a command, and UTF-8 none."""

from __future__ import annotations


def is_encodable(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
