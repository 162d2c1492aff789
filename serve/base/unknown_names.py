"""What is said of an option that nobody knows, with the known one that its author may have meant."""

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, known: Iterable[str], not_yet: Iterable[str] = ()) -> str:
    if name in not_yet:
        return f"{what} {name!r} is not supported yet"
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return f"unknown {what} {name!r}; did you mean {near[0]!r}?"
