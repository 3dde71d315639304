"""The offline provider's behaviour, as tables: which tool, which arguments, which words; in three languages."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.llm.providers.base import Delta, End
from shared.llm.providers.offline.answer import decide
from shared.llm.providers.offline.provider import OfflineProvider
from shared.llm.providers.offline.requests import Call
from shared.wire.assemble import AnswerAssembler
from shared.wire.chat import ChatRequest, chunk


def tool(called: str, about: str, required: tuple[str, ...] = (), /, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": called, "description": about, "parameters": parameters}}


TEXT = {"type": "string"}
TOOLS = [
    tool("math", "Calculate an arithmetic expression exactly.", ("expression",), expression=TEXT),
    tool("projects_list", "List the projects, newest first.", limit={"type": "integer"}),
    tool("project_create", "Create a new project.", ("name",), name=TEXT, description=TEXT),
    tool(
        "task_create",
        "Create a task (something to do), in a project if one is named.",
        ("title",),
        title=TEXT | {"description": "What is to be done."},
        project=TEXT | {"description": "The name or id of its project."},
    ),
    tool("search_docs", "Search the documents and help pages by words.", ("query",), query=TEXT),
]
WEATHER = [
    tool(
        "get_weather",
        "Get the current weather in a location",
        ("location",),
        location=TEXT,
        unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
    )
]
RESULTS = {
    "math": {"result": 391},
    "projects_list": {"projects": [{"id": "proj_1", "name": "Alpha", "description": "The first"}], "total": 1},
    "project_create": {"id": "proj_0123456789ab", "name": "Zeta"},
    "task_create": {"id": "task_0123456789ab", "title": "write docs"},
    "search_docs": {"results": []},
}
MEMORIES = (
    "You are Sofia.\n\nRelevant memories:\n"
    "- User: My favourite colour is teal. Agent: I have read that.\n"
    "- What is my favourite colour?\n"
    "- The launch of Orion is on Friday.\n"
    "- Мій улюблений колір синій."
)


def request(*messages: dict[str, Any] | str, tools: list[dict[str, Any]] | None = TOOLS, **more: Any) -> ChatRequest:
    spoken = [message if isinstance(message, dict) else {"role": "user", "content": message} for message in messages]
    return ChatRequest.model_validate({"model": "offline", "messages": spoken, "tools": tools, **more})


def remembering(text: str) -> ChatRequest:
    return request({"role": "system", "content": MEMORIES}, text)


def run_turn(text: str, results: dict[str, Any] = RESULTS) -> tuple[list[Call], str]:
    """Play the agent loop: every call gets its result until the answer is words."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": text}]
    calls: list[Call] = []
    for number in range(8):
        reply = decide(request(*messages))
        if isinstance(reply, str):
            return calls, reply
        calls.append(reply)
        function = {"name": reply.tool, "arguments": json.dumps(reply.args)}
        made = {"id": f"call_{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        content = json.dumps(results[reply.tool])
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": content})
    raise AssertionError("the turn does not end")


@pytest.mark.parametrize(
    ("text", "name", "args"),
    [
        ("Create a project called Alpha", "project_create", {"name": "Alpha"}),
        ("create project Alpha", "project_create", {"name": "Alpha"}),
        ("Please create a new project: Blue Moon", "project_create", {"name": "Blue Moon"}),
        ("Create a project named Research and Development", "project_create", {"name": "Research and Development"}),
        (
            'Can you make a project titled "Blue Sky" with description "for the summer"?',
            "project_create",
            {"name": "Blue Sky", "description": "for the summer"},
        ),
        ("add a task to buy milk in project Alpha", "task_create", {"title": "buy milk", "project": "Alpha"}),
        ('Create a task "Write docs" in the Alpha project', "task_create", {"title": "Write docs", "project": "Alpha"}),
        ("What projects are there?", "projects_list", {}),
        ("show me the projects, please", "projects_list", {}),
        ("What projects did I create?", "projects_list", {}),
        ("list the projects, limit 3", "projects_list", {"limit": 3}),
        ("What is 17 * 23?", "math", {"expression": "17 * 23"}),
        ("Calculate 15% of 200", "math", {"expression": "15/100*200"}),
        ("how much is 12 multiplied by 5", "math", {"expression": "12 * 5"}),
        ("add 5 and 7", "math", {"expression": "5 + 7"}),
        ("(1,200 + 3) / 2 = ?", "math", {"expression": "(1200 + 3) / 2"}),
        ("Search the docs for deployment steps", "search_docs", {"query": "deployment steps"}),
        ("How do I deploy to Cloud Run?", "search_docs", {"query": "How do I deploy to Cloud Run"}),
        ("Створи проєкт з назвою «Сонце»", "project_create", {"name": "Сонце"}),
        ("створи проєкт Альфа", "project_create", {"name": "Альфа"}),
        ("Які є проєкти?", "projects_list", {}),
        ("Покажи мої проєкти", "projects_list", {}),
        ("Скільки буде 12 помножити на 12?", "math", {"expression": "12 * 12"}),
        (
            "додай завдання купити молоко у проєкті Альфа",
            "task_create",
            {"title": "купити молоко", "project": "Альфа"},
        ),
        ("знайди в документах про розгортання", "search_docs", {"query": "розгортання"}),
        ("Создай проект под названием Луна", "project_create", {"name": "Луна"}),
        ("Какие проекты есть?", "projects_list", {}),
        ("посчитай 2+2*2", "math", {"expression": "2+2*2"}),
        ("Добавь задачу позвонить маме", "task_create", {"title": "позвонить маме"}),
        ("найди в документации про деплой", "search_docs", {"query": "деплой"}),
    ],
)
def test_chooses_a_tool_and_fills_it(text, name, args):
    assert decide(request(text)) == Call(name, args)


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("What's the weather in Paris?", {"location": "Paris"}),
        ("weather in New York in celsius", {"location": "New York", "unit": "celsius"}),
        ("Яка погода у Києві?", {"location": "Києві"}),
    ],
)
def test_a_client_s_own_tool(text, args):
    assert decide(request(text, tools=WEATHER)) == Call("get_weather", args)


