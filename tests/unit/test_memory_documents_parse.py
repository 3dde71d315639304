"""What documents of each media type are read as, and how broken and hostile ones are refused."""

import io
import random
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from shared.memory.documents import isolation
from shared.memory.documents.limits import MAX_BYTES, MAX_CHARACTERS, MAX_PAGES
from shared.memory.documents.model import Block
from shared.memory.documents.parse import parse_document
from shared.memory.documents.parse_html import parse_html
from shared.memory.documents.parse_markdown import parse_markdown
from shared.memory.documents.parse_pdf import parse_pdf
from shared.memory.documents.parse_text import parse_text
from tests.unit.pdf_files import file_of, pdf

STATUTE = pdf(
    [
        [
            (20, "Статут кооперативу"),
            (11, "Енергія належить усім мешкан-"),
            (11, "цям будинку, її ділять порівну."),
            (11, ""),
            (11, "Взнос платят ежемесячно, не позднее десятого числа."),
            (11, ""),
            (11, "• сонячні панелі"),
            (11, "• акумулятори"),
        ],
        [(14, "Розділ 2"), (11, "Members vote once a year.")],
    ],
    title="Статут 2026",
)


def blocks(document):
    return [(block.kind, block.text) for block in document.blocks]


# Plain text


def test_plain_text_is_paragraphs_between_blank_lines():
    text = "\ufeffПривіт,\r\nсвіте!\r\n \t\r\n\r\nДругий\u00ad абзац.\rрядок"
    document = parse_document(text.encode(), "text/plain; charset=UTF-8", title=" Лист \n")
    assert document.title == "Лист"
    assert blocks(document) == [("paragraph", "Привіт,\nсвіте!"), ("paragraph", "Другий абзац.\nрядок")]
    assert document.text == "Привіт,\nсвіте!\n\nДругий абзац.\nрядок"
    assert [document.text[offset] for offset in document.offsets] == ["П", "Д"]


@pytest.mark.parametrize("media_type", ["text/plain", "text/markdown", "text/html"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no text"),
        (b" \n\t\r\n", "no text"),
        ("Привіт".encode() + b"\xff\xfe", "byte 0xff at offset 12"),
        (b"\xef\xbb\xbfabc\xff", "byte 0xff at offset 6"),
        (b"ab\xd0", "byte 0xd0 at offset 2"),
        (b"ab\0c", "a NUL character, as number 3"),
    ],
)
def test_text_that_is_none_is_refused(media_type, data, said):
    with pytest.raises(InvalidRequest, match=said) as caught:
        parse_document(data, media_type)
    assert caught.value.param == "content"


@pytest.mark.parametrize("media_type", ["application/msword", "text", "", "image/png", "text/plain; charset=koi8-u"])
def test_other_media_types_are_refused(media_type):
    with pytest.raises(UnsupportedMediaType):
        parse_document(b"abc", media_type)


def test_documents_have_a_largest_size():
    with pytest.raises(TooLarge, match="bytes"):
        parse_document(b"a" * (MAX_BYTES + 1), "application/pdf")
    with pytest.raises(TooLarge, match="characters"):
        parse_document(b"a" * (MAX_CHARACTERS + 1), "text/plain")
    assert len(parse_document(b"a" * MAX_CHARACTERS, "text/plain").text) == MAX_CHARACTERS


@given(st.text(alphabet=st.sampled_from("ab \n\t\r\x0b\u2028")))
def test_plain_text_loses_no_word(text):
    assert parse_text(text.replace("\r", "\n")).text.split() == text.split()


# Markdown


MARKDOWN = """---
tags: [energy]
title: "Статут: чернетка"
---
# Перший *розділ*

Абзац з `кодом`, [посиланням](https://example.com) та
другим рядком.\\
Третій &amp; останній ![схема](a.png).

- один
  - два

    більше
- три

3. c
4. d

| Ім'я | Внесок |
|------|--------|
| Оля  | **10** |

```python
def f():

    return "# not a heading"
```

<details><summary>Ще</summary><script>alert(1)</script><p>сховане</p></details>

> цитата
"""


