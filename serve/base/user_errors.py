"""Say what user code raised and where, without the frames of ours that lie above it."""

from __future__ import annotations

import asyncio
import dis
import os
import traceback
from types import TracebackType
from typing import Final

from actorrt.exceptions import text_of

from ..exceptions import PlainError

# Both names under which the files of this package are found: the folder itself and the link to it.
_OURS: Final = tuple({os.path.dirname(os.path.dirname(find(__file__))) for find in (os.path.abspath, os.path.realpath)})

# By which a `raise` statement raises, as against what comes from outside while code runs.
_RAISE: Final = dis.opmap["RAISE_VARARGS"]


def in_a_line(error: BaseException) -> str:
    """`ValueError: no such model (/app/models.py, line 12)`"""
    if isinstance(error, PlainError):
        return text_of(error)
    frames = traceback.extract_tb(_from_user_code(error.__traceback__))
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    text = text_of(error).strip()
    return f"{type(error).__name__}{': ' + text if text else ''}{where}"


def with_frames(error: BaseException) -> str:
    """The error with its causes, as Python prints it, from the first line of user code on."""
    try:
        told = traceback.TracebackException(type(error), error, _from_user_code(error.__traceback__))
        return "".join(told.format()).rstrip()
    except Exception:
        # The error's own code raises as one looks at it.
        return f"{type(error).__name__}: {text_of(error)}"


def _from_user_code(trace: TracebackType | None) -> TracebackType | None:
    found = trace
    while found is not None and _is_ours(found.tb_frame.f_code.co_filename):
        found = found.tb_next
    return found if found is not None else trace


def _is_ours(path: str) -> bool:
    # What calls user code in a thread is the library's, and of no interest either.
    return path.startswith(_OURS) or path.endswith(os.path.join("concurrent", "futures", "thread.py"))


def is_interrupt(error: BaseException) -> bool:
    """Whether it is Ctrl-C, which came while user code ran, and not a KeyboardInterrupt that this has raised itself."""
    return isinstance(error, KeyboardInterrupt) and not _is_raised(error)


def is_end(error: BaseException) -> bool:
    """Whether a coroutine that awaits user code is to end: its task was cancelled, or it is closed, or Ctrl-C came. The
    same errors raised by user code are as any others.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | GeneratorExit) and not _is_raised(error)


def _is_raised(error: BaseException) -> bool:
    """By a statement, in the innermost of its frames."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_lasti >= 0 and trace.tb_frame.f_code.co_code[trace.tb_lasti] == _RAISE


def exit_error(error: SystemExit) -> RuntimeError:
    """What stands for sys.exit in a request: a replica's own method that raised it would end the replica."""
    return RuntimeError(f"sys.exit({'' if error.code is None else repr(error.code)}) ends its request alone")
