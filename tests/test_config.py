from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.config import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_environment({}) == Settings()
    assert Settings.from_environment({"ACTORRT_INLINE_LIMIT": ""}) == Settings()


def test_each_type_is_read() -> None:
    settings = Settings.from_environment(
        {
            "ACTORRT_INLINE_LIMIT": "5",
            "ACTORRT_BLOCK_REPORT_S": "0.5",
            "ACTORRT_LOG_TO_DRIVER": "False",
            "ACTORRT_SPILL_DIR": "/spill",
            "OTHER": "1",
        }
    )
    assert settings == Settings(inline_limit=5, block_report_s=0.5, log_to_driver=False, spill_dir="/spill")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("ACTORRT_INLINE_LIMIT", "many"),
        ("ACTORRT_INLINE_LIMIT", "-1"),
        ("ACTORRT_BLOCK_REPORT_S", "nan"),
        ("ACTORRT_BLOCK_REPORT_S", "inf"),
        ("ACTORRT_LOG_TO_DRIVER", "maybe"),
    ],
)
def test_a_text_of_the_wrong_type_is_refused_by_the_name_of_its_variable(variable: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"{variable} must be .*, not '{text}'"):
        Settings.from_environment({variable: text})


@given(text=st.text())
def test_no_text_gives_anything_but_a_value_or_a_value_error(text: str) -> None:
    for variable in ("ACTORRT_INLINE_LIMIT", "ACTORRT_BLOCK_REPORT_S", "ACTORRT_LOG_TO_DRIVER", "ACTORRT_ADDRESS"):
        with suppress(ValueError):
            Settings.from_environment({variable: text})


def test_the_variables_are_those_of_the_process_as_they_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORRT_NAMESPACE", "färöer")
    monkeypatch.setenv("ACTORRT_LOG_ROTATION_COUNT", "7")
    settings = Settings.from_environment()
    assert (settings.namespace, settings.log_rotation_count) == ("färöer", 7)
    monkeypatch.delenv("ACTORRT_NAMESPACE")
    assert Settings.from_environment().namespace == ""
