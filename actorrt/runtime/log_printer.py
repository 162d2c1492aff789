"""stub"""

import sys


class LogPrinter:
    def __call__(self, lines):
        for name, pid, err, line in lines:
            print(f"({name} pid={pid}) {line}", file=sys.stderr if err else sys.stdout)
