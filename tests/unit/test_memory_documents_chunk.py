"""Chunks hold the whole document, in order, within what the embedder sees, and are cut where the document is."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.memory.documents.chunk import MIN_TARGET_TOKENS, TARGET_TOKENS, chunk_blocks
from shared.memory.documents.model import Block, ParsedDocument
from shared.memory.documents.parse_markdown import parse_markdown
from shared.memory.documents.parse_text import parse_text
from shared.memory.documents.tokens import estimate_tokens
from shared.memory.embedding.e5 import MultilingualE5
from shared.memory.embedding.e5_tokenizer import Tokenizer

UKRAINIAN = (
    "Енергетична система України залишається під тиском. Кооперативи з відновлюваної енергетики об'єднують мешканців, "
    "які встановлюють сонячні панелі та акумулятори на дахах багатоповерхівок. Щоб приєднатися, подайте заявку голові "
    "правління до п'ятниці, двадцять восьмого листопада. "
)
RUSSIAN = (
    "Кооператив объединяет жильцов, которые устанавливают солнечные панели. Чтобы присоединиться, подайте заявку "
    "председателю правления до пятницы, двадцать восьмого ноября. Взнос составляет 1250 рублей в месяц. "
)
ENGLISH = (
    "The cooperative unites residents who install solar panels and accumulators on the roofs of apartment blocks. To "
    "join, submit an application to the chairperson of the board by Friday, the twenty-eighth of November. "
)
GERMAN = (
    "Die Genossenschaft vereinigt Bewohner, die Solaranlagen und Akkumulatoren auf den Dächern von Mehrfamilienhäusern "
    "errichten. Der Antrag ist bis Freitag, den achtundzwanzigsten November, an den Vorstand zu richten. "
)
POLISH = (
    "Spółdzielnia energetyczna zrzesza mieszkańców, którzy instalują panele słoneczne na dachach bloków. Wniosek "
    "należy złożyć prezesowi zarządu do piątku, dwudziestego ósmego listopada. "
)
KOREAN = "에너지 협동조합은 주민들을 연합하여 태양광 패널을 설치합니다. "
LANGUAGES = [UKRAINIAN, RUSSIAN, ENGLISH, GERMAN, POLISH, KOREAN]


def texts(chunks):
    return [chunk.text for chunk in chunks]


def pieces(words):
    """As many sentences as asked for, each of four words that occur once."""
    return " ".join(f"Речення {number}а має кінець." for number in range(words))


WORDS = st.text(alphabet=st.sampled_from("abcйї가é1.!?-"), min_size=1, max_size=12)
PROSE = st.lists(WORDS, min_size=1, max_size=80).map(" ".join)
BLOCKS = st.one_of(
    st.builds(Block, st.just("heading"), PROSE, st.integers(1, 6)),
    st.builds(Block, st.just("paragraph"), PROSE),
    st.builds(Block, st.sampled_from(["list", "table", "code"]), st.lists(PROSE, min_size=1).map("\n".join)),
    st.builds(Block, st.just("paragraph"), st.sampled_from("aй가é1").map(lambda letter: letter * 700)),
)
DOCUMENTS = st.lists(BLOCKS, min_size=1, max_size=12).map(lambda blocks: ParsedDocument(None, tuple(blocks)))
SIZES = st.integers(MIN_TARGET_TOKENS, 200).flatmap(
    lambda target: st.tuples(st.just(target), st.integers(0, target // 2))
)


@given(DOCUMENTS, SIZES)
@settings(max_examples=300)
def test_chunks_hold_the_document_in_order_and_within_the_limit(document, sizes):
    target, overlap = sizes
    chunks = chunk_blocks(document, target_tokens=target, overlap_tokens=overlap)
    assert [chunk.position for chunk in chunks] == list(range(len(chunks)))
    covered = 0
    for chunk in chunks:
        assert chunk.text == document.text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip()
        assert chunk.text
        assert estimate_tokens(chunk.embedding_text) <= target
        assert chunk.end > covered
        assert not document.text[covered : chunk.start].strip()
        covered = chunk.end
    assert covered == len(document.text.rstrip())
    kept = " ".join(texts(chunks)).split()
    short = [word for word in document.text.split() if estimate_tokens(word) <= target // 2]
    assert set(short) <= set(kept)


@given(DOCUMENTS, SIZES)
@settings(max_examples=100)
def test_without_overlap_no_character_is_in_two_chunks(document, sizes):
    chunks = chunk_blocks(document, target_tokens=sizes[0], overlap_tokens=0)
    assert "".join("".join(texts(chunks)).split()) == "".join(document.text.split())


def test_a_short_document_is_one_chunk_and_an_empty_one_none():
    (chunk,) = chunk_blocks(ParsedDocument("T", (Block("paragraph", "Привіт", 0, 7),)))
    assert (chunk.text, chunk.heading_path, chunk.page, chunk.start, chunk.end) == ("Привіт", (), 7, 0, 6)
    assert chunk_blocks(ParsedDocument("T", ())) == []


def test_small_blocks_are_merged_and_sections_are_not():
    document = parse_markdown(
        "# T\n\n## A\n\none.\n\n- two\n- three\n\n### A1\n\nfour.\n\n## B\n\nfive.\n\n## C\n\n## D\n\nsix."
    )
    chunks = chunk_blocks(document)
    assert texts(chunks) == ["T\n\nA\n\none.\n\n- two\n- three\n\nA1\n\nfour.", "B\n\nfive.", "C\n\nD\n\nsix."]
    assert [chunk.heading_path for chunk in chunks] == [(), ("T",), ("T",)]


def test_what_follows_in_a_section_has_its_headings():
    document = parse_markdown(f"# Статут\n\n## Внески\n\n{pieces(60)}\n\n## Інше\n\nкінець.")
    first, *rest = chunk_blocks(document)
    assert first.text.startswith("Статут\n\nВнески\n\nРечення 0а")
    assert {chunk.heading_path for chunk in rest[:-1]} == {("Статут", "Внески")}
    assert rest[0].embedding_text.startswith("Статут › Внески\nРечення")
    assert rest[-1].text == "Інше\n\nкінець."


def test_a_heading_is_not_left_at_the_end_of_a_chunk():
    for count in range(1, 12):
        document = parse_markdown(f"# T\n\n{pieces(count)}\n\n## Only\n\n{pieces(9)}")
        for chunk in chunk_blocks(document):
            assert not chunk.text.endswith("Only")


def test_headings_longer_than_their_share_lose_the_outer_ones():
    document = parse_markdown(f"# {'дуже довгий ' * 20}\n\n## Коротко\n\n{pieces(60)}")
    assert chunk_blocks(document)[-1].heading_path == ("Коротко",)


def test_sentences_are_whole_and_the_last_begin_the_next_chunk():
    chunks = chunk_blocks(parse_text(pieces(60)), overlap_tokens=45)
    for chunk, following in pairwise(chunks):
        assert chunk.text.endswith("кінець.")
        assert following.text.startswith("Речення")
        shared = chunk.end - following.start
        assert shared > 0
        assert estimate_tokens(chunk.text[-shared:]) <= 45


def test_abbreviations_and_initials_end_no_sentence():
    sentence = "Голова І. Франко сплатив 10 тис. гривень, і т. д., за ст. 5 закону про енергію."
    chunks = chunk_blocks(parse_text(" ".join([sentence] * 9)), target_tokens=45, overlap_tokens=0)
    assert set(texts(chunks)) == {sentence}


def test_rows_and_lines_of_code_are_whole():
    rows = "\n".join(f"рядок {number} | {number} кВт" for number in range(40))
    code = "\n".join(f"    energy_{number} = read({number})" for number in range(40))
    document = ParsedDocument(None, (Block("table", rows), Block("code", code)))
    kept = "\n".join(texts(chunk_blocks(document, overlap_tokens=0)))
    assert set(rows.split("\n")) | {line.strip() for line in code.split("\n")} <= {
        line.strip() for line in kept.split("\n")
    }


def test_a_sentence_too_long_is_cut_between_words():
    words = [f"слово{number}" for number in range(300)]
    chunks = chunk_blocks(parse_text(" ".join(words)), overlap_tokens=0)
    assert [word for chunk in chunks for word in chunk.text.split()] == words


def test_the_page_of_a_chunk_is_where_it_begins():
    document = ParsedDocument(None, tuple(Block("paragraph", pieces(8), 0, page) for page in (1, 2, 3)))
    pages = [chunk.page for chunk in chunk_blocks(document, target_tokens=60, overlap_tokens=0)]
    assert pages == sorted(pages)
    assert set(pages) == {1, 2, 3}


@pytest.mark.parametrize(("target", "overlap"), [(15, 0), (100, 51), (100, -1)])
def test_sizes_out_of_bounds_are_refused(target, overlap):
    with pytest.raises(ValueError, match="overlap"):
        chunk_blocks(parse_text("a"), target_tokens=target, overlap_tokens=overlap)


_WITHOUT_HURRY = 256
"""Tokens up to which the model's time is in proportion to the text."""


