"""Modules inside of Serve by the rooms that they lie in; revisions from before the rooms have them in one folder."""

from importlib import import_module
from typing import Any


def serve_module(name: str) -> Any:
    """`serve_module("routing.router")`."""
    try:
        return import_module(f"actorrt.serve.{name}")
    except ModuleNotFoundError:
        return import_module(f"actorrt.serve.{name.rpartition('.')[2]}")
