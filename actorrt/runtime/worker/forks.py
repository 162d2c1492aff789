"""What becomes of a worker's executor in a fork of its process: the child is no worker."""

from __future__ import annotations

import sys
from typing import NoReturn

from ..machine.process import run_and_exit


def leave_fork(*given: object, **_: object) -> NoReturn:
    """End a fork of this process as a program ends: with the error of its code, which is given or handled just now."""
    errors = [one for one in (*given, sys.exc_info()[1]) if isinstance(one, BaseException)]

    def main() -> None:
        if errors:
            raise errors[0]

    run_and_exit(main)
