"""Any str as bytes and back: names of files and arguments that are no UTF-8, which Python holds as halves of pairs."""


def as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
