"""Map shared memory to write to: at a huge page's boundary, with its pages there before they are written.

Page faults are nearly the whole cost of writing new memory: a memfd whose pages are made one by one is filled at a
fifth of the speed of warm memory. `allocate` has the kernel make pages of 2 MiB (MADV_COLLAPSE, since Linux 6.1), for
which the mapping has to lie at a multiple of 2 MiB; Python's mmap cannot ask for an address, hence ctypes. All of it
runs without the interpreter lock. Nothing here decides what to map, or knows what is written.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Final

HUGE_PAGE: Final = 2 << 20
# Below this the copy is over sooner than the lock would be back.
_COPY_WITHOUT_LOCK: Final = 8 << 20
# What one call may hold up a signal: about a tenth of a second.
_CHUNK: Final = 1 << 30

_MADV_COLLAPSE: Final = 25
_MAP_FIXED: Final = 0x10
_PROT_NONE: Final = 0
_FAILED: Final = ctypes.c_void_p(-1).value
_PYBUF_WRITE: Final = 0x200

# False once the kernel said that it does not know how.
can_collapse: bool = True

_libc: Final = ctypes.CDLL(None, use_errno=True)
_mmap: Final = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_munmap: Final = _libc.munmap
_munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_madvise: Final = _libc.madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class _Buffer(ctypes.Structure):
    """Py_buffer, part of the stable ABI since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer: Final = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_release_buffer: Final = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None
_view_of_memory: Final = ctypes.pythonapi.PyMemoryView_FromMemory
_view_of_memory.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_of_memory.restype = ctypes.py_object


def _map(address: int | None, size: int, protection: int, flags: int, fd: int) -> int:
    found = _mmap(address, size, protection, flags, fd, 0)
    if found == _FAILED or found is None:
        number = ctypes.get_errno()
        raise OSError(number, f"mmap of {size} bytes: {os.strerror(number)}")
    return found


class WritableMapping:
    """The first `size` bytes of a memfd, mapped to be written, from a multiple of 2 MiB on if they are that many.

    `size` is a multiple of the page size. With `populate` the pages that are there already are in the page tables when
    this returns. Raises OSError. Nothing is written after `close`, which may be called twice.
    """

    __slots__ = ("_address", "size")

    def __init__(self, fd: int, size: int, *, populate: bool = False) -> None:
        self.size = size
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
        if size < HUGE_PAGE:
            self._address = _map(None, size, protection, flags, fd)
            return
        whole = size + HUGE_PAGE
        start = _map(None, whole, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1)
        self._address = -(-start // HUGE_PAGE) * HUGE_PAGE
        front = self._address - start
        if front:
            _munmap(start, front)
        _munmap(self._address + size, HUGE_PAGE - front)
        try:
            _map(self._address, size, protection, flags | _MAP_FIXED, fd)
        except OSError:
            _munmap(self._address, size)
            raise

    def allocate(self, fd: int) -> bool:
        """Have the kernel make all pages, huge ones as far as they go. False if it does not, or not now.

        The memfd `fd` is the one that is mapped, and has its full length. Raises OSError if there is no memory left.
        """
        global can_collapse
        if not can_collapse:
            return False
        whole = self.size // HUGE_PAGE * HUGE_PAGE
        for start in range(0, whole, HUGE_PAGE):
            # A part that is nothing but a hole is not collapsed.
            os.posix_fallocate(fd, start, 1)
        if whole and _madvise(self._address, whole, _MADV_COLLAPSE) != 0:
            if ctypes.get_errno() == errno.EINVAL:
                can_collapse = False
            return False
        if self.size > whole:
            os.posix_fallocate(fd, whole, self.size - whole)
        return True

    def write(self, offset: int, source: memoryview) -> None:
        """Copy contiguous bytes in. If a page is missing that cannot be made, the process dies: `allocate` before."""
        size = source.nbytes
        if not self._address:
            raise ValueError("the mapping is closed")
        if offset < 0 or offset + size > self.size:
            raise ValueError(f"{size} bytes at {offset} do not lie within {self.size}")
        if size < _COPY_WITHOUT_LOCK:
            target: memoryview = _view_of_memory(self._address + offset, size, _PYBUF_WRITE)
            target[:] = source
            return
        held = _Buffer()
        _get_buffer(source, held, 0)
        try:
            for done in range(0, size, _CHUNK):
                ctypes.memmove(self._address + offset + done, held.buf + done, min(_CHUNK, size - done))
        finally:
            _release_buffer(held)

    def view(self, start: int, size: int) -> memoryview:
        """So many bytes of it, to be written by whoever fills them; not after `close`. ValueError: there are not."""
        if not self._address or start < 0 or size < 0 or start + size > self.size:
            raise ValueError(f"{size} bytes at {start} do not lie within {self.size if self._address else 0}")
        return _view_of_memory(self._address + start, size, _PYBUF_WRITE)

    def close(self) -> None:
        address, self._address = self._address, 0
        if address:
            _munmap(address, self.size)
