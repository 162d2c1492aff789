"""A server with vLLM's protocol for disaggregated prefill, and no model: `kv_engine.py PORT`.

What it has read for another lies here under a number until that one fetches it, as with vLLM's NixlConnector. An answer
says which process has read its prompt, and which one answers. A prompt "wait FILE" is read once there is that file.
"""

import itertools
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

PORT = int(sys.argv[1])
NUMBERS = itertools.count(1)
READ: dict[int, Any] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/kv/"):
            self.answer(200, READ.pop(int(self.path.removeprefix("/kv/"))))
        else:
            self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body.get("kv_transfer_params") or {}
        text = body["messages"][-1]["content"]
        if asked.get("do_remote_decode"):
            self.read(body, text)
            return
        read_by = os.getpid()
        if asked.get("do_remote_prefill"):
            url = f"http://{asked['remote_host']}:{asked['remote_port']}/kv/{asked['remote_block_ids'][0]}"
            with urlopen(url) as found:
                read_by, messages = json.load(found)
            assert messages == body["messages"]
        self.answer(200, whole(f"{read_by} {os.getpid()}"))

    def read(self, body: dict[str, Any], text: str) -> None:
        if body["max_tokens"] != 1 or body["stream"] or text == "refuse":
            self.answer(400, {"error": {"message": "the engine does not like it", "code": 400}})
            return
        kind, *file = text.split()
        while kind == "wait" and not Path(*file).exists():
            time.sleep(0.01)
        number = next(NUMBERS)
        READ[number] = os.getpid(), body["messages"]
        said = {
            "do_remote_prefill": True, "do_remote_decode": False, "remote_engine_id": str(os.getpid()),
            "remote_block_ids": [number], "remote_host": "127.0.0.1", "remote_port": PORT,
        }  # fmt: skip
        self.answer(200, {**whole(""), "kv_transfer_params": said})

    def answer(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None: ...


def whole(content: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "x", "object": "chat.completion", "model": "kv", "choices": [choice], "usage": usage}


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
