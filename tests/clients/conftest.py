"""One application for all clients, served by the command. `make clients` installs the clients, into an environment of
its own; elsewhere nothing here is collected."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from ..conftest import Server

collect_ignore_glob = [] if find_spec("litellm") else ["test_*.py"]
# Clients follow a proxy that the environment names, also to this machine.
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost"
# LiteLLM would fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
HERE: Final = Path(__file__).parent


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("actorrt")), "serve", "application:app", "--port", "0"]
    process = subprocess.Popen(command, cwd=HERE, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    server = Server(process)
    assert server.url, server.said
    yield server.url
    server.stop()
