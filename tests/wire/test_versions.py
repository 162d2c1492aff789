"""Which versions mix is a table, and where two do not, a sentence says what to install."""

import pytest

from actorrt.version import __version__
from actorrt.wire.versions import MIXES, mix, numbers, why_not_protocol, why_not_python, why_not_version


@pytest.mark.parametrize(
    ("one", "other", "mixes"),
    [
        ("0.1.0", "0.1.0", True),
        ("0.1.0", "0.1.9", True),
        ("0.1.9", "0.2.0", True),
        ("1.4", "1.3.2", True),
        ("0.1.0", "0.3.0", False),
        ("0.9.0", "1.0.0", False),
        ("1.2.0", "2.2.0", False),
        ("0.1.0", "0.1.0.dev1", True),
        ("main", "main", True),
        ("main", "0.1.0", False),
    ],
)
def test_patch_releases_and_neighbours_mix(one: str, other: str, mixes: bool) -> None:
    assert mix(one, other) is mixes
    assert mix(other, one) is mixes
    assert (why_not_version(one, other) == "") is mixes


def test_the_table_holds_what_one_upgrade_needs() -> None:
    assert MIXES == {0: True, 1: True}
    assert numbers(__version__) is not None


def test_a_sentence_names_both_versions_and_what_to_do() -> None:
    assert why_not_protocol(3, "0.2", 3, "0.1") == ""
    assert why_not_protocol(3, "0.2", 2, "0.1") == (
        "actorrt 0.1 speaks protocol 2, actorrt 0.2 speaks 3: install the same actorrt version on both sides"
    )
    assert "actorrt 0.4 and actorrt 0.2 do not mix" in why_not_version("0.2", "0.4")
    assert why_not_python("3.11.7", "3.11.2") == ""
    assert "install Python 3.11 on both sides" in why_not_python("3.11.7", "3.12.0")
