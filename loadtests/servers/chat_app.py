# pyright: basic, reportMissingImports=false
"""The chat application with simulated engines, for `actorrt serve loadtests.servers.chat_app:graph`.

The environment variable CHAT_APP says how: JSON with `replicas`, `tenants` and the engine's settings, all optional.
"""

import json
import os

from actorrt import serve
from actorrt.serve.llm import ApiKey, FrontConfig, LLMConfig, SimulatedEngine
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.replica import Model

given = json.loads(os.environ.get("CHAT_APP", "{}"))
config = LLMConfig(model_id="simulated", engine=SimulatedEngine.model_validate(given.get("engine", {})))
model = serve.deployment(num_replicas=given.get("replicas", 1), max_ongoing_requests=256)(Model).bind(config)
keys = [ApiKey.of(f"sk-{tenant}", tenant) for tenant in given.get("tenants", [])]
graph = serve.deployment(max_ongoing_requests=1000)(Front).bind(FrontConfig(keys=keys), [(config, model)])
