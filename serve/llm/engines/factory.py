"""Make the engine that a configuration asks for. What it needs is imported as it starts, and not before."""

from importlib import import_module
from typing import Any, Final

from ..config import LLMConfig
from .interface import Engine

# By kind: module and class.
_ENGINES: Final = {
    "llamacpp": ("llamacpp", "LlamaCpp"),
    "server": ("server", "Server"),
    "simulated": ("simulated", "Simulated"),
    "wordllama": ("wordllama", "WordLlama"),
}


def make_engine(config: LLMConfig) -> Engine:
    """An engine that was not started yet. The adapters of the configuration are for its owner to load."""
    module, name = _ENGINES[config.engine.kind]
    made: Any = getattr(import_module(f".{module}", __package__), name)
    if config.engine.kind in ("llamacpp", "server"):
        return made(config, config.engine)
    return made(config.engine)