@pytest.mark.parametrize(
    "text", ["Hello!", "My name is Olena", "Thanks!", "delete project Alpha", "Привіт", "Мене звати Олена", "ping", "?"]
)
def test_no_tool_where_none_is_asked_for(text):
    assert isinstance(decide(request(text)), str)


@pytest.mark.parametrize(
    ("text", "need"),
    [
        ("Create a project", "To use `project_create` I need: name"),
        ("I want to create a task", "title (What is to be done)"),
        ("Створи проєкт", "Щоб використати `project_create`, мені потрібно: назва"),
        ("Создай задачу", "Чтобы использовать `task_create`, мне нужно: название"),
    ],
)
def test_asks_for_what_is_missing(text, need):
    assert need in decide(request(text))


def test_the_answer_to_its_question_completes_the_call():
    asked = decide(request("Create a task in project Alpha"))
    reply = decide(request("Create a task in project Alpha", {"role": "assistant", "content": asked}, "Buy milk"))
    assert reply == Call("task_create", {"title": "Buy milk", "project": "Alpha"})


@pytest.mark.parametrize(
    ("text", "calls", "words"),
    [
        ("What is 17 * 23?", ["math"], ["The result is 391."]),
        ("what projects are there?", ["projects_list"], ["Projects (1):", "- Alpha: The first"]),
        ("find docs about pgvector", ["search_docs"], ["found nothing"]),
        (
            "Create project Zeta and add a task to write docs in it",
            ["project_create", "task_create"],
            ["Created “Zeta”", "Created “write docs”"],
        ),
        ("List the projects and then tell me 7*6", ["projects_list", "math"], ["- Alpha", "391"]),
        (
            "Створи проєкт Зета, а потім покажи проєкти",
            ["project_create", "projects_list"],
            ["Створено «Zeta»", "Alpha"],
        ),
        ("Создай проект Зета и покажи проекты", ["project_create", "projects_list"], ["Создано «Zeta»", "Alpha"]),
    ],
)
def test_a_turn_ends_in_words_about_the_results(text, calls, words):
    made, answer = run_turn(text)
    assert [call.tool for call in made] == calls
    for word in words:
        assert word in answer


def test_it_in_a_later_request_is_what_was_made_before():
    made, _ = run_turn("Create project Zeta and add a task to write docs in it")
    assert made[1].args == {"title": "write docs", "project": "proj_0123456789ab"}


@pytest.mark.parametrize(
    "error", [{"error": "it exists already"}, {"error": {"message": "it exists already", "code": "conflict"}}]
)
def test_a_failed_tool_is_explained_and_not_called_again(error):
    made, answer = run_turn("Create project Zeta", RESULTS | {"project_create": error})
    assert len(made) == 1
    assert "did not work: it exists already" in answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("What is my favourite colour?", "From memory: My favourite colour is teal."),
        ("Do you remember my favourite colour?", "From memory: My favourite colour is teal."),
        ("When is the launch of Orion?", "From memory: The launch of Orion is on Friday."),
        ("What did I say about the launch?", "From memory: The launch of Orion is on Friday."),
        ("Який мій улюблений колір?", "З пам'яті: Мій улюблений колір синій."),
        ("What did I say about elephants?", "I have no memory about this."),
    ],
)
def test_answers_from_memory(text, answer):
    assert decide(remembering(text)).startswith(answer)


