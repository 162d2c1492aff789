# pyright: basic, reportMissingImports=false
"""Which module does the work of which side. Modules are imported only in their own side's environment."""

import importlib
from contextlib import AbstractContextManager
from typing import Any, Final

from loadtests.peers.contract import Calls, Tasks

_MODULES: Final = {
    "actorrt": "loadtests.peers.ray_like",
    "ray": "loadtests.peers.ray_like",
    "xoscar": "loadtests.peers.xoscar_actor",
    "dask": "loadtests.peers.dask_cluster",
    "process_pool": "loadtests.peers.process_pool",
    "aiohttp_link": "loadtests.limits.aiohttp_link",
    "one_loop": "loadtests.limits.one_loop",
}


def _module(side: str) -> Any:
    return importlib.import_module(_MODULES[side])


def calls(side: str) -> AbstractContextManager[Calls]:
    opened: AbstractContextManager[Calls] = _module(side).calls(side)
    return opened


def inner_calls(side: str) -> AbstractContextManager[Calls]:
    opened: AbstractContextManager[Calls] = _module(side).inner_calls(side)
    return opened


def tasks(side: str) -> AbstractContextManager[Tasks]:
    opened: AbstractContextManager[Tasks] = _module(side).tasks(side)
    return opened
