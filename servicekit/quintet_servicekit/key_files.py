"""Ed25519 keys in PEM files, which may be replaced while a service runs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from quintet_servicekit import telemetry

T = TypeVar("T")

LOOK_SECONDS = 5.0
"""How often the files are looked at for a change, at most."""
MAX_KEYS = 16
"""Most public keys: one, and two while they are exchanged, for each of some gateways."""


class KeyFileError(Exception):
    """A file that holds no such key, or too many of them."""


class WatchedFiles:
    """Reads a file, or the files of a folder, anew when they changed since they were last read.

    Kubernetes exchanges a mounted Secret by a link: what is compared is where that leads.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[tuple[str, int, int, int], ...] | None = None
        self._next_look = 0.0

    def changed(self, read: Callable[[], T]) -> T | None:
        """Return what `read` makes of them if they changed, or were never read; looks every
        few seconds only. Where it raises, they are read again at the next look."""
        now = time.monotonic()
        if now < self._next_look:
            return None
        self._next_look = now + LOOK_SECONDS
        state = tuple(
            (it.name, stat.st_mtime_ns, stat.st_size, stat.st_ino)
            for it in self.files()
            for stat in (it.stat(),)
        )
        if state == self._seen:
            return None
        content = read()
        self._seen = state
        return content

    def files(self) -> list[Path]:
        """Return the files as they are now. Raises `KeyFileError` when there is none."""
        if not self._path.exists():
            raise KeyFileError(f"{self._path} does not exist")
        if not self._path.is_dir():
            return [self._path]
        return sorted(it for it in self._path.iterdir() if it.is_file() and it.suffix == ".pem")


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a public key: 16 hex digits of its SHA-256."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def read_private_key(file: Path) -> Ed25519PrivateKey:
    """Return the private key of a PEM file. Raises `KeyFileError`."""
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        # The cause names the file at most; a loader's message may hold pieces of the key.
        raise KeyFileError(f"{file} cannot be read as a private key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{file} holds no Ed25519 private key")
    return key


def read_public_keys(files: list[Path]) -> Mapping[str, Ed25519PublicKey]:
    """Return the public keys of PEM files, by their names. Raises `KeyFileError`."""
    keys: dict[str, Ed25519PublicKey] = {}
    for file in files:
        try:
            key = load_pem_public_key(file.read_bytes())
        except (OSError, ValueError) as error:
            raise KeyFileError(f"{file} cannot be read as a public key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise KeyFileError(f"{file} holds no Ed25519 public key")
        keys[key_id(key)] = key
    if not 1 <= len(keys) <= MAX_KEYS:
        raise KeyFileError(f"there must be 1 to {MAX_KEYS} public keys, and there are {len(keys)}")
    return keys


class PublicKeys:
    """The public keys of a file or a folder; a change is noticed within some seconds.

    Raises `KeyFileError` when they cannot be read at first. Later the ones before are kept,
    and that is logged.
    """

    def __init__(self, path: Path) -> None:
        self._files = WatchedFiles(path)
        self.version = 0
        """Rises with each change."""
        self._keys = self._files.changed(self._read) or {}

    def refresh(self) -> None:
        """Read the files anew where they changed."""
        try:
            if keys := self._files.changed(self._read):
                self._keys = keys
                self.version += 1
        except (KeyFileError, OSError) as error:
            telemetry.logger().error("public keys cannot be read anew", cause=str(error))

    def _read(self) -> Mapping[str, Ed25519PublicKey]:
        return read_public_keys(self._files.files())

    def get(self, name: str) -> Ed25519PublicKey | None:
        """Return the key of that name."""
        return self._keys.get(name)


def write_key_pair(private: Path, public: Path) -> None:
    """Make a key pair and write it: the private one for its owner alone."""
    key = Ed25519PrivateKey.generate()
    private.unlink(missing_ok=True)
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(shown)
