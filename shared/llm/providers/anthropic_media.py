"""OpenAI's images and files as Anthropic's content blocks."""

import base64
import binascii
from typing import Any

from shared.errors import InvalidRequest, UnsupportedParameter

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def media_block(kind: str, fields: dict[str, Any], where: str) -> dict[str, Any]:
    """The block for a part that is no text. ``detail`` of an image is left out: Anthropic knows one resolution.

    Raises InvalidRequest when the part is not well made, UnsupportedParameter when Anthropic takes no such thing.
    """
    if kind == "image_url":
        return {"type": "image", "source": _image_source(_url(fields, where), where)}
    if kind == "file":
        return _document(fields.get("file"), where)
    raise UnsupportedParameter(f"content parts of type {kind!r} are not supported by this model", param=where)


def _url(fields: dict[str, Any], where: str) -> str:
    image = fields.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url:
        raise InvalidRequest("image_url must hold a url", param=f"{where}.image_url")
    return url


def _image_source(url: str, where: str) -> dict[str, str]:
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    if not url.startswith("data:"):
        raise InvalidRequest("an image's url must begin with https:// or data:", param=f"{where}.image_url.url")
    media_type, data = _data_url(url, f"{where}.image_url.url")
    if media_type not in IMAGE_TYPES:
        raise UnsupportedParameter(
            f"images of type {media_type!r} are not supported by this model; {', '.join(IMAGE_TYPES)} are",
            param=f"{where}.image_url.url",
        )
    return {"type": "base64", "media_type": media_type, "data": data}


def _document(file: Any, where: str) -> dict[str, Any]:
    data_url = file.get("file_data") if isinstance(file, dict) else None
    if not isinstance(data_url, str):
        raise UnsupportedParameter("this model takes files only as file_data", param=f"{where}.file")
    media_type, data = _data_url(data_url, f"{where}.file.file_data")
    if media_type != "application/pdf":
        raise UnsupportedParameter("this model takes files only as PDF", param=f"{where}.file.file_data")
    return {"type": "document", "source": {"type": "base64", "media_type": media_type, "data": data}}


def _data_url(url: str, where: str) -> tuple[str, str]:
    """Media type and base64 text of ``data:image/png;base64,…`` (RFC 2397)."""
    head, comma, data = url.removeprefix("data:").partition(",")
    media_type, *options = head.lower().split(";")
    if not comma or "base64" not in options:
        raise InvalidRequest("must be a data: URL in base64", param=where)
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the data: URL does not hold base64", param=where) from None
    return "image/jpeg" if media_type == "image/jpg" else media_type, data