def test_markdown_is_read_by_its_structure():
    document = parse_document(MARKDOWN.encode(), "text/markdown")
    assert document.title == "Статут: чернетка"
    assert blocks(document) == [
        ("heading", "Перший розділ"),
        ("paragraph", "Абзац з кодом, посиланням та другим рядком.\nТретій & останній схема."),
        ("list", "- один\n  - два\n    більше\n- три"),
        ("list", "3. c\n4. d"),
        ("table", "Ім'я | Внесок\nОля | 10"),
        ("code", 'def f():\n\n    return "# not a heading"'),
        ("paragraph", "Ще"),
        ("paragraph", "сховане"),
        ("paragraph", "цитата"),
    ]
    assert document.blocks[0].level == 1


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("## Two\n\n# One\n\ntext", "One"),
        ("text only", None),
        ("---\ntitle: ''\n---\n# One", "One"),
        ("---\ntitle: It's\n---\ntext", "It's"),
        ("---\ntitle: no end\n\ntext", None),
    ],
)
def test_title_of_markdown(text, title):
    assert parse_markdown(text).title == title


def test_a_title_that_is_the_whole_document_is_cut():
    document = parse_document(b"# " + b"long " * 100_000, "text/markdown")
    assert document.title == ("long " * 200).rstrip()
    assert document.text.count("long") == 100_000


def test_what_looks_like_front_matter_without_end_stays():
    assert "no end" in parse_markdown("---\ntitle: no end\n\ntext").text


def test_code_in_a_list_is_whole_and_the_list_goes_on():
    document = parse_markdown("1. do\n\n   ```\n   a\n\n     b\n   ```\n2. done")
    assert blocks(document) == [("list", "1. do"), ("code", "a\n\n  b"), ("list", "2. done")]


@pytest.mark.parametrize("text", ["[" * 10_000, "*a_" * 20_000, "`" * 20_000, "> " * 50 + "a", "- " * 25 + "a"])
def test_markdown_that_nests_is_read_to_its_end(text):
    assert parse_document(text.encode() + b"\n\nend", "text/markdown").text.endswith("end")


@pytest.mark.parametrize("text", ["> " * 5_000 + "a", "- " * 5_000 + "a", "1. - > " * 30 + "a"])
def test_markdown_too_deep_to_be_read_whole_is_refused(text):
    with pytest.raises(InvalidRequest, match="nest"):
        parse_document(text.encode() + b"\n\nend", "text/markdown")


@given(st.text(alphabet=st.sampled_from("ab \n#-*`|<>[]()!_~1.:\\&;")))
@settings(max_examples=300)
def test_any_markdown_is_read(text):
    assert all(block.text.strip() for block in parse_markdown(text).blocks)


# HTML


PAGE = """<!doctype html><html><head><title>Статут &mdash; 2026</title><style>p{}</style></head><body>
<nav><a href="/">Головна</a></nav>
<h1>Статут&nbsp;кооперативу</h1>
<p>Енергія <b>нале</b>жить
   усім.<br>Её делят поровну &lt;5&gt;.</p>
<p hidden>сховане</p><div style="color:red; DISPLAY : none">сховане</div><p aria-hidden=true>сховане</p>
<script>alert("x")</script><template><p>сховане</p></template><noscript>сховане</noscript><!-- сховане -->
<ul><li>один<ol start=3><li>три<li><p>чотири</p><p>далі</p></ol><li>два</ul>
<table><tr><th>Ім'я<th>Внесок<tr><td>Оля<td><p>10</p><table><tr><td>грн</table></table>
<pre><code>a = 1
  b = 2
</code></pre>
хвіст<div>кінець <img src=x alt="схема"></body></html>"""


def test_html_is_what_a_reader_reads():
    document = parse_document(PAGE.encode(), "text/html")
    assert document.title == "Статут — 2026"
    assert blocks(document) == [
        ("heading", "Статут кооперативу"),
        ("paragraph", "Енергія належить усім.\nЕё делят поровну <5>."),
        ("list", "- один\n  3. три\n  4. чотири\n    далі\n- два"),
        ("table", "Ім'я | Внесок\nОля | 10 грн"),
        ("code", "a = 1\n  b = 2"),
        ("paragraph", "хвіст"),
        ("paragraph", "кінець схема"),
    ]


def test_title_of_a_page_without_one_is_its_first_heading():
    assert parse_html("<h2>Two</h2><h1>One</h1>").title == "One"


