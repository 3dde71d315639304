"""Sealing: a secret's value as the database holds it.

Each row has a key of its own, derived (HKDF-SHA256, RFC 5869) from the installation's key, the microDAO and the name:
a sealed value that is copied to another row, of another tenant say, does not open there.
"""

import base64
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.errors import Unavailable

_PURPOSE = "daarion tool secret v1"


class Sealer:
    """Seals with the first key, opens with any. Raises Unavailable without a key."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys or not all(keys):
            raise Unavailable("DAARION_SECRET_KEY is not set: tools' secrets are sealed with it")
        self._keys = tuple(keys)

    def seal(self, microdao_id: str, name: str, value: str) -> bytes:
        """The value as it may be stored."""
        return self._fernet(microdao_id, name).encrypt(value.encode())

    def open(self, microdao_id: str, name: str, sealed: bytes) -> str:
        """The value. Raises Unavailable when no key of this installation opens it."""
        try:
            return self._fernet(microdao_id, name).decrypt(sealed).decode()
        except InvalidToken:
            raise Unavailable(
                f"the secret {name!r} was sealed with a key that this installation has no more; set it again"
            ) from None

    def reseal(self, microdao_id: str, name: str, sealed: bytes) -> bytes:
        """The same value, sealed with the first key. Raises Unavailable."""
        return self.seal(microdao_id, name, self.open(microdao_id, name, sealed))

    def _fernet(self, microdao_id: str, name: str) -> MultiFernet:
        info = "\0".join((_PURPOSE, microdao_id, name)).encode()
        return MultiFernet([Fernet(_derived(key.encode(), info)) for key in self._keys])


def _derived(key: bytes, info: bytes) -> bytes:
    return base64.urlsafe_b64encode(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key))
