"""Requests in clauses, tools in words."""

import pytest

from shared.tools.search.clauses import MOST_CLAUSES, split_clauses
from shared.tools.search.text import parameter_text, split_name, tool_terms, tool_views, views_hash


@pytest.mark.parametrize(
    ("request_text", "parts"),
    [
        ("Find a hotel in Lviv, and then book a table nearby.", ["Find a hotel in Lviv", "book a table nearby"]),
        ("Get the weather for Oslo. Send it to my boss!", ["Get the weather for Oslo", "Send it to my boss"]),
        ("Translate the letter then print it twice", ["Translate the letter", "print it twice"]),
        ("List my tasks; close the oldest one", ["List my tasks", "close the oldest one"]),
        ("Read the water meter\nPay the last bill", ["Read the water meter", "Pay the last bill"]),
        ("Знайди готель у Львові, а потім замов столик поруч", ["Знайди готель у Львові", "замов столик поруч"]),
        ("Покажи мої завдання, і закрий найстаріше з них", ["Покажи мої завдання", "закрий найстаріше з них"]),
        ("Найди рейс до Праги, затем закажи мне такси", ["Найди рейс до Праги", "закажи мне такси"]),
        ("Переведи это письмо, а также отправь его Ивану", ["Переведи это письмо", "отправь его Ивану"]),
    ],
)
def test_a_request_is_looked_at_whole_and_in_its_parts(request_text: str, parts: list[str]):
    assert split_clauses(request_text) == [request_text, *parts]


@pytest.mark.parametrize(
    "request_text",
    ["Pay 3.50 euros to v1.2 of example.com", "salt and pepper for dinner", "Собери хлеб и соль к ужину", "Stop."],
)
def test_what_has_one_part_stays_whole(request_text: str):
    assert split_clauses(request_text) == [request_text]


def test_short_parts_and_repetitions_are_no_clauses_of_their_own():
    assert split_clauses("Yes. Find a hotel. Find a hotel.") == ["Yes. Find a hotel. Find a hotel.", "Find a hotel"]


def test_nothing_has_no_clauses_and_a_long_request_has_so_many_only():
    assert split_clauses(" \n ") == []
    assert len(split_clauses("Do this now. " * 3 + " ".join(f"Then open door {n}." for n in range(99)))) == MOST_CLAUSES


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("getHTTPStatus_v2", "get HTTP Status v2"),
        ("task.create", "task create"),
        ("search-docs", "search docs"),
        ("Weather", "Weather"),
        ("пошук_документів", "пошук документів"),
    ],
)
def test_names_are_split_into_words(name: str, words: str):
    assert split_name(name) == words


SCHEMA = {
    "type": "object",
    "properties": {
        "cityName": {"type": "string", "description": "City or town"},
        "stops": {"type": "array", "items": {"properties": {"zip": {"description": "Postal code"}}}},
        "opts": {"properties": {"days": {"type": "integer"}}},
        "odd": True,
    },
}


def test_parameters_are_told_with_nested_ones():
    assert parameter_text(SCHEMA) == "city Name: City or town; stops; zip: Postal code; opts; days"
    assert parameter_text({}) == parameter_text({"properties": []}) == ""


def test_a_schema_that_contains_itself_comes_to_an_end():
    schema: dict = {"properties": {}}
    schema["properties"]["again"] = schema
    assert parameter_text(schema).count("again") == 4


def test_views_are_name_description_and_all_of_it():
    assert tool_views("getWeather", " Forecast. ", SCHEMA)[:2] == ["get Weather", "Forecast."]
    assert tool_views("getWeather", "Forecast.", SCHEMA)[2].startswith("get Weather: Forecast. Parameters: city Name")
    assert tool_views("getWeather", "Forecast.", {}) == ["get Weather", "Forecast."]
    assert tool_views("__", "", {}) == ["__"]


def test_equal_texts_and_only_they_have_the_same_hash():
    assert views_hash(["a", "b"]) == views_hash(["a", "b"]) != views_hash(["a b"])


def test_words_of_all_three_texts_count_in_their_stems():
    terms = tool_terms("listInvoices", "Invoices of a customer.", {"properties": {"state": {"description": "Open"}}})
    assert terms["invoic"] == 2
    assert {"list", "custom", "state", "open"} <= terms.keys()
