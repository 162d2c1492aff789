"""Read every setting that an operator may change, once, from `ACTORRT_*` variables.

The only reader of the environment. What a program chooses for itself (`init(...)`, options) is not here.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeVar, cast

import msgspec

PREFIX: Final = "ACTORRT_"
_N = TypeVar("_N", int, float)
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


class Settings(msgspec.Struct, frozen=True):
    """A setting `x_y` is read from `ACTORRT_X_Y`; times are seconds, sizes bytes.

    A variable that is unset or empty leaves the default.
    """

    # Where a program finds a running cluster if `init` is not told: "" starts one, "auto" takes the newest session.
    address: str = ""
    namespace: str = ""
    # Sessions (sockets, logs) live below this folder; "" is actorrt/ in the system's temporary folder.
    temp_dir: str = ""
    # Where the stores of heads lie that no other place was given for; "" is ~/.local/state/actorrt.
    state_dir: str = ""

    # On which host processes accept links from other machines, 0.0.0.0 for all; "": they have Unix sockets alone.
    host: str = ""
    # Each process takes a free port of these, as in 20000-20100; "": any.
    ports: str = ""
    # What all of a cluster prove to have that other machines reach, or the file that holds it ("": ~/.actorrt/token).
    token: str = ""
    token_file: str = ""
    # Links between machines are encrypted with this certificate and its key (PEM). Every process trusts that very
    # certificate, or, where there is one, what this authority has signed; then both ends show their certificates.
    tls_cert: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    # A connection between machines that is silent for this long is broken: it is dialled again.
    link_silence_s: float = 10.0

    # A value up to this size travels inside the reply, a larger one lies in shared memory.
    inline_limit: int = 100 * 1024
    # 0: three tenths of the machine's memory.
    object_store_memory: int = 0
    # "": a folder of the session.
    spill_dir: str = ""

    # A loop that is blocked for this long is reported with its stack.
    block_report_s: float = 0.1
    # A worker that is stopped or silent for this long is killed, and one that others share whose loop is blocked; so
    # are a head and a zygote, which are started again.
    worker_stall_timeout_s: float = 30.0
    # While more than this part of a memory is used, the machine's or that of a control group, work is ended.
    memory_threshold: float = 0.95
    # How often that is looked at; 0: never.
    memory_watch_s: float = 0.25
    # How long a session may take to start, as on a machine where many start at once, and its node to let a program in.
    start_timeout_s: float = 60.0
    # How long a new worker may take to start, and the zygote that forks it to answer.
    worker_start_timeout_s: float = 60.0
    # A process that does not answer a dial for this long is dialled again, for as long as its node says that it lives.
    dial_timeout_s: float = 10.0
    # How long a question to the head (a name, say) waits for an answer, whichever head gives it; 0: for ever.
    head_timeout_s: float = 60.0
    # A caller gives a lease back when it had no work for it for this long.
    idle_lease_s: float = 1.0
    # A worker without a lease ends after this long.
    idle_worker_s: float = 60.0
    # How long a stopping process waits for what runs before it cancels it.
    shutdown_timeout_s: float = 5.0

    log_to_driver: bool = True
    # The same line of several workers within 5 s is shown once, with "[repeated 7x]".
    log_deduplicate: bool = True
    log_level: str = "INFO"
    # A worker's log file is rotated at this size, and this many old ones are kept.
    log_rotation_bytes: int = 100 * 1024 * 1024
    log_rotation_count: int = 5

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """The settings of this process; ValueError names a variable whose text is not of its type."""
        given = _set_now() if environment is None else environment
        values: dict[str, Any] = {}
        for variable, (name, default) in _VARIABLES.items() if given else ():
            if text := given.get(variable, ""):
                values[name] = _parse(variable, text, default)
        return cls(**values)


# By its variable: the name of a setting, and its default.
_VARIABLES: Final[dict[str, tuple[str, object]]] = {
    PREFIX + field.name.upper(): (field.name, field.default) for field in msgspec.structs.fields(Settings)
}
_AS_BYTES: Final = tuple(map(os.fsencode, _VARIABLES))


def _set_now() -> dict[str, str]:
    """Those of our variables that are set. Each new worker asks: the bytes behind `os.environ` know it at once."""
    data: dict[bytes, bytes] = cast("Any", os.environ)._data
    return {os.fsdecode(name): os.fsdecode(data[name]) for name in _AS_BYTES if name in data}


def _parse(variable: str, text: str, default: object) -> bool | int | float | str:
    match default:
        case bool():
            lowered = text.strip().lower()
            if lowered in _TRUE | _FALSE:
                return lowered in _TRUE
            wanted = "true or false"
        case int():
            wanted = "a whole number, not negative"
            if (whole := _number(int, text)) is not None:
                return whole
        case float():
            wanted = "a number, not negative"
            if (number := _number(float, text)) is not None:
                return number
        case _:
            return text
    raise ValueError(f"{variable} must be {wanted}, not {text!r}")


def _number(kind: Callable[[str], _N], text: str) -> _N | None:
    try:
        number = kind(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None
