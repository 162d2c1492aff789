"""Flatten a graph of `.bind()` nodes into deployments, children before their parents, the root last.

A node that several parents share is one deployment. Nodes are immutable and made after their arguments, so a graph has
no cycles; a list that holds itself is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from .declaration import Application, Deployment

Container: TypeAlias = "list[Any] | tuple[Any, ...] | dict[Any, Any]"


@dataclass(frozen=True, slots=True)
class BoundDeployment:
    """A deployment under the name it has in its application; nodes among its arguments are handles by now."""

    name: str
    deployment: Deployment[Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


def flatten(root: object, handle_for: Callable[[str], Any]) -> list[BoundDeployment]:
    """`handle_for(name)` makes what stands for a node in its parents' arguments. TypeError if this is no graph."""
    if not isinstance(root, Application):
        raise TypeError(not_a_graph(root))
    found, order = _walk(cast(Application[Any], root))
    names = _name_all(found)
    handles = {key: handle_for(name) for key, name in names.items()}
    flat: list[BoundDeployment] = []
    for node in order:
        args = tuple(_replace(each, handles) for each in node.args)
        kwargs = {key: _replace(each, handles) for key, each in node.kwargs.items()}
        flat.append(BoundDeployment(names[id(node)], node.deployment, args, kwargs))
    return flat


def not_a_graph(value: object) -> str:
    """A sentence that says what was found instead of a graph, and what to write."""
    if isinstance(value, Deployment):
        return f"{value!r} is not bound: write {value.name}.bind(...)"
    what = f"class {value.__name__}" if isinstance(value, type) else f"a value of type {type(value).__name__}"
    return f"an application is what .bind() of a @serve.deployment gives, not {what}"


def _walk(root: Application[Any]) -> tuple[list[Application[Any]], list[Application[Any]]]:
    """All nodes twice: as a reader finds them, the root first, and with children before their parents."""
    # By hand and not by recursion: a pipeline may be longer than Python's stack.
    found: dict[int, Application[Any]] = {}
    done: dict[int, Application[Any]] = {}
    stack: list[tuple[Application[Any], bool]] = [(root, False)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            done[id(node)] = node
        elif id(node) not in found:
            found[id(node)] = node
            stack.append((node, True))
            children = _nodes_in([node.args, dict(node.kwargs)], node.deployment.name)
            stack.extend((child, False) for child in reversed(children))
    return list(found.values()), list(done.values())


def _nodes_in(value: object, parent: str) -> list[Application[Any]]:
    found: list[Application[Any]] = []
    path: set[int] = set()

    def look(each: object) -> None:
        if isinstance(each, Application):
            found.append(cast(Application[Any], each))
        elif isinstance(each, Deployment):
            raise TypeError(f"an argument of {parent}.bind() is no graph: {not_a_graph(cast(object, each))}")
        elif isinstance(each, list | tuple | dict):
            container = cast(Container, each)
            if id(container) in path:
                raise ValueError(f"an argument of {parent}.bind() contains itself")
            path.add(id(container))
            for item in container.values() if isinstance(container, dict) else container:
                look(item)
            path.remove(id(container))

    look(value)
    return found


def _name_all(found: list[Application[Any]]) -> dict[int, str]:
    # Who comes first keeps its name: the root does, whatever its children are called.
    names: dict[int, str] = {}
    taken: set[str] = set()
    for node in found:
        plain = name = node.deployment.name
        suffix = 0
        while name in taken:
            suffix += 1
            name = f"{plain}_{suffix}"
        taken.add(name)
        names[id(node)] = name
    return names


def _replace(value: Any, handles: Mapping[int, Any]) -> Any:
    """The value with a handle for each node; a container without nodes is the same object as before."""
    if isinstance(value, Application):
        return handles[id(cast(object, value))]
    if isinstance(value, dict):
        given = cast(dict[Any, Any], value)
        changed = {key: _replace(each, handles) for key, each in given.items()}
        if all(changed[key] is each for key, each in given.items()):
            return given
        return type(given)(changed) if type(given) is not dict else changed
    if isinstance(value, list | tuple):
        items = cast("list[Any] | tuple[Any, ...]", value)
        replaced = [_replace(each, handles) for each in items]
        if all(new is old for new, old in zip(replaced, items, strict=True)):
            return items
        if isinstance(items, tuple) and hasattr(items, "_fields"):
            return cast(Any, type(items))(*replaced)
        return cast(Any, type(items))(replaced)
    return value
