"""Who may import whom: the rules of docs/architecture.md, read from the source without importing it.

A rule here is never loosened to let a change pass; a name that a layer misses is moved or made public.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from actorrt import util

ROOT: Final = Path(__file__).resolve().parent.parent
BASE: Final = frozenset({"actorrt.exceptions", "actorrt.types", "actorrt.config"})
# What a decision must not do: wait, look at a clock, roll dice, or touch the machine. These come in as arguments.
IMPURE: Final = frozenset(
    {"asyncio", "socket", "time", "random", "os", "threading", "subprocess"}
    | {"uvloop", "aiohttp", "uvicorn", "select", "selectors", "signal", "multiprocessing", "concurrent", "secrets"}
    | {"pathlib", "shutil", "tempfile", "glob", "fcntl", "mmap", "queue"}
)
# The same by a name that needs no import, or from a module that has pure names too.
IMPURE_CALLS: Final = frozenset(
    {"open", "print", "input", "io.open", "uuid.uuid1", "uuid.uuid4", "uuid1", "uuid4"}
    | {f"{name}.{call}" for name in ("datetime", "datetime.datetime") for call in ("now", "utcnow", "today")}
    | {f"{name}.today" for name in ("date", "datetime.date")}
)
# Serve's decisions and values, which follow the rule of core; what is not named here is a shell.
PURE_IN_SERVE: Final = frozenset(
    {"exceptions", "request_router"}
    | {f"base.{name}" for name in ("encodable", "nested", "news", "refusals", "unknown_names", "versions")}
    | {
        f"http.{name}"
        for name in (
            "forwarded_headers",
            "http_options",
            "request_head",
            "responses",
            "retry",
            "root_path",
            "routes",
            "unavailable",
            "websocket_rules",
        )
    }
    | {"policies.policy", "policies.routing"}
    | {
        f"declaration.{name}"
        for name in ("declaration", "graph", "handle_options", "options", "router_options", "spec")
    }
    | {"replica.lifecycle"}
    | {"routing.lending", "routing.placing", "routing.unusable"}
    | {"proxy.answer", "proxy.arrival", "proxy.connection_phase", "proxy.patience", "proxy.turns", "proxy.place"}
    | {"proxy.head_rules", "proxy.http_request", "proxy.paths", "proxy.request_life"}
    | {
        f"control.{name}"
        for name in (
            "applications",
            "deployment",
            "ending",
            "fleet",
            "history",
            "proxy_life",
            "reconcile",
            "recovery",
            "replica_record",
            "saving",
            "statuses",
        )
    }
    | {"llm.engines.interface", "llm.engines.whole_events", "llm.engines.prometheus_text"}
    | {"llm.engines.silence", "llm.engines.stream_end"}
    | {f"llm.resume.{name}" for name in ("answer", "choices", "engine_errors", "events", "messages", "responses")}
    | {"llm.fields", "llm.json_kinds", "llm.chat_answers"}
    | {
        f"capacity.{name}"
        for name in (
            "need",
            "ledger",
            "line_index",
            "prefix_index",
            "output_lengths",
            "fair_order",
            "drain",
            "queue",
            "share",
            "holdback",
        )
    }
    | {
        f"capacity.{name}"
        for name in (
            "ask",
            "sizes",
            "most_first",
            "credits",
            "tickets",
            "sessions",
            "adapters",
            "eviction",
            "explain",
            "credit_messages",
            "engine_load",
            "credit_holder",
            "credit_gate",
            "tenants",
            "prefill",
            "unit",
            "window",
        )
    }
    | {
        f"capacity_queue.{name}"
        for name in (
            "config",
            "http_headers",
            "messages",
            "hub",
            "hub_credits",
            "running",
            "statuses",
            "offers",
            "shown",
            "alone",
            "lease",
            "looks",
            "read_rates",
            "fences",
            "readers",
        )
    }
    | {f"llm.responses.{name}" for name in ("answer", "events", "items", "listing", "request", "stored", "tools")}
    | {f"llm.messages.{name}" for name in ("answer", "content", "events", "request", "tools")}
    | {"llm.checks", "llm.config", "llm.cors", "llm.keys", "llm.problems", "llm.reading", "llm.routes", "llm.usage"}
    | {"llm.costs", "llm.demand", "llm.queue_view", "llm.tallies", "llm.unsupported", "llm.wishes"}
    | {
        f"llm.batches.{name}"
        for name in ("asked", "form", "outputs", "records", "retrying", "schema", "states", "validation")
    }
    | {f"llm.engines.{name}" for name in ("prefix_cache", "simulation", "word_pieces", "completion_bytes")}
    | {
        f"llm.engines.{name}"
        for name in ("simulated_request", "simulated_choice", "request_fields", "similarity_requests")
    }
)
# Imports that wait for a reason other than a circle (the circles below are looked for through them too).
DEFERRED: Final = {
    ("actorrt.cli", "actorrt.cli.commands"),  # all of the command, once Ctrl-C does not meet it with a traceback
    ("actorrt.runtime.api.driver", "actorrt.runtime.api.join"),  # loads while the node starts, which is started first
    (
        "actorrt.runtime.owner.segments_client",
        "actorrt.runtime.memory.segment_writer",
    ),  # ctypes: milliseconds that few need
    ("actorrt.runtime.node.node_transfers", "actorrt.runtime.memory.incoming"),  # the same
    (
        "actorrt.serve.proxy.proxy",
        "actorrt.serve.proxy.http_server",
    ),  # uvicorn: 40 ms and 5 MB that the controller does not need
    ("actorrt.serve.replica.replica", "actorrt.serve.replica.reply"),  # Starlette: the same
}
# The rooms of the runtime and what each may import, types included: those named, and itself. A room's docstring says
# who lives there; docs/decisions/rooms.md says why.
ROOMS: Final[Mapping[str, frozenset[str]]] = {
    "base": frozenset[str](),
    "links": frozenset({"base"}),
    "machine": frozenset({"base", "links"}),
    "memory": frozenset({"base"}),
    "owner": frozenset({"base", "links", "machine", "memory"}),
    "worker": frozenset({"base", "links", "machine", "memory", "owner"}),
    "node": frozenset({"base", "links", "machine", "memory", "owner"}),
    "api": frozenset({"base", "links", "machine", "memory", "owner", "worker", "node"}),
}
# The same of Serve, where what programs import lies beside the rooms. `exceptions` stands below all of them.
SERVE_ROOMS: Final[Mapping[str, frozenset[str]]] = {
    "base": frozenset[str](),
    "http": frozenset({"base"}),
    "policies": frozenset({"base"}),
    "capacity": frozenset[str](),
    "capacity_queue": frozenset({"base", "http", "policies", "capacity"}),
    "declaration": frozenset({"base", "http", "policies", "capacity_queue"}),
    "routing": frozenset({"base", "http", "policies", "capacity_queue", "declaration"}),
    "replica": frozenset({"base", "http", "capacity_queue", "declaration"}),
    "proxy": frozenset({"base", "http", "policies", "declaration", "routing"}),
    "control": frozenset({"base", "http", "policies", "capacity_queue", "declaration", "routing", "replica", "proxy"}),
    "request_router": frozenset({"base", "policies", "capacity", "capacity_queue", "declaration"}),
    "api": frozenset({"base", "http", "declaration", "routing", "control"}),
    "llm": frozenset({"base", "http", "policies", "capacity", "capacity_queue", "declaration", "routing", "api"}),
    "exceptions": frozenset[str](),
}
# What of the runtime uses stores: a head that has one, and what checks it before a head is started.
USE_STORES: Final = frozenset({"actorrt.runtime.node.head_store"})
NOT_A_NAME: Final = frozenset({"utils", "util", "helpers", "common", "misc", "constants"})


@dataclass(frozen=True)
class Import:
    module: str  # what is imported: a module
    name: str  # the name taken from it, or ""
    line: int
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING:`


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def layer(self) -> str:
        """`actorrt.wire.codec` lies in `wire`, `actorrt.types` in itself; `python -m actorrt` is the command line."""
        if self.name == "actorrt.__main__":
            return "cli"
        return self.name.split(".")[1] if "." in self.name else ""


def _module_files() -> dict[str, Path]:
    files: dict[str, Path] = {}
    # Not through the link: each file once.
    for folder, package in ((ROOT / "actorrt", "actorrt"), (ROOT / "serve", "actorrt.serve")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            if package == "actorrt" and parts[0] == "serve":
                continue
            files[".".join((package, *parts)).removesuffix(".__init__")] = path
    return files


def _imports(tree: ast.Module, name: str, is_package: bool, known: Mapping[str, Path]) -> Iterator[Import]:
    package = name if is_package else name.rpartition(".")[0]

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, "", child.lineno, in_function, for_types)
            elif isinstance(child, ast.ImportFrom):
                source = child.module or ""
                if child.level:
                    above = package.split(".")[: len(package.split(".")) - child.level + 1]
                    source = ".".join([*above, *([source] if source else [])])
                for alias in child.names:
                    whole = f"{source}.{alias.name}"
                    if whole in known:
                        yield Import(whole, "", child.lineno, in_function, for_types)
                    else:
                        yield Import(source, alias.name, child.lineno, in_function, for_types)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                yield from visit(child, True, for_types)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from visit(child, in_function, True)
            else:
                yield from visit(child, in_function, for_types)

    yield from visit(tree, False, False)


def _load() -> dict[str, Module]:
    files = _module_files()
    modules: dict[str, Module] = {}
    for name, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        modules[name] = Module(name, path, tree, tuple(_imports(tree, name, path.name == "__init__.py", files)))
    return modules


Modules = Mapping[str, Module]


@pytest.fixture(scope="module")
def modules() -> Modules:
    return _load()


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("actorrt", "serve")


def _say(module: Module, found: Import) -> str:
    taken = f"{found.module}.{found.name}" if found.name else found.module
    return f"{module.path.relative_to(ROOT)}:{found.line} imports {taken}"


def _public_names(modules: Modules) -> frozenset[str]:
    for node in modules["actorrt"].tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__" and isinstance(node, ast.Assign | ast.AnnAssign):
            assert node.value is not None
            return frozenset(ast.literal_eval(node.value))
    raise AssertionError("actorrt/__init__.py has no __all__ that is a plain list of names")


def test_the_base_imports_nothing_of_ours_but_itself(modules: Modules) -> None:
    wrong = [
        _say(module, found)
        for module in modules.values()
        if module.name in BASE
        for found in module.imports
        if _is_ours(found.module) and found.module not in BASE
    ]
    assert wrong == []


@pytest.mark.parametrize("layer", ["wire", "core"])
def test_wire_and_core_import_the_base_and_themselves_only(layer: str, modules: Modules) -> None:
    allowed = f"actorrt.{layer}"
    wrong = [
        _say(module, found)
        for module in modules.values()
        if module.layer == layer
        for found in module.imports
        if _is_ours(found.module)
        and found.module not in BASE
        and found.module != allowed
        and not found.module.startswith(allowed + ".")
    ]
    assert wrong == []


def test_a_store_imports_core_and_the_base_only_and_heads_alone_import_it(modules: Modules) -> None:
    wrong = [
        _say(module, found)
        for module in modules.values()
        for found in module.imports
        if (
            module.layer == "store"
            and _is_ours(found.module)
            and found.module not in BASE
            and not found.module.startswith(("actorrt.core.", "actorrt.store"))
        )
        or (found.module.startswith("actorrt.store") and module.layer != "store" and module.name not in USE_STORES)
    ]
    assert wrong == []


# They give classes and context variables keys, by which nothing is decided but whether two are the same.
GIVE_KEYS: Final = frozenset({"actorrt.wire.context_variables", "actorrt.wire.rebuilding"})


def _impure_calls(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in IMPURE_CALLS:
            if called == "uuid.uuid4" and module.name in GIVE_KEYS:
                continue
            yield f"{module.path.relative_to(ROOT)}:{node.lineno} calls {called}"


@pytest.mark.parametrize("layer", ["wire", "core"])
def test_wire_and_core_do_no_io_and_read_no_clock(layer: str, modules: Modules) -> None:
    wrong = [
        _say(module, found)
        for module in modules.values()
        if module.layer == layer
        for found in module.imports
        if found.module.partition(".")[0] in IMPURE
    ]
    wrong += [call for module in modules.values() if module.layer == layer for call in _impure_calls(module)]
    assert wrong == []


def test_histories_run_the_runtime_and_nothing_of_it_knows_them(modules: Modules) -> None:
    wrong = [
        _say(module, found)
        for module in modules.values()
        for found in module.imports
        if (module.layer != "testing" and found.module.startswith("actorrt.testing"))
        or (module.layer == "testing" and found.module.startswith(("actorrt.serve", "actorrt.cli", "serve")))
        or (module.layer == "testing" and found.module.partition(".")[0] in ("socket", "select", "uvloop", "aiohttp"))
    ]
    assert wrong == []


def test_nothing_below_serve_and_the_command_line_imports_them(modules: Modules) -> None:
    wrong = [
        _say(module, found)
        for module in modules.values()
        if module.layer not in ("serve", "cli", "")
        for found in module.imports
        if found.module.startswith(("actorrt.serve", "actorrt.cli", "serve"))
    ]
    assert wrong == []


def test_the_pure_files_of_serve_follow_the_rule_of_core(modules: Modules) -> None:
    pure = frozenset(f"actorrt.serve.{name}" for name in PURE_IN_SERVE)
    wrong = [
        _say(module, found)
        for module in modules.values()
        if module.name in pure
        for found in module.imports
        if found.module.partition(".")[0] in IMPURE
        or (_is_ours(found.module) and found.module not in BASE and found.module not in pure)
    ]
    wrong += [call for module in modules.values() if module.name in pure for call in _impure_calls(module)]
    assert wrong == []


def test_the_pure_files_of_serve_are_there(modules: Modules) -> None:
    assert [name for name in PURE_IN_SERVE if f"actorrt.serve.{name}" not in modules] == []


def test_the_command_line_uses_public_names_only(modules: Modules) -> None:
    public = _public_names(modules)
    wrong = [
        _say(module, found)
        for module in modules.values()
        if module.layer == "cli"
        for found in module.imports
        if _is_ours(found.module)
        and not found.module.startswith("actorrt.cli")
        and found.module not in BASE
        and (found.module != "actorrt" or (found.name and found.name not in public))
    ]
    assert wrong == []


def test_serve_uses_public_names_only_and_itself_by_relative_imports(modules: Modules) -> None:
    public = _public_names(modules)
    wrong: list[str] = []
    for module in modules.values():
        if module.layer != "serve":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("actorrt.serve"):
                wrong.append(f"{module.path.relative_to(ROOT)}:{node.lineno} is not a relative import")
            # `actorrt.name` where the module itself was imported.
            match node:
                case ast.Attribute(value=ast.Name(id="actorrt"), attr=name) if name not in public:
                    wrong.append(f"{module.path.relative_to(ROOT)}:{node.lineno} uses actorrt.{name}")
                case _:
                    pass
        for found in module.imports:
            if not _is_ours(found.module) or found.module.startswith("actorrt.serve"):
                continue
            if found.module in BASE and not found.name.startswith("_"):
                continue
            if found.module == "actorrt.util" and found.name in util.__all__:
                continue
            if found.module != "actorrt" or (found.name and found.name not in public):
                wrong.append(_say(module, found))
    assert wrong == []


def test_no_function_imports_a_module_of_ours(modules: Modules) -> None:
    wrong = [
        _say(module, found)
        for module in modules.values()
        for found in module.imports
        if found.in_function and _is_ours(found.module) and (module.name, found.module) not in DEFERRED
    ]
    assert wrong == []


def test_the_modules_form_no_circle(modules: Modules) -> None:
    # `import a.b` runs a/__init__ too, but the public __init__ is lazy, so only what is named counts.
    edges = {
        module.name: sorted(
            {found.module for found in module.imports if found.module in modules and not found.for_types}
            - {module.name, "actorrt"}
        )
        for module in modules.values()
    }
    done: set[str] = set()
    circles: list[str] = []

    def walk(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circles.append(" -> ".join((*path[path.index(name) :], name)))
            return
        if name in done:
            return
        for target in edges[name]:
            walk(target, (*path, name))
        done.add(name)

    for name in edges:
        walk(name, ())
    assert circles == []


def _reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """What `start` imports, and what that imports in turn."""
    seen: set[str] = set()
    left = [start]
    while left:
        for target in edges[left.pop()] - seen:
            seen.add(target)
            left.append(target)
    return seen


def test_no_modules_are_tied_into_a_circle_imports_for_types_counted(modules: Modules) -> None:
    # What is taken from the public `actorrt` has a home of its own; the runtime does not go through it.
    edges = {
        module.name: {found.module for found in module.imports if found.module in modules}
        - ({module.name} if module.name.startswith("actorrt.runtime.") else {module.name, "actorrt"})
        for module in modules.values()
    }
    reached = {name: _reached(edges, name) for name in edges}
    knots = {
        frozenset(other for other in reached[name] if name in reached[other]) for name in edges if name in reached[name]
    }
    assert knots == set()


def _room(name: str) -> str:
    parts = name.split(".")
    return parts[2] if name.startswith("actorrt.runtime.") else ""


def test_a_room_of_the_runtime_imports_the_rooms_below_it_only(modules: Modules) -> None:
    assert {_room(name) for name in modules} == {"", *ROOMS}
    against = [
        _say(module, found)
        for module in modules.values()
        if (here := _room(module.name))
        for found in module.imports
        if (there := _room(found.module)) and there != here and there not in ROOMS[here]
    ]
    assert against == []


def _serve_room(name: str) -> str:
    return name.split(".")[2] if name.startswith("actorrt.serve.") else ""


def test_a_room_of_serve_imports_the_rooms_below_it_only(modules: Modules) -> None:
    assert {_serve_room(name) for name in modules} == {"", *SERVE_ROOMS}
    against = [
        _say(module, found)
        for module in modules.values()
        if (here := _serve_room(module.name))
        for found in module.imports
        if found.module.startswith("actorrt.serve")
        and _serve_room(found.module) not in SERVE_ROOMS[here] | {here, "exceptions"}
    ]
    assert against == []


def test_no_module_has_a_name_that_says_nothing(modules: Modules) -> None:
    # `actorrt.util` is Ray's name for a public package of tools; nothing else may be called that.
    wrong = [name for name in modules if name.rpartition(".")[2] in NOT_A_NAME and name != "actorrt.util"]
    assert wrong == []


def test_every_module_opens_with_what_it_is_for(modules: Modules) -> None:
    silent = [
        str(module.path.relative_to(ROOT))
        for module in modules.values()
        if not ast.get_docstring(module.tree) and module.tree.body
    ]
    assert silent == []


def test_serve_is_reached_by_a_relative_link() -> None:
    link = ROOT / "actorrt" / "serve"
    assert link.is_symlink()
    assert str(link.readlink()) == "../serve"
