"""What an API key looks like: `qk_<id>_<secret><checksum>`.

The id is no secret and names the key in lists and logs. The secret are 256 random bits. The
checksum tells a key that was mistyped or cut off from one that is wrong, without a look-up;
it is no protection.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass, field

PREFIX = "qk_"
_BASE62 = string.digits + string.ascii_letters
_ID_ALPHABET = string.ascii_lowercase + "234567"
_ID_CHARS, _SECRET_CHARS, _SUM_CHARS = 12, 43, 6
_FORM = re.compile(
    f"{PREFIX}([a-z2-7]{{{_ID_CHARS}}})_([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_SUM_CHARS}}})"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key: its id, and its secret, which is not shown where the key is printed."""

    id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """The key as its owner gives it."""
        return f"{PREFIX}{self.id}_{self.secret}{_checksum(self.id, self.secret)}"

    def hash(self) -> bytes:
        """Return what is stored of the secret: 32 bytes of BLAKE2b.

        Slow hashes with a salt make guessing of what people choose expensive. Nobody guesses
        one of 2^256, so that a fast one is as safe, and adds nothing to a call.
        """
        secret = self.secret.encode("ascii")
        return hashlib.blake2b(secret, digest_size=32, person=b"quintet-api-key").digest()


def new_key() -> ApiKey:
    """Return a new key."""
    return ApiKey(
        "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS)),
        "".join(secrets.choice(_BASE62) for _ in range(_SECRET_CHARS)),
    )


def parsed(text: str) -> ApiKey | None:
    """Return the key that `text` is; None where it is none, or its checksum is wrong."""
    match = _FORM.fullmatch(text)
    if match is None or _checksum(match[1], match[2]) != match[3]:
        return None
    return ApiKey(match[1], match[2])


def _checksum(key_id: str, secret: str) -> str:
    number = zlib.crc32(f"{key_id}_{secret}".encode("ascii"))
    digits = []
    for _ in range(_SUM_CHARS):
        number, digit = divmod(number, len(_BASE62))
        digits.append(_BASE62[digit])
    return "".join(digits)
