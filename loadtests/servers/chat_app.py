# pyright: basic, reportMissingImports=false
"""The chat application, for `actorrt serve loadtests.servers.chat_app:graph`.

The environment variable CHAT_APP says how: JSON with `models` (the settings of each one's engine, by name), `replicas`
and further options of the `deployment` of each, and `tenants`, all optional; without any there is one simulated model.
"""

import json
import os

from actorrt.serve.llm import ApiKey, build_openai_app

given = json.loads(os.environ.get("CHAT_APP", "{}"))
models = given.get("models", {"simulated": {"kind": "simulated"}})
deployment = {"num_replicas": given.get("replicas", 1), **given.get("deployment", {})}
graph = build_openai_app(
    [{"model_id": name, "engine": engine, "deployment": deployment} for name, engine in models.items()],
    {"keys": [ApiKey.of(f"sk-{tenant}", tenant) for tenant in given.get("tenants", [])]},
)
