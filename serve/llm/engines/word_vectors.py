"""The model that the package `wordllama` carries: a vector for each token, whose mean stands for a text.

Only the package's files are used: the package itself, once imported, sets up the program's logging and may look for
its files elsewhere. Its vectors were trained so that their first numbers alone are good ones too ("Matryoshka
Representation Learning", NeurIPS'22).
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

DIMENSIONS: Final = 256
_AT_ONCE: Final = 4096


class WordVectors:
    """Everything here computes, and is for a thread. Raises ModuleNotFoundError where a package is missing."""

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        arrays: Any = import_module("safetensors.numpy")
        found = find_spec("wordllama")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'wordllama'", name="wordllama")
        folder = Path(found.submodule_search_locations[0])
        # Tokenizers and safetensors are typed by their binary halves alone.
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
        self._vectors: Any = arrays.load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [each.ids for each in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def text(self, tokens: list[int]) -> str:
        """Raises ValueError for a number that is no token."""
        known = self._tokenizer.get_vocab_size()
        for token in tokens:
            if not 0 <= token < known:
                raise ValueError(f"{token} is no token: there are 0 to {known - 1}")
        return self._tokenizer.decode(tokens)

    def embed(self, texts: Sequence[Sequence[int]], dimensions: int = DIMENSIONS) -> Any:
        """A row of length 1 for each text, given in its tokens."""
        import numpy as np

        rows = np.zeros((len(texts), dimensions), np.float32)
        for row, tokens in zip(rows, texts, strict=True):
            # In parts, so that a long text does not need its length in vectors.
            for start in range(0, len(tokens), _AT_ONCE):
                part = self._vectors[tokens[start : start + _AT_ONCE], :dimensions]
                row += part.sum(axis=0, dtype=np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
