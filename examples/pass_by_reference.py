"""A pipeline whose large values never pass through the program that directs it.

Each stage gets a reference; the array itself lies in shared memory, where a stage reads it without a copy.
"""

import numpy as np

import actorrt


@actorrt.remote
def make(rows: int) -> np.ndarray:
    return np.arange(rows * 1000, dtype=np.float64).reshape(rows, 1000)


@actorrt.remote
def centre(table: np.ndarray) -> np.ndarray:
    # The argument was a reference and arrives as its value: a read-only view of the shared memory.
    assert not table.flags.writeable
    return table - table.mean(axis=0)


@actorrt.remote
def largest(table: np.ndarray) -> float:
    return float(np.abs(table).max())


def main() -> None:
    with actorrt.init():
        table = make.remote(1000)  # 8 MB that this program never holds
        centred = centre.remote(table)
        print("largest distance from the mean:", actorrt.get(largest.remote(centred)))


if __name__ == "__main__":
    main()
