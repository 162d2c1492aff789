"""An engine as nobody wants one: `odd_engine.py PORT WAY...`; it answers /health, and each way does it some harm.

dies: ends at once, saying why. silent: listens on nothing. floods: prints for ever. stubborn: ignores SIGTERM. forks:
has a child in a session of its own, which has another. breaks: ends in the midst of its first answer, once. sleeps: has
/sleep and /wake_up, and fails in its sleep. stays asleep: as that, but for waking up. slow: comes up when there is a
file "up". hangs: its first answer stands still after an event, and nothing else is answered. stuck: its first answer
stands still, and all else is answered. thinks: its first answer stands still until there is a file "thought", and it
notes in a file "looks" how often it was asked for its health. counts: has numbers, which move unless it is stuck, and
notes in a file "asked" how often it was asked for them. leaves: each odd answer is left after an event, by closing.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WAYS = sys.argv[2:]
STILL = {"hangs", "stuck", "thinks"}
ANSWERS: list[int] = []
ASLEEP = threading.Event()
DESCRIPTION = b'{"paths": {"/v1/completions": {}, "/sleep": {}, "/wake_up": {}}}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/openapi.json" and "sleeps" in WAYS:
            self.answer(200, DESCRIPTION)
            return
        if "slow" in WAYS and not Path("up").exists():
            self.answer(503, b"")
            return
        if self.path == "/metrics" and "counts" in WAYS:
            with Path("asked").open("a") as asked:
                asked.write(".")
            moved = 0 if "stuck" in WAYS else Path("asked").stat().st_size
            self.answer(200, f"vllm:kv_cache_usage_perc 0.5\nvllm:prompt_tokens_total {moved}\n".encode())
            return
        if self.path == "/health" and "thinks" in WAYS:
            with Path("looks").open("a") as looks:
                looks.write(".")
        self.answer(200 if self.path in ("/health", "/v1/models") else 404, b'{"data": []}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path == "/sleep?level=1" and "sleeps" in WAYS:
            ASLEEP.set()
            self.answer(200, b"")
        elif self.path == "/wake_up" and "stays asleep" in WAYS:
            self.answer(500, b'{"error": "zzz"}')
        elif self.path == "/wake_up" and "sleeps" in WAYS:
            ASLEEP.clear()
            self.answer(200, b"")
        elif ASLEEP.is_set():
            self.answer(503, b'{"error": "zzz"}')
        elif self.path != "/v1/completions":
            self.answer(404, b"{}")
        elif STILL & set(WAYS) and not Path("still").exists():
            Path("still").touch()
            self.stand_still()
        elif "leaves" in WAYS:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            self.wfile.write(b'data: {"id":"1","choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n')
            ANSWERS.append(1)
            if len(ANSWERS) % 2 == 0:
                self.wfile.write(b'data: {"id":"2","choices":[{"index":0,"text":"b","finish_reason":"stop"}]}\n\n')
                self.wfile.write(b"data: [DONE]\n\n")
            self.close_connection = True
        elif "breaks" in WAYS and not Path("broken").exists():
            Path("broken").touch()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b'13\r\ndata: {"text":"a"}\n\r\n')
            self.wfile.write(b"1\r\n\n\r\n")
            print("out of luck", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.answer(200, str(os.getpid()).encode())

    def stand_still(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if "hangs" in WAYS:
            self.wfile.write(b'data: {"text":"a"}\n\n')
            os.kill(os.getpid(), signal.SIGSTOP)
        while not ("thinks" in WAYS and Path("thought").exists()):
            time.sleep(0.01)
        self.wfile.write(b'data: {"text":"b"}\n\ndata: [DONE]\n\n')
        self.close_connection = True

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    if "dies" in WAYS:
        print("the weights are cursed", file=sys.stderr)
        sys.exit(3)
    if "stubborn" in WAYS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "forks" in WAYS:
        again = "import subprocess, sys; subprocess.Popen(['sleep', '1000'], start_new_session=True); sys.stdin.read()"
        # Its standard input never ends, and neither has anything that would name whose descendant it is.
        read, _ = os.pipe()
        subprocess.Popen(
            [sys.executable, "-c", again], start_new_session=True, stdin=read, env={"ACTORRT_TEMP_DIR": temp_dir()}
        )
    if "floods" in WAYS:
        threading.Thread(target=flood, daemon=True).start()
    if "silent" in WAYS:
        print("I think", flush=True)
        signal.pause()
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


def temp_dir() -> str:
    return os.environ.get("ACTORRT_TEMP_DIR", "")


def flood() -> None:
    line = b"x" * 1023 + b"\n"
    while True:
        os.write(1, line * 64)


if __name__ == "__main__":
    main()
