"""The control socket: a big-endian u32 length and as many bytes of JSON (`api/src/message.rs`)."""

from __future__ import annotations

import json
import socket
import struct
from pathlib import Path
from typing import Any

PROTOCOL_VERSION = 1


class Control:
    """A connection to the data plane, in the place of sluice-control."""

    def __init__(self, path: Path) -> None:
        self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.stream.settimeout(10)
        self.stream.connect(str(path))

    def ask(self, request: str, **fields: Any) -> dict[str, Any]:
        """One request, one response."""
        message = {"version": PROTOCOL_VERSION, "message": {"request": request, **fields}}
        body = json.dumps(message).encode()
        self.stream.sendall(struct.pack(">I", len(body)) + body)
        (length,) = struct.unpack(">I", self._read(4))
        response: dict[str, Any] = json.loads(self._read(length))["message"]
        if response["response"] in ("error", "rejected"):
            raise RuntimeError(f"{request}: {response}")
        return response

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            part = self.stream.recv(length - len(data))
            if not part:
                raise ConnectionError("the data plane closed the control socket")
            data += part
        return data

    def close(self) -> None:
        """Hang up."""
        self.stream.close()
