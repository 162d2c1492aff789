# pyright: basic, reportMissingImports=false
"""LitServe with one worker; a POST to /predict answers "ok"."""

import sys
from typing import Any

import litserve


class Answers(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: Any) -> str:
        return "ok"


if __name__ == "__main__":
    server = litserve.LitServer(Answers(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False, access_log=False
    )
