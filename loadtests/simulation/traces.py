"""Public traces, as they are published: Azure's of 2023 and 2024, and Mooncake's. Sentences for files that are none.

Where to get them: AzureLLMInferenceTrace_code.csv and _conv.csv from github.com/Azure/AzurePublicDataset (CC-BY 4.0);
conversation_trace.jsonl and synthetic_trace.jsonl from github.com/kvcache-ai/Mooncake, FAST25 (Apache-2.0); tables of
ServeGen's clients from github.com/alibaba/ServeGen (Apache-2.0): see servegen.py.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from . import servegen
from .requests import Arrival

T = TypeVar("T")

FOLDER_VARIABLE: Final = "ACTORRT_TRACES"
HASH_TOKENS: Final = 512
SHORT_NAMES: Final = {
    "azure-code": "AzureLLMInferenceTrace_code.csv",
    "azure-conv": "AzureLLMInferenceTrace_conv.csv",
    "mooncake": "mooncake_conversation_trace.jsonl",
    "mooncake-synthetic": "mooncake_synthetic_trace.jsonl",
    "servegen-small": "servegen_m-small_clients.csv",
    "servegen-large": "servegen_m-large_clients.csv",
    "servegen-deepseek": "servegen_deepseek-r1_clients.csv",
}
SOURCES: Final = (
    "Traces are not part of the project. Azure's: https://github.com/Azure/AzurePublicDataset "
    "(AzureLLMInferenceTrace_code.csv, AzureLLMInferenceTrace_conv.csv); Mooncake's: "
    "https://github.com/kvcache-ai/Mooncake (FAST25-release/traces); ServeGen's clients: "
    f"https://github.com/alibaba/ServeGen. Put them into a folder and name it by --traces or {FOLDER_VARIABLE}."
)


class TraceError(Exception):
    """There is no such trace, or it is none: in a sentence."""


def find(name: str, folder: Path | None) -> Path:
    """A path as it is, or a file's name, short or whole, within the folder of traces."""
    path = Path(name)
    if path.is_file():
        return path
    if folder is None and (said := os.environ.get(FOLDER_VARIABLE)):
        folder = Path(said)
    if folder is not None:
        for wanted in (name, SHORT_NAMES.get(name, ""), f"{name}.csv", f"{name}.jsonl"):
            if wanted and (folder / wanted).is_file():
                return folder / wanted
    where = "and no folder of traces was named" if folder is None else f"nor within {folder}"
    raise TraceError(f"there is no trace {name!r} here, {where}. {SOURCES}")


def read(path: Path) -> list[Arrival]:
    """Its requests in the order of their arrival, the first at 0 s."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            if head.startswith("TIMESTAMP,"):
                found = _each(path, _azure, csv.DictReader(file), 2)
            elif head.startswith(servegen.HEAD):
                found = servegen.read(path)
            elif head.startswith("{"):
                found = _each(path, _mooncake, file, 1)
            else:
                raise TraceError(f"{path} is no trace that is known: it begins with {head[:40]!r}")
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error}") from None
    except (KeyError, ValueError, TypeError) as error:
        raise TraceError(f"{path} is damaged: {type(error).__name__}: {error}") from None
    if not found:
        raise TraceError(f"{path} has no requests")
    found.sort(key=lambda arrival: arrival.at)
    start = found[0].at
    return [arrival._replace(at=arrival.at - start) for arrival in found]


def _each(path: Path, made: Callable[[T], Arrival | None], rows: Iterable[T], first: int) -> list[Arrival]:
    """Of each row that is not blank; `first` is the line of the first one."""
    found: list[Arrival] = []
    for number, row in enumerate(rows, first):
        try:
            arrival = made(row)
            if arrival is not None and not math.isfinite(arrival.at):
                raise ValueError(f"a time must be finite, not {arrival.at}")
        except (KeyError, ValueError, TypeError) as error:
            raise TraceError(f"{path} is damaged in line {number}: {type(error).__name__}: {error}") from None
        if arrival is not None:
            found.append(arrival)
    return found


def _azure(row: dict[str, str]) -> Arrival:
    return Arrival(_seconds(row["TIMESTAMP"]), max(1, int(row["ContextTokens"])), max(1, int(row["GeneratedTokens"])))


def _seconds(stamp: str) -> float:
    """Of 2023's traces, which name no zone, and of 2024's."""
    # Seven digits of a second, of which Python takes six.
    whole, _, part = stamp.removesuffix("+00:00").partition(".")
    at = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return at.timestamp() + float(f"0.{part or 0}")


def _mooncake(line: str) -> Arrival | None:
    if not line.strip():
        return None
    row = json.loads(line)
    prompt = max(1, int(row["input_length"]))
    # The last block may not be whole. Without hashes no two prompts have anything in common.
    chain = tuple((row.get("hash_ids") or ())[: prompt // HASH_TOKENS])
    return Arrival(row["timestamp"] / 1000, prompt, max(1, int(row["output_length"])), chain)
