"""`python -m actorrt.runtime.api.start SESSION`: load what the processes of a machine need, then become them.

The garbage collector rests meanwhile: nothing of what is imported is garbage, and to look for it again and again takes
a twelfth of the time.
"""

import gc
from importlib import import_module


def main() -> None:
    gc.disable()
    launcher = import_module("actorrt.runtime.api.launcher")
    gc.enable()
    launcher.main()


if __name__ == "__main__":
    main()
