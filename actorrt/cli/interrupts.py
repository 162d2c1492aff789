"""What Ctrl-C does to the command: it ends with a line, and the status that shells know, never with a traceback.

Imports next to nothing: until `end_by_ctrl_c` has been called, Python itself says what it thinks of Ctrl-C.
"""

from __future__ import annotations

import os
from importlib import import_module

# As `typing.TYPE_CHECKING`, without the import.
TYPE_CHECKING = False

if TYPE_CHECKING:
    import signal
else:
    # Built in. What `signal` puts around it, enumerations, takes as long to import as all that comes before.
    signal = import_module("_signal")

# What a shell reports for a program that a signal has ended is this and the signal's number.
BY_SIGNAL = 128
INTERRUPTED = "interrupted"


def end_by_ctrl_c() -> None:
    """From now on Ctrl-C ends the process. The node of a session watches it and ends what it has begun there.

    Where somebody has it ignored, as a shell does for what it starts in the background, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, _: object) -> None:
    end_now(number, INTERRUPTED)


def end_now(number: int, why: str) -> None:
    """Say why, and end by this signal. Nothing is cleaned up; a terminal gets back the cursor that a spinner hid."""
    clear = "\r\x1b[2K\x1b[?25h" if os.isatty(2) else ""
    try:
        os.write(2, f"{clear}actorrt: {why}\n".encode())
    finally:  # also where nobody can read it any more
        os._exit(BY_SIGNAL + number)
