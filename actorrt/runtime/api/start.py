"""`python -m actorrt.runtime.api.start SESSION`: load what the processes of a machine need, then become them.

The garbage collector looks less often meanwhile: little of what is imported is garbage, and to look for it every few
hundred objects takes a twelfth of the time. It does look, since what is left lies between what lives, on pages that
each process would have to copy.
"""

import gc
from importlib import import_module
from typing import Final

_OBJECTS_BETWEEN: Final = 10_000


def main() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(_OBJECTS_BETWEEN)
    launcher = import_module("actorrt.runtime.api.launcher")
    gc.set_threshold(*usual)
    launcher.main()


if __name__ == "__main__":
    main()
