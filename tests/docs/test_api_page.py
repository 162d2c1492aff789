"""docs/api.md, the API reference: it is what `make reference` writes, and no public name lacks its words."""

import re
import runpy
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
MAKE: Final = runpy.run_path(str(ROOT / "docs" / "make_api.py"))
PAGE: Final = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_docstrings_say_now() -> None:
    assert MAKE["page"]() == PAGE, "`make reference` writes docs/api.md anew"


def test_every_public_name_has_words_beside_its_signature() -> None:
    bare: list[str] = []
    for section in re.split(r"^(?=### `)", PAGE, flags=re.MULTILINE)[1:]:
        name = section.split("`")[1]
        words = re.sub(r"```.*?```", "", section.partition("\n")[2], flags=re.DOTALL)
        if not words.strip():
            bare.append(name)
    assert bare == []


def test_every_term_of_the_glossary_stands_once() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\| \*\*(.+?)\*\*", glossary, re.MULTILINE)
    assert terms
    assert sorted(set(terms)) == sorted(terms)
