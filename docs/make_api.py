"""Write docs/api.md, the API reference, from the docstrings: `make reference`.

griffe reads the sources; nothing is imported. The page has each public name once, under the path that users import.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import griffe

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "api.md"
# Modules without `__all__` are public by all names that have no underscore in front and are defined there.
MODULES: Final = (
    ("actorrt", "Sessions, tasks, actors, objects. A function may be called from any thread unless it says otherwise."),
    ("actorrt.exceptions", ""),
    ("actorrt.util", ""),
    ("actorrt.util.state", ""),
    ("actorrt.util.scheduling_strategies", ""),
    ("actorrt.testing", ""),
    ("actorrt.serve", ""),
    ("actorrt.serve.exceptions", ""),
    ("actorrt.serve.request_router", ""),
    ("actorrt.serve.llm", ""),
)  # fmt: skip
# Decorators are protocols with overloads to a type checker; their docstrings are there.
DOCUMENTED_BY: Final = {
    "actorrt.remote": "runtime.api.remote._Remote",
    "actorrt.method": "runtime.api.methods._Method",
}
OPTIONS: Final = "runtime.base.option_arguments"
WIDTH: Final = 100

HEAD: Final = """# API reference

Made from the docstrings by `make reference`; do not edit this page. What is promised beyond a single name is in
[semantics.md](semantics.md), the terms are in [glossary.md](glossary.md). Times are seconds.

"""


def load() -> griffe.Module:
    package = griffe.load("actorrt", search_paths=[ROOT], allow_inspection=False, resolve_aliases=True)
    assert isinstance(package, griffe.Module)
    return package


def public_names(module: griffe.Module) -> list[str]:
    if module.exports is not None:
        return [str(name) for name in module.exports]
    return [
        name
        for name, member in module.members.items()
        if not name.startswith("_") and not member.is_alias and (member.is_class or member.is_function)
    ]


def _text(thing: griffe.Object) -> str:
    return thing.docstring.value.strip() if thing.docstring else ""


def _parameters(function: griffe.Function) -> list[str]:
    """As they are written, without `self` and `cls`."""
    written: list[str] = []
    kinds = griffe.ParameterKind
    in_keywords = False
    parameters = list(function.parameters)
    if function.parent is not None and function.parent.is_class and "staticmethod" not in function.labels:
        parameters = parameters[1:]
    for index, each in enumerate(parameters):
        if each.kind is kinds.keyword_only and not in_keywords:
            in_keywords = True
            written.append("*")
        star = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(each.kind or kinds.positional_or_keyword, "")
        in_keywords = in_keywords or each.kind is kinds.var_positional
        kind = f": {each.annotation}" if each.annotation is not None else ""
        default = "" if star or each.default is None else (f" = {each.default}" if kind else f"={each.default}")
        written.append(f"{star}{each.name}{kind}{default}")
        after = parameters[index + 1] if index + 1 < len(parameters) else None
        if each.kind is kinds.positional_only and (after is None or after.kind is not kinds.positional_only):
            written.append("/")
    return written


def _signature(function: griffe.Function, name: str) -> str:
    returns = f" -> {function.returns}" if function.returns is not None and name != "__init__" else ""
    if "property" in function.labels:
        return f"{name}{returns.replace(' -> ', ': ', 1)}"
    before = "async def" if "async" in function.labels else "def"
    written = _parameters(function)
    line = f"{before} {name}({', '.join(written)}){returns}"
    if len(line) <= WIDTH:
        return line
    return f"{before} {name}(\n    " + ",\n    ".join(written) + f",\n){returns}"


def _function(function: griffe.Function, name: str) -> str:
    shown = [_signature(each, name) for each in function.overloads or ()] or [_signature(function, name)]
    return "\n".join(shown)


def _default(field: griffe.Attribute) -> str:
    if field.value is None:
        return ""
    value = str(field.value)
    if found := re.search(r"\bdefault=(.+?)(, [a-z_]+=|\)$)", value):
        value = found[1]
    elif value.startswith(("Field(", "field(")):
        made = re.search(r"default_factory=(\w+)", value)
        value = f"{made[1]}()" if made else ""
    return f" = {value}" if value else ""


def _class(thing: griffe.Class, path: str) -> Iterator[str]:
    bases = ", ".join(
        str(base).rpartition(".")[2] for base in thing.bases if not str(base).split(".")[-1].startswith("_")
    )
    yield f"```py\nclass {path.rpartition('.')[2]}{f'({bases})' if bases else ''}\n```\n"
    if text := _text(thing):
        yield text + "\n"
    yield from _fields(thing)
    for name, each in thing.members.items():
        if each.is_alias:
            continue
        if isinstance(each, griffe.Function) and not name.startswith("_") and (_text(each) or each.overloads):
            yield f"```py\n{_function(each, name)}\n```\n"
            yield _text(each) + "\n"
        elif (
            isinstance(each, griffe.Attribute)
            and "property" in each.labels
            and not name.startswith("_")
            and _text(each)
        ):
            yield f"```py\n{name}: {each.annotation}\n```\n"
            yield _text(each) + "\n"


def _fields(thing: griffe.Class) -> Iterator[str]:
    fields = [
        each
        for name, each in thing.members.items()
        if isinstance(each, griffe.Attribute) and not name.startswith("_")
        and each.annotation is not None and "property" not in each.labels
    ]  # fmt: skip
    if fields:
        yield "| field | |\n|---|---|"
        for each in fields:
            words = " ".join(_text(each).split()).replace("|", "\\|")
            written = f"{each.name}: {each.annotation}{_default(each)}".replace("|", "\\|")
            yield f"| `{written}` | {words} |"
        yield ""


def _options(package: griffe.Module) -> Iterator[str]:
    yield "### Options of `remote`, `method` and `.options`\n"
    for thing in package[OPTIONS].members.values():
        if isinstance(thing, griffe.Class):
            yield _text(thing) + "\n"
            yield from _fields(thing)


def page() -> str:
    package = load()
    parts = [HEAD]
    for path, words in MODULES:
        module = package[path.partition(".")[2]] if "." in path else package
        assert isinstance(module, griffe.Module)
        parts.append(f"## `{path}`\n")
        parts.append((words or _text(module)) + "\n")
        for name in public_names(module):
            try:
                thing = module.members[name]
                if thing.is_module and name in thing.members:
                    # A function that its module is named after.
                    thing = thing.members[name]
                thing = thing.final_target if isinstance(thing, griffe.Alias) else thing
            except griffe.AliasResolutionError as error:
                parts.append(f"### `{path}.{name}`\n\nPython's own `{error.alias.target_path}`.\n")
                continue
            if thing.is_module:
                continue
            parts.append(f"### `{path}.{name}`\n")
            if isinstance(thing, griffe.Function):
                said = package[DOCUMENTED_BY[f"{path}.{name}"]] if f"{path}.{name}" in DOCUMENTED_BY else thing
                parts.append(f"```py\n{_function(thing, name)}\n```\n\n{_text(said)}\n")
            elif isinstance(thing, griffe.Class):
                parts.extend(_class(thing, f"{path}.{name}"))
            else:
                parts.append(_text(thing) + "\n")
        if path == "actorrt":
            parts.extend(_options(package))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(
        f"docs/api.md: {sum(line.startswith('### ') for line in PAGE.read_text(encoding='utf-8').splitlines())} names"
    )
