"""The signature of a webhook: over the time and the body, so that neither can be changed nor sent again later. Pure."""

import hashlib
import hmac

SIGNATURE_HEADER = "x-daarion-signature"


def sign(secret: str, body: bytes, at: int) -> str:
    """``t=<Unix seconds>,v1=<hex of HMAC-SHA256 over "<t>.<body>">``."""
    digest = hmac.new(secret.encode(), b"%d." % at + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
