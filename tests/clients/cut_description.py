"""Cut OpenAI's description of its API to our routes: `python cut_description.py openapi.yml > openai.json`.

Descriptions and examples are left out, all else is as it was. The file comes from
https://github.com/openai/openai-openapi; it needs PyYAML to be read.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

ROUTES: Final = {
    "/chat/completions": ("post",),
    "/completions": ("post",),
    "/embeddings": ("post",),
    "/models": ("get",),
    "/models/{model}": ("get",),
    "/responses": ("post",),
    "/responses/input_tokens": ("post",),
    "/responses/{response_id}": ("get", "delete"),
    "/responses/{response_id}/cancel": ("post",),
    "/responses/{response_id}/input_items": ("get",),
}
# Errors, which it describes and gives to hardly any route, and the form of a stream that a route does not name.
BESIDES: Final = ("ErrorResponse",)
_SAID: Final = frozenset({"description", "example", "examples", "title", "tags", "summary", "externalDocs"})
# Whose keys are names of the API's.
_NAMES: Final = frozenset({"properties", "schemas", "responses", "paths"})


def plain(value: Any, names: bool = False) -> Any:
    if isinstance(value, dict):
        kept = {
            name: each for name, each in value.items() if names or (name not in _SAID and not name.startswith("x-"))
        }
        return {name: plain(each, name in _NAMES and not names) for name, each in kept.items()}
    return [plain(each) for each in value] if isinstance(value, list) else value


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def cut(whole: dict[str, Any]) -> dict[str, Any]:
    paths = {path: {method: plain(whole["paths"][path][method]) for method in ROUTES[path]} for path in ROUTES}
    schemas: dict[str, Any] = {}
    reached = [*BESIDES, *references(paths)]
    while reached:
        if (name := reached.pop()) not in schemas:
            schemas[name] = plain(whole["components"]["schemas"][name])
            reached += references(schemas[name])
    info = {key: whole["info"][key] for key in ("title", "version", "license")}
    info["x-origin"] = "https://github.com/openai/openai-openapi, cut by cut_description.py"
    return {"openapi": whole["openapi"], "info": info, "paths": paths, "components": {"schemas": schemas}}


def lines(description: dict[str, Any]) -> Iterator[str]:
    """One path or schema a line, so that a newer one can be compared."""
    yield f'{{"openapi": {json.dumps(description["openapi"])},\n"info": {json.dumps(description["info"])},\n"paths": {{'
    yield ",\n".join(f"{json.dumps(path)}: {json.dumps(each)}" for path, each in description["paths"].items())
    yield '},\n"components": {"schemas": {'
    schemas = sorted(description["components"]["schemas"].items())
    yield ",\n".join(f"{json.dumps(name)}: {json.dumps(each)}" for name, each in schemas)
    yield "}}}"


if __name__ == "__main__":
    print("\n".join(lines(cut(yaml.safe_load(Path(sys.argv[1]).read_bytes())))))
