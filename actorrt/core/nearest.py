"""Guess which name was meant, for the error that says a name is unknown."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, or None if none does. Case and underscores at the ends are free."""
    spelled = {each.lower().strip("_"): each for each in known}
    found = get_close_matches(name.lower().strip("_"), spelled, n=1)
    return spelled[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: `, did you mean 'x'?`, or nothing."""
    guess = nearest(name, known)
    return f", did you mean {guess!r}?" if guess else ""
