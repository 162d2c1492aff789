"""The program of a `llamacpp` engine: llama.cpp's own HTTP server, with the parameters that it is given as JSON.

A program of its own, since llama.cpp keeps the interpreter to itself while it loads a model, and ends its process when
it is at its wits' end.
"""

import difflib
import enum
import json
import signal
import sys
import time
from importlib import import_module
from typing import Any, Final, NoReturn

_LOG_S: Final = 0.2


def main() -> None:
    try:
        xllamacpp: Any = import_module("xllamacpp")
    except ImportError as error:
        fail(f"the llamacpp engine needs the package xllamacpp ({error}): pip install xllamacpp")
    params: Any = xllamacpp.CommonParams()
    given: dict[str, Any] = json.loads(sys.argv[1])
    batch = given.pop("n_batch_without_gpu", None)
    if batch is not None and not any("GPU" in str(each["type"]) for each in xllamacpp.get_device_info()):
        given = {"n_batch": batch, **given}
    for name, value in given.items():
        if name == "lora_adapters":
            value = [_adapter(xllamacpp, path) for path in value]
        set_parameter(params, name, value)
    try:
        server: Any = xllamacpp.Server(params)
    except RuntimeError as error:
        # What it says itself is written by a thread of its own, which this process does not wait for as it exits.
        time.sleep(_LOG_S)
        fail(f"llama.cpp does not start with {params.model.path}: {error}")
    print(f"listening on {server.listening_address}", flush=True)
    while True:
        signal.pause()


def set_parameter(params: Any, name: str, value: object) -> None:
    """A parameter by its name, which may lead into a part: "model.path"."""
    *parts, last = name.split(".")
    for part in (*parts, last):
        if not hasattr(params, part):
            near = difflib.get_close_matches(part, dir(params), n=1)
            fail(f"llama.cpp has no parameter {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        if part is not last:
            params = getattr(params, part)
    try:
        before: object = getattr(params, last)
        setattr(params, last, _as_kind(before, value))
    except (TypeError, ValueError, OverflowError) as error:
        fail(f"llama.cpp's parameter {name!r} cannot be {value!r}: {error}")


def _as_kind(before: object, value: Any) -> object:
    """What JSON cannot say: sets, and members of enumerations."""
    if not isinstance(before, enum.Enum):
        return set(value) if isinstance(before, set) else value
    kind = type(before)
    if not isinstance(value, str):
        return kind(value)
    # "q8_0" for GGML_TYPE_Q8_0.
    for member in kind:
        if member.name.lower().endswith(f"_{value.lower()}"):
            return member
    raise ValueError("it is one of " + ", ".join(member.name for member in kind))


def _adapter(xllamacpp: Any, path: str) -> Any:
    adapter = xllamacpp.CommonAdapterLoraInfo()
    adapter.path, adapter.scale = path, 1.0
    return adapter


def fail(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