@pytest.mark.parametrize("page", ["<script>x</script>", "<p>\u200b", "<nav>a</nav>", "<p hidden>a", "<img alt=''>"])
def test_a_page_without_text_is_refused(page):
    with pytest.raises(InvalidRequest, match="no text"):
        parse_document(page.encode(), "text/html")


def test_a_page_made_to_hang_is_given_up():
    began = time.monotonic()
    with pytest.raises(TooLarge, match="within 1 s"):
        parse_document(b"<div>" * 900_000 + b"a", "text/html", time_limit_s=1.0)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "page",
    [
        "<b>" * 20_000 + "a",
        "<div>" * 5_000 + "a" + "</div>" * 5_000,
        f"<p class='{'x' * 3_000_000}' style='{'display:' * 100_000}'>a",
        f"<p {' '.join(f'a{number}=1' for number in range(20_000))}>a",
        "<ul><li>" * 3_000 + "a",
        "<table><tr><td>" * 2_000 + "a",
        "&lt;" * 100_000 + "a",
    ],
    ids=["inline", "blocks", "attribute", "attributes", "lists", "tables", "entities"],
)
def test_a_page_made_to_swell_is_read(page):
    document = parse_document(page.encode(), "text/html")
    assert document.text.endswith("a")
    assert len(document.text) < 200_000


TAGS = [
    *("<p>", "</p>", "<ul>", "</ul>", "<li>", "<ol start=x>", "</ol>", "<table>", "</table>", "<tr>", "<td>", "</td>"),
    *("<pre>", "</pre>", "<h1>", "</h1>", "<br>", "<div hidden>", "<div>", "</div>", "<svg>", "</svg>", "<template>"),
    *("<select>", "<title>", "<caption>", "<td hidden>", "a", "b", " ", "&amp;", "<", "<!--", "-->"),
]


@given(st.lists(st.sampled_from(TAGS)))
@settings(max_examples=300)
def test_any_html_is_read(tags):
    assert all(block.text.strip() for block in parse_html("".join(tags)).blocks)


# PDF


def test_pdf_is_read_by_its_print():
    document = parse_document(STATUTE, "application/pdf")
    assert document.title == "Статут 2026"
    assert document.blocks == (
        Block("heading", "Статут кооперативу", 1, 1),
        Block("paragraph", "Енергія належить усім мешканцям будинку, її ділять порівну.", 0, 1),
        Block("paragraph", "Взнос платят ежемесячно, не позднее десятого числа.", 0, 1),
        Block("list", "- сонячні панелі\n- акумулятори", 0, 1),
        Block("heading", "Розділ 2", 2, 2),
        Block("paragraph", "Members vote once a year.", 0, 2),
    )


def test_title_of_a_pdf_is_the_callers_or_its_first_heading():
    lines = [(20, "Heading"), (11, "Enough text to be the usual size.")]
    assert parse_document(pdf([lines]), "application/pdf").title == "Heading"
    assert parse_document(pdf([lines], title="Own"), "application/pdf", title="Given").title == "Given"


def test_a_heading_may_have_lines():
    lines = [(20, "Статут енергетичного"), (20, "кооперативу"), (11, "Звичайний текст, якого тут найбільше з усього.")]
    assert parse_pdf(pdf([lines])).blocks[0] == Block("heading", "Статут енергетичного кооперативу", 1, 1)


def test_page_numbers_and_running_heads_are_skipped():
    text = "Сторінка має свій текст, довгий і окремий: {}."
    pages = [[(11, "Статут"), (11, text.format(number * "а")), (11, f"- {number} -")] for number in range(1, 6)]
    document = parse_pdf(pdf([*pages, [(11, "42")]]))
    assert document.text.count("Статут") == 1
    assert [block.text for block in document.blocks if block.page == 2] == [text.format("аа")]
    assert document.blocks[-1] == Block("paragraph", "42", 0, 6)


def test_letters_in_two_parts_are_composed():
    assert parse_pdf(pdf([[(11, "и\u0306од")]])).text == "йод"


def test_a_pdf_without_text_is_said_to_be_a_scan():
    with pytest.raises(InvalidRequest, match=r"without text.*OCR"):
        parse_document(pdf([[], []]), "application/pdf")