def test_its_own_earlier_answers_are_no_memories():
    """The agent loop stores exchanges: the question and this provider's reply, joined into one line."""
    told = decide(request("My name is Olena"))
    asked = decide(request("what is my name"))
    answered = "what is my name From memory: My name is Olena (offline stand-in)"
    lines = "\n".join(
        f"- {' '.join(text.split())}" for text in (f"what is my name {asked}", answered, f"My name is Olena {told}")
    )
    reply = decide(request({"role": "system", "content": f"Relevant memories:\n{lines}"}, "what is my name?"))
    assert reply == "From memory: My name is Olena\n(offline stand-in)"


def test_a_tool_that_fits_wins_over_a_memory():
    assert decide(remembering("What projects are there?")) == Call("projects_list", {})


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("ping", "pong"),
        ("Reply with exactly: PONG", "PONG"),
        ('Say "hi there"', "hi there"),
        ("Скажи привіт", "привіт"),
    ],
)
def test_small_talk(text, answer):
    assert decide(request(text)) == answer


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("Hello", "built-in offline stand-in, not a language model"),
        ("Who are you?", "not a language model"),
        ("Що ти вмієш?", "не мовна модель"),
        ("Привет", "не языковая модель"),
    ],
)
def test_says_what_it_is_and_what_it_can(text, who):
    answer = decide(request(text))
    assert who in answer
    assert "project_create" in answer


def test_tool_choice_is_respected():
    text = "Create a project called Alpha"
    assert isinstance(decide(request(text, tool_choice="none")), str)
    assert decide(request("Tell me a joke", tools=WEATHER, tool_choice="required")) == Call(
        "get_weather", {"location": "Tell me a joke"}
    )
    named = {"type": "function", "function": {"name": "search_docs"}}
    assert decide(request(text, tool_choice=named)).tool == "search_docs"


def test_json_mode_fills_the_schema():
    schema = {
        "type": "object",
        "required": ["answer", "mood", "steps", "inner"],
        "properties": {
            "answer": {"type": "string"},
            "mood": {"enum": ["calm", "glad"]},
            "steps": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "inner": {"$ref": "#/$defs/Inner"},
        },
        "$defs": {"Inner": {"type": "object", "properties": {"count": {"type": "integer", "minimum": 2}}}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    document = json.loads(decide(request("Say something", tools=None, response_format=wanted)))
    assert document["mood"] == "calm"
    assert document["inner"] == {"count": 2}
    assert len(document["steps"]) == 1
    assert isinstance(json.loads(decide(request("Hi", response_format={"type": "json_object"}))), dict)


async def assembled(asked: ChatRequest) -> tuple[AnswerAssembler, list[Delta], End]:
    answer, deltas = AnswerAssembler(), []
    async for part in OfflineProvider().stream(asked, "offline"):
        if isinstance(part, End):
            return answer, deltas, part
        deltas.append(part)
        answer.feed(chunk("id", 1, "offline", part.delta))
    raise AssertionError("no end")


async def test_streamed_text_is_the_whole_text():
    whole = await OfflineProvider().complete(request("Hello"), "offline")
    answer, deltas, end = await assembled(request("Hello"))
    assert answer.message()["content"] == whole.message["content"]
    assert len(deltas) > 5
    assert end == End("stop", whole.usage)


async def test_streamed_call_begins_with_its_head():
    answer, deltas, end = await assembled(request("Create a project called A rather long name for a project"))
    first = deltas[0].delta["tool_calls"][0]
    assert (first["index"], first["type"], first["function"]) == (
        0,
        "function",
        {"name": "project_create", "arguments": ""},
    )
    assert len(deltas) > 2
    assert json.loads(answer.message()["tool_calls"][0]["function"]["arguments"])["name"].startswith("A rather")
    assert end.finish_reason == "tool_calls"


async def test_max_tokens_cuts_the_answer():
    answer = await OfflineProvider().complete(request("Hello", max_tokens=5), "offline")
    assert answer.finish_reason == "length"
    assert answer.usage["completion_tokens"] <= 5


@settings(max_examples=60)
@given(st.text(max_size=200), st.sampled_from([None, "none", "auto", "required"]))
def test_any_text_gets_an_answer(text, choice):
    reply = decide(request(text, tool_choice=choice))
    assert isinstance(reply, Call | str)
    assert decide(request(text, tool_choice=choice)) == reply


@pytest.mark.parametrize("text", ["(" * 20_000, '"' * 20_001, "1+" * 10_000, "a and " * 5_000, "у " * 9_000])
@pytest.mark.timeout(5)
def test_long_nonsense_is_quick(text):
    assert decide(request(text)) is not None
