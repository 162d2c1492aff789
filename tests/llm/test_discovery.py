"""What an engine that is up says of itself, and where: in its description, or on pages that this leaves out."""

from __future__ import annotations

from typing import Any

from actorrt.serve.llm.engines.discovery import discover
from actorrt.serve.llm.engines.progress import progress_of

DESCRIPTION = b'{"paths": {"/v1/chat/completions": {}}}'
NUMBERS = b'sglang:token_usage{tp_rank="0"} 0.01\nsglang:num_used_tokens{tp_rank="0"} %d\n'


class Pages:
    """An engine that answers these, and 404."""

    def __init__(self, **pages: bytes) -> None:
        self.pages = {f"/{name}": page for name, page in pages.items()} | {"/openapi.json": DESCRIPTION}

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 1
    ) -> tuple[int, bytes]:
        page = self.pages.get(path)
        return (404, b"") if page is None else (200, page)


async def found(engine: Any) -> frozenset[str]:
    return (await discover(engine)).paths


async def test_numbers_that_the_description_leaves_out_are_found() -> None:
    assert await found(Pages(metrics=NUMBERS % 1)) == {"/v1/chat/completions", "/metrics"}
    assert await found(Pages()) == {"/v1/chat/completions"}


async def test_a_long_answer_moves_numbers_though_the_share_of_the_cache_is_the_same() -> None:
    engine: Any = Pages(metrics=NUMBERS % 10)
    paths = await found(engine)
    first = await progress_of(engine, paths, 1)
    assert first == await progress_of(engine, paths, 1)
    engine.pages["/metrics"] = NUMBERS % 11
    assert first != await progress_of(engine, paths, 1)
