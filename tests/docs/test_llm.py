"""docs/llm.md says of every field what the code says, and of every route that it is there.

`python tests/docs/test_llm.py` writes the tables of fields anew.
"""

import inspect
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from actorrt.serve.llm import (
    ApiKey,
    BatchConfig,
    FrontConfig,
    LlamaCppEngine,
    LLMConfig,
    LoraAdapter,
    PrefillConfig,
    ServerEngine,
    SimulatedEngine,
    WordLlamaEngine,
)
from actorrt.serve.llm.routes import _PATHS, find

PAGE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "llm.md"
SHOWN: Final[list[type[BaseModel]]] = [
    LLMConfig, PrefillConfig, LlamaCppEngine, ServerEngine, SimulatedEngine, WordLlamaEngine, LoraAdapter,
    FrontConfig, BatchConfig, ApiKey,
]  # fmt: skip


def rows(model: type[BaseModel]) -> list[str]:
    """The table of a configuration's fields: name, default, what it is."""
    return [
        f"| `{name}` | {_default(field)} | {inspect.cleandoc(field.description or '').replace(chr(10), ' ')} |"
        for name, field in model.model_fields.items()
        if name != "kind"
    ]


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    return "needed" if value is PydanticUndefined else f"`{value!r}`"


def _section(page: str, model: type[BaseModel]) -> str:
    return page.partition(f"### {model.__name__}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize("model", SHOWN)
def test_every_field_stands_on_the_page_with_its_default(model: type[BaseModel]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [line for line in _section(page, model).splitlines() if line.startswith("| `")] == rows(model)


def test_every_route_of_the_page_is_there_and_the_other_way_round() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page.partition("## Routes\n")[2].partition("\n## ")[0]
    named = [path for line in table.splitlines() if line.startswith("| `/") for path in line.split("`")[1:2]]
    for path in named:
        assert find(path.replace("{model}", "m").replace("{id}", "r")) is not None, path
    # The page to chat on is also there without its slash.
    assert set(_PATHS) - {""} <= set(named)


def _write() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for model in SHOWN:
        table = "\n".join(["", "| field | default | |", "|---|---|---|", *rows(model), ""])
        page = page.replace(f"### {model.__name__}\n{_section(page, model)}", f"### {model.__name__}\n{table}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    _write()
