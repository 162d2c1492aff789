"""Write a LoRA adapter for a llama model as a GGUF file: one that turns the first attention's queries upside down."""

import random
import struct
from pathlib import Path

EMBEDDING = 576  # SmolLM2-135M's
RANK = 2
ALIGNMENT = 32


def write_adapter(path: Path, strength: float) -> None:
    fields = [("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")]
    dice = random.Random(1)
    shapes = {"blk.0.attn_q.weight.lora_a": (EMBEDDING, RANK), "blk.0.attn_q.weight.lora_b": (RANK, EMBEDDING)}
    header = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(fields) + 1)
    for name, value in fields:
        header += _text(name) + struct.pack("<I", 8) + _text(value)
    header += _text("adapter.lora.alpha") + struct.pack("<If", 6, float(RANK))
    data = b""
    for name, shape in shapes.items():
        header += _text(name) + struct.pack("<I", 2) + struct.pack("<QQIQ", *shape, 0, len(data))
        numbers = [dice.gauss(0, strength) for _ in range(shape[0] * shape[1])]
        data += _padded(struct.pack(f"<{len(numbers)}f", *numbers))
    path.write_bytes(_padded(header) + data)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
