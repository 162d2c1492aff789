"""A parallel map: count the words of many files, each in a task, and take the results as they come.

python examples/parallel_files.py FOLDER [PATTERN]
"""

import sys
from collections import Counter
from pathlib import Path

import actorrt


@actorrt.remote
def count_words(path: Path) -> Counter[str]:
    return Counter(path.read_text(encoding="utf-8", errors="replace").split())


def main(folder: str, pattern: str = "*.py") -> None:
    with actorrt.init():
        waiting = [count_words.remote(path) for path in sorted(Path(folder).rglob(pattern))]
        files, total = len(waiting), Counter[str]()
        while waiting:
            ready, waiting = actorrt.wait(waiting)
            for words in actorrt.get(ready):
                total += words
    print(f"{total.total()} words in {files} files")
    for word, times in total.most_common(3):
        print(f"{times:6} {word}")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [str(Path(__file__).parent)]))
