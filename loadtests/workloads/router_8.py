# pyright: basic
"""See router.py: eight children."""

from loadtests.workloads.router import main

if __name__ == "__main__":
    main(8)
