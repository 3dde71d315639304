"""Small real PDFs, made by hand: what a PDF is made of is then what a test says, down to the byte."""

import zlib
from collections.abc import Sequence

Line = tuple[float, str]
"""A font size in points and a text."""


def pdf(pages: Sequence[Sequence[Line]], *, title: str = "", trailer: str = "") -> bytes:
    """A PDF with a page per list of lines, each 1.4 sizes below the last; an empty text is an empty line."""
    letters = sorted({character for page in pages for _, text in page for character in text})
    codes = {character: code for code, character in enumerate(letters, start=1)}
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", *_font(codes), b"<< /Title %s >>" % _utf16(title)]
    kids = []
    for lines in pages:
        content = _content(lines, codes)
        objects.append(_stream(content))
        page = f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {len(objects)} 0 R"
        objects.append(f"{page} /Resources << /Font << /F1 3 0 R >> >> >>".encode())
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    return file_of(objects, trailer + " /Info 5 0 R")


def file_of(objects: Sequence[bytes], trailer: str = "") -> bytes:
    """The file of numbered objects, the first of which is the catalogue."""
    out, offsets = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    tail = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(out)}\n%%EOF\n"
    return bytes(out) + head.encode() + tail.encode()


def _stream(data: bytes) -> bytes:
    packed = zlib.compress(data)
    return b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(packed), packed)


def _content(lines: Sequence[Line], codes: dict[str, int]) -> bytes:
    out, y = ["BT"], 800.0
    for size, text in lines:
        y -= size * 1.4
        shown = "".join(f"{codes[character]:02x}" for character in text)
        out.append(f"/F1 {size} Tf 1 0 0 1 50 {y:.1f} Tm <{shown}> Tj")
    return " ".join([*out, "ET"]).encode()


def _font(codes: dict[str, int]) -> list[bytes]:
    """A font whose codes mean what its table to Unicode says, as PDF writers make them for Cyrillic."""
    pairs = "\n".join(f"<{code:02x}> <{character.encode('utf-16-be').hex()}>" for character, code in codes.items())
    table = f"1 begincodespacerange\n<00> <ff>\nendcodespacerange\n{len(codes)} beginbfchar\n{pairs}\nendbfchar"
    widths = " ".join(["500"] * 256)
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 4 0 R /FirstChar 0 /LastChar 255"
    cmap = f"/CIDInit /ProcSet findresource begin begincmap\n{table}\nendcmap end"
    return [f"{font} /Widths [{widths}] >>".encode(), _stream(cmap.encode())]


def _utf16(text: str) -> bytes:
    return b"<%b>" % (b"\xfe\xff" + text.encode("utf-16-be")).hex().encode()
