"""Replay a trace in virtual time against several routing policies: `python loadtests/simulate.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
