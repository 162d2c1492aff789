"""The `actorrt` command: what a person types in a shell. One file a group of commands.

Programs do not import this. It uses only actorrt's public names, and imports what a command needs when it runs.
"""

from .interrupts import end_by_ctrl_c


def main() -> None:
    """The console script."""
    end_by_ctrl_c()
    # Most of the time until something happens goes into this import, and somebody may think better of it meanwhile.
    from .commands import run

    run()
