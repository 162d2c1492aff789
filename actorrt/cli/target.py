"""Turn `MODULE:GRAPH`, as typed, into the application it names, or say what is wrong with it.

This runs the user's module. It starts nothing.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import actorrt
from actorrt.cli.problems import FAILED, WRONG_USE, CommandError, describe

_FORM: Final = "give it as MODULE:GRAPH, for example `actorrt serve digits:app` for `app = Digits.bind()` in digits.py"


def split(target: str) -> tuple[str, str]:
    """`"digits:app"` -> `("digits", "app")`. Raises CommandError where it has another form."""
    module, colon, graph = target.partition(":")
    if module.endswith(".py") or "/" in module:
        path = Path(module)
        folder = "" if path.parent == Path() else f" --app-dir {path.parent}"
        meant = f"{path.name.removesuffix('.py')}:{graph or 'app'}{folder}"
        raise CommandError(f"{target!r} names a file, not a module: write `actorrt serve {meant}`", WRONG_USE)
    if not colon or not graph:
        raise CommandError(f"{target!r} does not say which graph to serve: {_FORM}", WRONG_USE)
    if not all(part.isidentifier() for part in f"{module}.{graph}".split(".")):
        raise CommandError(f"{target!r} is not a module and a name in it: {_FORM}", WRONG_USE)
    return module, graph


def look_in(app_dir: Path) -> None:
    """Import from this folder before anywhere else, here and in the workers of a node that is started later."""
    if not app_dir.is_dir():
        raise CommandError(f"--app-dir {app_dir}: there is no such folder", WRONG_USE)
    sys.path.insert(0, str(app_dir.resolve()))


def find(target: str) -> str:
    """The name of the module, if there is one. Raises CommandError. Nothing but packages around it is imported."""
    name, _ = split(target)
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    except Exception:  # of a package around it: importing it will say what
        return name
    if found is None:
        raise CommandError(
            f"there is no module {name!r} in {sys.path[0]} or elsewhere on sys.path; "
            "--app-dir names the folder to look in",
            WRONG_USE,
        )
    return name


def load(target: str) -> actorrt.serve.Application[Any]:
    """Import the module and return its graph, or one around its ASGI application. Raises CommandError."""
    return _as_application(named(target), target, split(target)[1])


def named(target: str) -> object:
    """Import the module and return what lies in it under the name, whatever it is. Raises CommandError."""
    module_name, graph = find(target), split(target)[1]
    module = _import(module_name)
    found: Any = module
    for name in graph.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CommandError(_no_such_name(module, module_name, graph), WRONG_USE) from None
    return found


def kind_of(application: object) -> str:
    """How people know an ASGI application that no deployment is made of."""
    package = type(application).__module__.partition(".")[0]
    return "a plain ASGI application" if package == "builtins" else f"an application of {package}"


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit() in a module too
        raise CommandError(f"importing {name} failed: {describe(error)}", FAILED) from error


def _no_such_name(module: ModuleType, module_name: str, graph: str) -> str:
    graphs = [name for name, value in vars(module).items() if _is_served(value)]
    text = f"module {module_name!r} has no {graph!r}"
    near = difflib.get_close_matches(graph, graphs or list(vars(module)), n=1)
    if near:
        return f"{text}; did you mean {module_name}:{near[0]}?"
    if graphs:
        return f"{text}; the graphs in it are {', '.join(graphs)}"
    return f"{text}, and no graph under another name: add `app = YourDeployment.bind()`"


def _is_served(value: object) -> bool:
    try:
        return isinstance(actorrt.serve.as_graph(value), actorrt.serve.Application)
    except TypeError:
        return False


def _as_application(found: object, target: str, graph: str) -> actorrt.serve.Application[Any]:
    try:
        found = actorrt.serve.as_graph(found)
    except TypeError as error:
        raise CommandError(f"{target}: {error}", WRONG_USE) from None
    if isinstance(found, actorrt.serve.Application):
        return found  # pyright: ignore[reportUnknownVariableType]  # what it serves cannot be known here
    if isinstance(found, actorrt.serve.Deployment):
        raise CommandError(
            f"{target} is a deployment that is not bound to its arguments yet: add `app = {graph}.bind()` to the "
            "module and serve that",
            WRONG_USE,
        )
    if isinstance(found, type) or callable(found):
        raise CommandError(
            f"{target} is the plain {'class' if isinstance(found, type) else 'function'} {graph!r}: decorate it with "
            "@serve.deployment, add `app = ....bind()` and serve that",
            WRONG_USE,
        )
    raise CommandError(
        f"{target} is of type {type(found).__name__}; what can be served is the result of a deployment's .bind()",
        WRONG_USE,
    )
