"""These packages are installed by `make apps`, into an environment of its own; elsewhere nothing here is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("litestar") else ["test_*.py"]
