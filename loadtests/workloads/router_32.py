# pyright: basic
"""See router.py: 32 children."""

from loadtests.workloads.router import main

if __name__ == "__main__":
    main(32)
