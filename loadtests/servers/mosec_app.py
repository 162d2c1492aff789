# pyright: basic, reportMissingImports=false
"""mosec with one worker; a POST to /inference answers "ok". Its port and address are arguments of mosec's own."""

from typing import Any

from mosec import Server, Worker


class Answers(Worker):
    def deserialize(self, data: bytes) -> Any:
        return data

    def serialize(self, data: Any) -> bytes:
        return data

    def forward(self, data: Any) -> bytes:
        return b"ok"


if __name__ == "__main__":
    server = Server()
    server.append_worker(Answers, num=1)
    server.run()
