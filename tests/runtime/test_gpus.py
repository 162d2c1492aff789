"""GPUs go by the names of CUDA_VISIBLE_DEVICES. No GPU is needed here: they are only counted and named."""

from __future__ import annotations

import os

import pytest

import actorrt
from actorrt.runtime.machine import gpus


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, None),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("4,5,6", ["4", "5", "6"]),
        (" 4, 5 ", ["4", "5"]),
        ("GPU-8932f937-d72c,MIG-GPU-ab/1/0", ["GPU-8932f937-d72c", "MIG-GPU-ab/1/0"]),
    ],
)
def test_the_variable_is_read_as_cuda_reads_it(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, names: list[str] | None
) -> None:
    monkeypatch.delenv(gpus.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(gpus.VARIABLE, variable)
    assert gpus.named() == names


def test_numbers_are_given_as_such_and_other_names_as_they_are() -> None:
    assert gpus.ids(["4", "GPU-8932f937", "MIG-ab"]) == [4, "GPU-8932f937", "MIG-ab"]


@pytest.mark.parametrize("variable", ["", "-1", "7", "GPU-8932f937"])
def test_more_gpus_than_the_variable_names_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(gpus.VARIABLE, variable)
    with pytest.raises(ValueError, match=r"num_gpus=2.*CUDA_VISIBLE_DEVICES"):
        actorrt.init(num_cpus=1, num_gpus=2)
    assert not actorrt.is_initialized()


@actorrt.remote(num_gpus=1, num_cpus=0)
def which() -> tuple[list[int | str], str | None, dict[str, list[str]]]:
    return (
        actorrt.get_gpu_ids(),
        os.environ.get("CUDA_VISIBLE_DEVICES"),
        actorrt.get_runtime_context().get_accelerator_ids(),
    )


def test_a_worker_has_the_names_of_its_gpus_whatever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VARIABLE, "GPU-8932f937,7")
    with actorrt.init(num_cpus=1, num_gpus=2):
        seen = {variable: (ids, known["GPU"]) for ids, variable, known in actorrt.get([which.remote() for _ in "1234"])}
        assert seen.items() <= {"GPU-8932f937": (["GPU-8932f937"], ["GPU-8932f937"]), "7": ([7], ["7"])}.items()
        own = which.options(runtime_env={"env_vars": {"CUDA_VISIBLE_DEVICES": "3"}})
        assert actorrt.get(own.remote()) == ([3], "3", {"GPU": ["3"]})
