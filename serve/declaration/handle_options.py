"""What `handle.options(...)` takes: names, types and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ..base.unknown_names import unknown
from ..policies.policy import ONE_REQUEST, Cost

NOT_YET: Final = (
    "multiplexed_model_id", "session_id", "_prefer_local_routing", "_by_reference",
    "request_serialization", "response_serialization",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HandleOptions:
    """`cost` is what each call takes of a replica, for the deployment's request router."""

    method_name: str = "__call__"
    stream: bool = False
    cost: Cost = ONE_REQUEST


KINDS: Final[Mapping[str, type]] = {"method_name": str, "stream": bool, "cost": Cost}


def parse_handle_options(given: Mapping[str, Any], base: HandleOptions) -> HandleOptions:
    """`base` with the given options. ValueError names an unknown option, TypeError a wrong type."""
    for name, value in given.items():
        if name not in KINDS:
            raise ValueError(unknown("handle option", name, KINDS, NOT_YET))
        if not isinstance(value, KINDS[name]):
            raise TypeError(f"{name} must be a {KINDS[name].__name__}, not {type(value).__name__}")
    return replace(base, **given)