@pytest.fixture(scope="module")
def tokenizer(models):
    model = MultilingualE5(models)
    model.prepare()
    return Tokenizer(model.folder)


@pytest.mark.parametrize("text", LANGUAGES, ids=["uk", "ru", "en", "de", "pl", "ko"])
def test_the_embedder_sees_all_of_a_chunk(text, tokenizer):
    document = parse_markdown(f"# Heading\n\n## {text[:30]}\n\n{text * 40}")
    for chunk in chunk_blocks(document):
        assert len(tokenizer.encode(chunk.embedding_text, 10_000)) <= _WITHOUT_HURRY


@pytest.mark.parametrize("text", LANGUAGES, ids=["uk", "ru", "en", "de", "pl", "ko"])
def test_the_estimate_is_near_the_truth(text, tokenizer):
    true = len(tokenizer.encode(text, 10_000)) - 2  # without the marks of begin and end
    assert 0.75 <= estimate_tokens(text) / true <= 2.1


def test_chunks_are_near_their_target():
    sizes = [estimate_tokens(chunk.text) for chunk in chunk_blocks(parse_text(ENGLISH * 100))[:-1]]
    assert min(sizes) > TARGET_TOKENS * 0.6


def seconds(characters, unit):
    document = parse_text(unit * (characters // len(unit)))
    document.text, document.offsets  # noqa: B018
    began = time.process_time()
    assert chunk_blocks(document)
    return time.process_time() - began


@pytest.mark.parametrize(
    "unit",
    [UKRAINIAN, ENGLISH, "слово ", "a", "x. ", "абзац\n\n"],
    ids=["uk", "en", "words", "letters", "ends", "blocks"],
)
def test_time_is_linear(unit):
    """Eight times the text takes less than 24 times as long; quadratic would be 64."""
    small = min(seconds(50_000, unit) for _ in range(3))
    assert seconds(400_000, unit) < 24 * small + 0.1
