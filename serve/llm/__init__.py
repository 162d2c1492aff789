"""Language models: engines in replicas, behind a front that speaks OpenAI's and Anthropic's protocols.

Each name is loaded when it is first used.
"""

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .app import build_llm_deployment as build_llm_deployment
    from .app import build_openai_app as build_openai_app
    from .config import ApiKey as ApiKey
    from .config import BatchConfig as BatchConfig
    from .config import FrontConfig as FrontConfig
    from .config import LlamaCppEngine as LlamaCppEngine
    from .config import LLMConfig as LLMConfig
    from .config import LoraAdapter as LoraAdapter
    from .config import PrefillConfig as PrefillConfig
    from .config import ServerEngine as ServerEngine
    from .config import SimulatedEngine as SimulatedEngine
    from .config import WordLlamaEngine as WordLlamaEngine
    from .costs import ModelCost as ModelCost
    from .engines.interface import EngineCall as EngineCall
    from .status import BatchStatus as BatchStatus
    from .status import ModelStatus as ModelStatus
    from .status import batch_statuses as batch_statuses
    from .status import status as status

__all__ = [
    "build_openai_app", "build_llm_deployment",
    "LLMConfig", "LlamaCppEngine", "ServerEngine", "SimulatedEngine", "WordLlamaEngine", "LoraAdapter",
    "PrefillConfig", "FrontConfig", "BatchConfig", "ApiKey", "ModelCost", "EngineCall",
    "status", "ModelStatus", "batch_statuses", "BatchStatus",
]  # fmt: skip

_HOMES = {
    "app": ["build_llm_deployment", "build_openai_app"],
    "config": [
        "ApiKey", "BatchConfig", "FrontConfig", "LLMConfig", "LlamaCppEngine", "LoraAdapter", "PrefillConfig",
        "ServerEngine", "SimulatedEngine", "WordLlamaEngine",
    ],
    "costs": ["ModelCost"],
    "engines.interface": ["EngineCall"],
    "status": ["BatchStatus", "ModelStatus", "batch_statuses", "status"],
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
