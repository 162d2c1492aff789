"""Read a form with a file (multipart/form-data, RFC 7578) as it comes, by the package python-multipart. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..problems import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartParser

# Of a form there may be so many fields, each of so many bytes.
MOST_FIELDS: Final = 32
LONGEST_FIELD: Final = 4096
# What a form has around its file, at most.
AROUND: Final = 256 * 1024


class Form:
    """`fields` besides the file, the file's name (None: there is none so far), and of its bytes how many came."""

    def __init__(self, content_type: bytes) -> None:
        """Problem 400 if this is no form with files; 501 without python-multipart."""
        try:
            from python_multipart.exceptions import MultipartParseError
            from python_multipart.multipart import MultipartParser, parse_options_header
        except ImportError:
            message = "/v1/files needs the package python-multipart: pip install 'actorrt[llm]'"
            raise Problem(501, message, code="not_installed") from None
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not 0 < len(boundary) <= 256:
            shown = content_type.decode("latin-1")[:128]
            message = (
                f"the body must be a form, multipart/form-data with a boundary, and not {shown or 'without a type'!r}"
            )
            raise Problem(400, message, code="invalid_form")
        self._parse_options = parse_options_header
        self._error: type[Exception] = MultipartParseError
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size = 0
        self._came: list[bytes] = []
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        # Of the part that comes: its name, and its bytes if it is no file.
        self._name, self._data, self._is_file = "", bytearray(), False
        self._ended = False
        callbacks: Any = {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        self._parser: MultipartParser = MultipartParser(boundary, callbacks)

    def feed(self, data: bytes) -> None:
        """A part of the body. Problem 400 if it is wrong."""
        try:
            self._parser.write(data)
        except self._error as error:
            raise _malformed(str(error)) from None

    def take(self) -> list[bytes]:
        """The bytes of the file that came since it was last asked."""
        came, self._came = self._came, []
        return came

    def end(self) -> None:
        """The body has ended. Problem 400 if the form has not."""
        if not self._ended:
            raise _malformed("it ends before its last boundary")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = self._parse_options(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options
        self._data.clear()
        if not self._is_file:
            return
        if self._name != "file" or self.filename is not None:
            raise Problem(400, "the form must have one file, by the name of 'file'", param="file", code="invalid_form")
        self.filename = options[b"filename"].decode("utf-8", "replace")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.size += end - start
            self._came.append(data[start:end])
        elif len(self._data) + end - start > LONGEST_FIELD:
            message = f"the field {self._name[:64]!r} is longer than {LONGEST_FIELD} bytes"
            raise Problem(400, message, param=self._name[:64], code="invalid_form")
        else:
            self._data += data[start:end]

    def _on_part_end(self) -> None:
        if self._is_file:
            return
        if len(self.fields) >= MOST_FIELDS:
            raise Problem(400, f"the form has more than {MOST_FIELDS} fields", code="invalid_form")
        self.fields[self._name] = self._data.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True


def _malformed(reason: str) -> Problem:
    return Problem(400, f"the form cannot be read: {reason}", code="invalid_form")