def encrypted(user_password):
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(STATUTE)))
    writer.encrypt(user_password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_an_encrypted_pdf_is_refused_unless_it_opens_without_password():
    with pytest.raises(InvalidRequest, match="encrypted"):
        parse_document(encrypted("secret"), "application/pdf")
    assert "Статут кооперативу" in parse_document(encrypted(""), "application/pdf").text


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", b"%PDF-1.7", b"%PDF-1.7\n%%EOF", b"%PDF-1.7\n" + b"\xff" * 1_000, b"\0" * 2_000 + STATUTE],
)
def test_what_is_no_pdf_is_refused(data):
    with pytest.raises(InvalidRequest):
        parse_document(data, "application/pdf")


def test_pdf_with_too_many_pages_is_refused():
    with pytest.raises(TooLarge, match="pages"):
        parse_document(pdf([[(11, "a")]] * (MAX_PAGES + 1)), "application/pdf")


FONT = b"/Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"


def one_page(*streams):
    """A PDF whose page has the given content streams, packed."""
    numbers = range(4, 4 + len(streams))
    contents = " ".join(f"{number} 0 R" for number in numbers).encode()
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents [%b] /Resources << %b >> >>"
    packed = [zlib.compress(stream, 9) for stream in streams]
    made = [b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(data), data) for data in packed]
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    return file_of([b"<< /Type /Catalog /Pages 2 0 R >>", pages, page % (contents, FONT), *made])


BOMBS = {
    "one stream of 200 MB": lambda: one_page(b" " * 200_000_000),
    "many streams of 30 MB": lambda: one_page(*[b" " * 30_000_000] * 8),
    "many operators": lambda: one_page(b"BT /F1 9 Tf (a) Tj ET " * 1_000_000),
    "deep arrays": lambda: one_page(b"BT /F1 9 Tf " + b"[" * 1_000_000),
    "a page tree that is its own child": lambda: file_of(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"]
    ),
    "a length that is itself": lambda: file_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            b"<< /Type /Page /Parent 2 0 R /Contents 4 0 R >>",
            b"<< /Length 4 0 R >>\nstream\nBT ET\nendstream",
        ]
    ),
    "a billion pages by its own count": lambda: file_of(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 1000000000 >>"]
    ),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_pdf_made_to_swell_is_refused(bomb):
    began = time.monotonic()
    with pytest.raises((InvalidRequest, TooLarge)):
        parse_document(bomb(), "application/pdf", time_limit_s=8.0)
    assert time.monotonic() - began < 20


def damaged(data, seed):
    """Cut short, or with bytes changed, removed or repeated."""
    dice = random.Random(seed)
    out = bytearray(data)
    if seed % 4 == 0:
        del out[dice.randrange(len(out)) :]
    for _ in range(dice.choice([0, 1, 5, 50]) if seed % 4 == 0 else dice.choice([1, 3, 10, 100])):
        at = dice.randrange(max(len(out), 1))
        match dice.randrange(3):
            case 0:
                out[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del out[at : at + dice.randrange(20)]
            case _:
                out[at:at] = out[at : at + dice.randrange(200)]
    return bytes(out)


def test_a_damaged_pdf_is_read_or_refused():
    refused = 0
    for seed in range(400):
        try:
            assert parse_pdf(damaged(STATUTE, seed)).blocks
        except (InvalidRequest, TooLarge):
            refused += 1
    assert 40 < refused < 400


# The process that reads


def test_the_reader_has_no_secrets(monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    seen = {}
    run = isolation.subprocess.run

    def spy(*arguments, **options):
        seen.update(options["env"])
        return run(*arguments, **options)

    monkeypatch.setattr(isolation.subprocess, "run", spy)
    parse_document(b"# a", "text/markdown")
    assert "PYTHONPATH" in seen
    assert "DATABASE_PASSWORD" not in seen


def test_a_reader_out_of_memory_says_so():
    page = "<p a b c d e f g h i j k l m n o p q r s t u v w x y z>" * 90_000
    with pytest.raises(TooLarge, match="memory"):
        parse_document(page.encode() + b"a", "text/html")


def test_a_reader_that_cannot_start_is_our_fault(monkeypatch):
    monkeypatch.setattr(isolation, "__name__", "shared.memory.documents.nowhere")
    with pytest.raises(RuntimeError, match="nowhere"):
        parse_document(b"# a", "text/markdown")
