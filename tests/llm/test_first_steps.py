"""What a person sees of `actorrt serve` and `actorrt status` with language models: sentences, and no traces of ours."""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

ACTORRT: Final = str(Path(sys.executable).with_name("actorrt"))
MODULE: Final = """
from actorrt.serve.llm import LlamaCppEngine, LLMConfig, ServerEngine, SimulatedEngine, build_openai_app

app = build_openai_app(LLMConfig(model_id="m", engine={engine}))
"""


def serve(folder: Path, engine: str) -> tuple[int, str]:
    """The exit code of the command and what it has printed."""
    (folder / "models.py").write_text(MODULE.format(engine=engine))
    command = [ACTORRT, "serve", "models:app", "--port", "0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ('LlamaCppEngine(model="/no/such/file")', "the model /no/such/file cannot be read: No such file or directory"),
        ('LlamaCppEngine(model="package:nope")', "in the package nope, which is not installed: pip install"),
        ('ServerEngine(command=["no-such-program"])', "no-such-program cannot be run: No such file or directory"),
        ('ServerEngine(command=["false"])', "the engine of m ended as it started, exit code 1; it printed nothing"),
    ],
)
def test_an_engine_that_does_not_start_is_a_sentence(tmp_path: Path, engine: str, sentence: str) -> None:
    code, said = serve(tmp_path, engine)
    assert code == 1
    *_, last = said.splitlines()
    assert last.startswith("actorrt: application 'default' could not be deployed: deployment 'model:m': ")
    assert sentence in last
    for noise in ('File "', "EngineError", "RuntimeWarning", "never awaited"):
        assert noise not in said


def test_a_wrong_configuration_is_a_sentence_with_the_users_own_line(tmp_path: Path) -> None:
    code, said = serve(tmp_path, "SimulatedEngine(slos=1)")
    assert code == 1
    assert said == (
        "actorrt: importing models failed: ConfigError: unknown SimulatedEngine field 'slos'; did you mean 'slots'? "
        f"({tmp_path}/models.py, line 4)\n"
    )


def test_the_status_shows_models_and_warns_of_nothing(start_server: Any, tmp_path: Path) -> None:
    (tmp_path / "models.py").write_text(MODULE.format(engine="SimulatedEngine(slots=7)"))
    assert start_server("models:app").url
    done = subprocess.run([ACTORRT, "status"], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].split() == ["m", "simulated", "1", "7", "8192", "0", "0"]
