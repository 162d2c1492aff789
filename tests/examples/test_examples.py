"""Each example does what its page says, run as a reader would run it."""

import io
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image

EXAMPLES: Final = Path(__file__).resolve().parent.parent.parent / "examples"
SHOWN: Final = 1761  # the row of the data set that examples/seven.png shows
ON_A_PAGE: Final = 60


def _run(*args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=EXAMPLES.parent, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_fits_on_a_page(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= ON_A_PAGE


def test_the_counter_counts_the_calls_of_all_tasks() -> None:
    assert "the counter says 110" in _run(EXAMPLES / "counter.py")


def test_the_parallel_map_counts_what_a_loop_counts(tmp_path: Path) -> None:
    words = Counter[str]()
    for path in EXAMPLES.rglob("*.py"):
        words += Counter(path.read_text(encoding="utf-8").split())
    printed = _run(EXAMPLES / "parallel_files.py", EXAMPLES)
    assert f"{words.total()} words in {len(list(EXAMPLES.rglob('*.py')))} files" in printed
    assert f"{words.most_common(1)[0][1]:6} " in printed


def test_the_pipeline_computes_what_numpy_does() -> None:
    table = np.arange(1_000_000, dtype=np.float64).reshape(1000, 1000)
    distance = float(np.abs(table - table.mean(axis=0)).max())
    assert f"largest distance from the mean: {distance}" in _run(EXAMPLES / "pass_by_reference.py")


def test_the_failing_child_cancels_its_siblings() -> None:
    printed = _run(EXAMPLES / "cancel_group.py")
    assert "stopped looking" in printed
    assert "no answer" in printed


def test_tokens_arrive_as_server_sent_events(start_server: Any) -> None:
    server = start_server("stream_tokens:app", "--app-dir", str(EXAMPLES))
    with httpx.stream("GET", server.url, params={"prompt": "one two three"}, timeout=30) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events.pop() == "[DONE]"
    assert [json.loads(event)["token"] for event in events] == ["three", "two", "one"]


def _digits() -> Any:
    # All of scikit-learn takes long to import, and who runs other tests has no need of it.
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    return digits


@pytest.mark.parametrize("name", ["stream_tokens", "digits"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_graph_that_is_run_as_a_program_serves_until_it_is_asked_to_end(name: str, number: int) -> None:
    # As a reader would run it, but for the port, which may be taken here.
    program = f"""
import runpy
from actorrt import serve
serve.start({{"port": 0}})
runpy.run_path("examples/{name}.py", run_name="__main__")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=EXAMPLES.parent, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            # Nothing comes before it, no report of slow imports either.
            found = re.fullmatch(r"serving default on (http://\S+)  \(Ctrl-C drains and stops\)\n", line)
            assert found, line
            assert httpx.get(found[1], timeout=30).status_code in (200, 400)
            process.send_signal(number)
            # On a busy machine the model's library keeps the GIL for so long that its replica says so.
            lines = process.stderr.read().splitlines()
            assert [line for line in lines if "the event loop has been blocked" not in line] == []
            assert process.wait() == 0
        finally:
            process.kill()


def test_the_picture_was_not_trained_on() -> None:
    held_out = int(re.findall(r"^HELD_OUT = (\d+)", (EXAMPLES / "digits.py").read_text(), re.MULTILINE)[0])
    data = _digits()
    assert len(data.target) - held_out <= SHOWN
    assert data.target[SHOWN] == 7
    picture = Image.open(EXAMPLES / "seven.png").resize((8, 8), Image.Resampling.BOX)
    assert np.allclose(np.asarray(picture) / 255 * 16, data.images[SHOWN], atol=0.5)


def test_the_digits_example_reads_pictures_it_has_not_seen(start_server: Any) -> None:
    server = start_server("digits:app", "--app-dir", str(EXAMPLES))
    data = _digits()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        # The curl of the README.
        answer = client.post("/", content=(EXAMPLES / "seven.png").read_bytes())
        assert answer.status_code == 200
        assert answer.json()["digit"] == 7
        probabilities = answer.json()["probabilities"]
        assert len(probabilities) == 10
        assert sum(probabilities) == pytest.approx(1, abs=0.01)
        assert probabilities[7] > 0.9

        right = 0
        for row in range(len(data.target) - 50, len(data.target)):
            grey = Image.fromarray((data.images[row] / 16 * 255).astype(np.uint8))
            # Half of them dark on light, as on paper, and larger.
            picture = Image.fromarray(255 - np.asarray(grey)).resize((64, 64)) if row % 2 else grey
            right += client.post("/", content=_png(picture)).json()["digit"] == data.target[row]
        assert right >= 40

        wrong = client.post("/", content=b"not a picture")
        assert wrong.status_code == 400
        assert "send a PNG" in wrong.json()["error"]
        assert client.get("/").status_code == 400
