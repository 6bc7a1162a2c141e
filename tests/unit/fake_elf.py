"""Programs of some 200 bytes that say one line and end, to stand for those of a control plane."""

from __future__ import annotations

import struct
from pathlib import Path

X86_64, AARCH64 = 62, 183

KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


def elf(says: str = "", *, exits: int = 0, then: str = "exit", machine: int = X86_64) -> bytes:
    """An x86-64 ELF program that writes ``says`` to its standard output.

    ``then``: ``exit`` with code ``exits``; ``hang`` for ever; ``crash`` by an illegal instruction.
    ``machine`` is the processor named in the header, whatever the code is for.
    """
    base, code_at = 0x400000, 64 + 56
    text = says.encode()

    def code(text_at: int) -> bytes:
        write = (
            b"\xb8"
            + struct.pack("<I", 1)  # mov eax, SYS_write
            + b"\xbf"
            + struct.pack("<I", 1)  # mov edi, stdout
            + b"\x48\xbe"
            + struct.pack("<Q", text_at)  # mov rsi, text
            + b"\xba"
            + struct.pack("<I", len(text))  # mov edx, length
            + b"\x0f\x05"  # syscall
        )
        end = {
            "exit": b"\xb8"
            + struct.pack("<I", 60)  # mov eax, SYS_exit
            + b"\xbf"
            + struct.pack("<I", exits)  # mov edi, code
            + b"\x0f\x05",
            "hang": b"\xb8" + struct.pack("<I", 34) + b"\x0f\x05",  # SYS_pause
            "crash": b"\x0f\x0b",  # ud2
        }[then]
        return write + end

    size = code_at + len(code(0))
    header = b"\x7fELF" + bytes([2, 1, 1, 0]) + bytes(8)
    header += struct.pack(
        "<HHIQQQIHHHHHH", 2, machine, 1, base + code_at, 64, 0, 0, 64, 56, 1, 64, 0, 0
    )
    total = size + len(text)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, total, total, 0x1000)
    return header + segment + code(base + size) + text


def program(name: str, version: str) -> bytes:
    """A stand-in for ``name`` that answers as the real one of ``version`` does."""
    if name == "etcd":
        return elf(f"etcd Version: {version}\nGit SHA: none\nGo Version: go1.26\n")
    return elf(f"Kubernetes v{version}\n")


def put(folder: Path, name: str, content: bytes, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def control_plane(folder: Path, version: str = "1.36.5", etcd: str = "3.6.8") -> Path:
    """All five in ``folder``."""
    put(folder, "etcd", program("etcd", etcd))
    for name in KUBERNETES:
        put(folder, name, program(name, version))
    return folder
