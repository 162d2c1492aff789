"""docs/wire-format.md lists every message under its tag, and no other."""

import re
from pathlib import Path
from typing import Final

import msgspec

from actorrt.wire import frames, messages

PAGE: Final = (Path(__file__).resolve().parent.parent.parent / "docs" / "wire-format.md").read_text(encoding="utf-8")


def test_every_message_stands_in_the_table_under_its_tag() -> None:
    in_code = {
        kind.__struct_config__.tag: name
        for name, kind in vars(messages).items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_config__.tag is not None
    }
    on_page = {int(tag): name for tag, name in re.findall(r"^\| (\d+) \| (\w+) \|", PAGE, re.MULTILINE)}
    assert on_page == in_code


def test_the_fields_of_the_hello_are_named() -> None:
    for field in messages.Hello.__struct_fields__:
        assert f"`{field}`" in PAGE


def test_the_version_and_the_limits_are_those_of_the_code() -> None:
    assert f"protocol version {messages.PROTOCOL_VERSION}" in PAGE
    assert f"{frames.MAX_FRAME_BYTES // 2**20} MiB" in PAGE
    assert frames.encode_frame(b"x" * 42).startswith(b"0000002a\r\n")
