"""The terms by which memories are found."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.memory.search.terms import item_terms, query_terms


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("She was painting sunrises", "painted a sunrise"),
        ("Caroline's researching adoption agencies", "Caroline research adoption agency"),
        ("we met on the 8th", "8"),
        ("a Café in Zürich", "cafe zurich"),
        ("ＦＵＬＬ width", "full width"),
        ("Мій комп’ютер", "комп'ютер"),
        ("пʼять пам`ять", "п'ять память"),
        ("Зелёный ґанок", "зеленый ганок"),
        ("п´ять сім′я", "п'ять сім'я"),
        ("за́мок, Ки\u0457\u0301в", "замок Київ"),
        ("Ки\u0456\u0308в", "Київ"),
        ("сло\u00adво wo\u200brd", "слово word"),
        ("شَرِبْتُ في مَدْرَسَة", "مدرسة"),
        ("שָׁלוֹם", "שלום"),
        ("İstanbul", "istanbul"),
        ("наші зустрічі у травні", "зустрічі in May"),
        ("встретимся в мае", "Травень"),
    ],
)
def test_forms_of_a_word_share_a_term(stored, asked):
    assert set(query_terms(asked)) <= set(item_terms(stored))


@pytest.mark.parametrize(
    ("stored", "asked", "shared"),
    [
        ("я ходив на виставку", "виставками", 0.6),
        ("перенесли збори", "переносяться", 0.4),
        ("собрание правления", "собраний", 0.6),
        ("купили машину", "машине", 0.5),
    ],
)
def test_forms_of_an_inflected_word_share_most_of_their_pieces(stored, asked, shared):
    pieces = set(query_terms(asked))
    assert len(pieces & set(item_terms(stored))) >= shared * len(pieces)


def test_words_of_other_scripts_become_pieces_of_every_second_letter():
    assert query_terms("переносяться Кіт їж") == ["^пер", "ерен", "енос", "осят", "ятьс", "^кіт", "^їж"]


def test_function_words_are_no_terms():
    assert query_terms("What did she do with it, and why weren't they there?") == ["weren"]
    assert query_terms("Що це було і чому ж ми не з ними? А где же это всё, и кто её от них?") == []


def test_a_long_question_has_no_more_terms_than_a_search_can_mark():
    assert len(query_terms(" ".join(f"word{number}" for number in range(200)))) == 63


def test_may_is_a_month_and_not_a_function_word():
    assert query_terms("in May") == query_terms("травня") == ["month:5"]


def test_author_and_date_are_terms_of_an_item():
    terms = item_terms("Hello", "Melanie", datetime(2023, 5, 8, 13, 56, tzinfo=UTC))
    assert set(query_terms("8 May 2023 Melanie hello")) == set(terms)


def test_terms_are_counted():
    assert item_terms("cat cats and a dog", "Cat") == {"cat": 3, "dog": 1}


def test_query_terms_keep_their_order_and_come_once():
    assert query_terms("zebra apple zebras") == ["zebra", "appl"]


@given(st.text(max_size=200))
def test_any_text_gives_short_terms_without_spaces(text):
    assert all(0 < len(term) <= 40 and not any(map(str.isspace, term)) for term in item_terms(text))


@given(st.text(max_size=100))
def test_case_and_order_of_words_do_not_matter(text):
    words = text.split()
    assert item_terms(" ".join(words)) == item_terms(" ".join(reversed(words)))
    assert set(query_terms(text)) <= set(item_terms(text))


def test_threads_agree():
    words = [f"{stem}{ending}" for stem in ("comput", "relat", "organiz") for ending in ("ing", "ed", "er", "ation")]
    texts = [" ".join(words[i:] + words[:i]) for i in range(len(words))] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(item_terms, texts)) == [item_terms(text) for text in texts]
