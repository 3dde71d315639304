"""What the offline provider must not do, remembers, asks and admits; with the platform's own tools."""

import json
from typing import Any

import pytest

from shared.llm.providers.offline.answer import decide
from shared.llm.providers.offline.requests import Call
from shared.tools.catalogue.seed import first_tools
from shared.wire.chat import ChatRequest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": row["name"].replace(".", "_"),
            "description": row["description"],
            "parameters": row["parameters"],
        },
    }
    for row in sorted(first_tools("microdao:a"), key=lambda row: row["name"])
]
PROJECT = {"id": "proj_0123456789ab", "name": "Bakery"}
RESULTS: dict[str, Any] = {
    "project_create": PROJECT,
    "projects_list": {"projects": [PROJECT | {"name": "Solar Roof"}], "total": 1},
    "tasks_list": {"tasks": [{"id": "task_1", "title": "Call", "state": "open", "project": "Solar Roof"}], "total": 1},
    "task_create": {"id": "task_0123456789ab", "title": "Call", "project": "Solar Roof", "state": "open"},
    "math": {"result": 42},
    "search_docs": {"results": []},
}
SIGNATURES = ("\n(offline stand-in)", "\n(офлайн-замінник)", "\n(офлайн-замена)")


class Talk:
    """A conversation as the agent loop holds it: every call is answered from the table of results."""

    def __init__(self, *memories: str, tools: list[dict[str, Any]] | None = TOOLS, **results: Any) -> None:
        lines = "\n".join(["Relevant memories:", *(f"- {memory}" for memory in memories)]) if memories else ""
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": f"You are Sofia.\n\n{lines}"}]
        self.tools = tools
        self.results = RESULTS | results
        self.calls: list[Call] = []

    def say(self, text: str) -> str:
        self.messages.append({"role": "user", "content": text})
        self.calls = []
        while isinstance(reply := self._decide(), Call):
            assert len(self.calls) < 6, "the turn does not end"
            self._run(reply)
        self.messages.append({"role": "assistant", "content": reply})
        return reply

    def _decide(self) -> str | Call:
        body = {"model": "offline", "messages": self.messages, "tools": self.tools}
        return decide(ChatRequest.model_validate(body))

    def _run(self, call: Call) -> None:
        self.calls.append(call)
        number = f"call_{len(self.messages)}"
        function = {"name": call.tool, "arguments": json.dumps(call.args)}
        made = {"id": number, "type": "function", "function": function}
        self.messages.append({"role": "assistant", "content": None, "tool_calls": [made]})
        result = json.dumps(self.results[call.tool])
        self.messages.append({"role": "tool", "tool_call_id": number, "content": result})


def calls_for(text: str) -> list[Call]:
    talk = Talk()
    talk.say(text)
    return talk.calls


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        ("Don't create a project called Nope", "project_create` (name: Nope)"),
        ("I don't want to create a project called Oops", "project_create` (name: Oops)"),
        ("Never create a project called Nope.", "project_create` (name: Nope)"),
        ("Create no project called Nope", "project_create` (name: Nope)"),
        ("Please don't add a task to buy milk", "task_create` (title: buy milk)"),
        ("Don't list the projects", "projects_list`"),
        ("Should I create a project called Maybe?", "project_create` (name: Maybe)"),
        ("Can I create a project called Maybe?", "project_create` (name: Maybe)"),
        ("What if I create a project called Maybe?", "project_create` (name: Maybe)"),
        ("Is it ok to create a project called Maybe?", "project_create` (name: Maybe)"),
        ("Create a project called Maybe?", "project_create` (name: Maybe)"),
        ("If it rains, create a project called Maybe", "project_create` (name: Maybe)"),
        ("Не створюй проєкт «Ніколи»", "project_create` (name: Ніколи)"),
        ("Я не хочу створювати проєкт «Ніколи»", "project_create` (name: Ніколи)"),
        ("Чи варто створити проєкт «Можливо»?", "project_create` (name: Можливо)"),
        ("не создавай проект Луна", "project_create` (name: Луна)"),
        ("Стоит ли создавать проект Луна?", "project_create` (name: Луна)"),
    ],
)
def test_what_is_refused_or_wondered_about_is_not_done(text, understood):
    talk = Talk()
    assert understood in talk.say(text)
    assert talk.calls == []


@pytest.mark.parametrize(
    "text",
    [
        "I created a project called Foo yesterday",
        "My boss told me to create a project called Foo",
        "It would be bad to create a project called Foo",
        '"Create a project called Foo" is what he wrote',
        "Translate to French:\nCreate a project called Foo",
        "Я створила проєкт Сонце вчора",
        "Create a project called Foo. Never mind, cancel.",
    ],
)
def test_what_is_only_told_is_not_done(text):
    assert calls_for(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "Could you please create a project called Alpha?",
        "Sofia, create a project called Alpha",
        "Don't forget to create a project called Alpha",
        "I'd like you to create a project called Alpha.",
        "Don't create a project called Beta. Create a project called Alpha instead.",
        "Go ahead and create a project called Alpha, please",
    ],
)
def test_a_polite_command_is_a_command(text):
    assert calls_for(text) == [Call("project_create", {"name": "Alpha"})]


def test_a_command_in_ukrainian_and_russian():
    for text in ("Можеш створити проєкт Альфа?", "Хочу створити проєкт з назвою Альфа", "Сделай проект Альфа"):
        assert calls_for(text) == [Call("project_create", {"name": "Альфа"})]


@pytest.mark.parametrize(("answer", "made"), [("yes", 1), ("Yes, create it", 1), ("no", 0), ("What is 6*7?", 0)])
def test_it_does_what_it_wondered_about_when_told_to(answer, made):
    talk = Talk()
    assert "Shall I?" in talk.say("Should I create a project called Maybe?")
    talk.say(answer)
    assert talk.calls.count(Call("project_create", {"name": "Maybe"})) == made


def test_a_quoted_question_is_not_its_own():
    memory = "Add it To use `project_create` I need: name. Please tell me."
    talk = Talk(memory, "The project is called Bob.")
    answer = talk.say("What do you remember about the project?")
    assert "To use" not in answer
    assert "Bob" in answer
    talk.messages[-1]["content"] = f"From memory: {memory}"
    assert talk.say("What did I just say?") == "You said: “What do you remember about the project?”"
    assert talk.calls == []


@pytest.mark.parametrize(
    ("request_text", "cancel"),
    [
        ("Create a project", "Never mind, cancel"),
        ("Create a project", "stop"),
        ("Create a project", "don't"),
        ("Створи проєкт", "скасуй"),
        ("Створи проєкт", "не треба"),
        ("Создай проект", "отмена"),
    ],
)
def test_a_pending_question_can_be_dropped(request_text, cancel):
    talk = Talk()
    assert "project_create" in talk.say(request_text)
    talk.say(cancel)
    assert talk.calls == []
    talk.say("Alpha")
    assert talk.calls == []


@pytest.mark.parametrize(
    ("answer", "args"),
    [
        ("Solar Roof", {"name": "Solar Roof"}),
        ("Call it Alpha", {"name": "Alpha"}),
        ('"Never mind"', {"name": "Never mind"}),
    ],
)
def test_a_pending_question_is_answered(answer, args):
    talk = Talk()
    talk.say('Create a project called ""')
    talk.say(answer)
    assert talk.calls == [Call("project_create", args)]


@pytest.mark.parametrize(
    "text",
    [
        "my phone is 555-1234",
        "call me at 12:30-13:00",
        "Call me. 555-1234.",
        "I work 9-5",
        "The meeting is on 2024-05-06",
        "My score was 3*4",
        "add a task to call 555-1234",
    ],
)
def test_figures_in_a_text_are_not_worked_out(text):
    assert "math" not in [call.tool for call in calls_for(text)]


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("1e308*10", "1e308*10"),
        ("2e3+1", "2e3+1"),
        ("What is 1.5e-3 * 2?", "1.5e-3 * 2"),
        ("2+2=?", "2+2"),
        ("-5+3", "-5+3"),
        ("what's 12/4", "12/4"),
        ("solve 3*(4+5)", "3*(4+5)"),
        ("please calculate 3.5*2", "3.5*2"),
        ("If I have 84 m2 and 3 panels, how much is 84/3?", "84/3"),
        ("What is the square root of 16?", "sqrt(16)"),
        ("Скільки буде 7*8?", "7*8"),
        ("посчитай сколько будет 12*3", "12*3"),
    ],
)
def test_works_out_what_is_asked(text, expression):
    assert calls_for(text) == [Call("math", {"expression": expression})]


@pytest.mark.parametrize(
    ("told", "question", "answer"),
    [
        ("My name is Petra.", "What is my name?", "You said: “My name is Petra.”"),
        ("My name is Petra.", "Do you remember my name?", "You said: “My name is Petra.”"),
        ("Мене звати Петро.", "Як мене звати?", "Ви казали: «Мене звати Петро.»"),
        ("Меня зовут Пётр.", "Как меня зовут?", "Вы сказали: «Меня зовут Пётр.»"),
        ("The gate code is 4411", "What is the gate code?", "You said: “The gate code is 4411”"),
    ],
)
def test_the_conversation_is_remembered_before_the_memories(told, question, answer):
    talk = Talk("My name is Olena. The gate code is 1.", "Мене звати Оля.", "Меня зовут Ольга.")
    talk.say(told)
    assert talk.say(question) == answer


def test_the_newest_word_counts():
    talk = Talk()
    talk.say("My name is Petra.")
    talk.say("My name is Olena now.")
    assert talk.say("What is my name?") == "You said: “My name is Olena now.”"


def test_what_the_same_message_told_is_known():
    assert Talk().say("My name is Petra. What is my name?").startswith("You said: “My name is Petra.”")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Please remember: the gate code is 4411", "Noted."),
        ("Remember that I like tea", "Noted."),
        ("Запам'ятай: код воріт 4411", "Занотовано."),
        ("Запомни, что я люблю чай", "Принято к сведению."),
    ],
)
def test_what_is_to_be_remembered_is_acknowledged(text, answer):
    assert Talk().say(text).startswith(answer)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("What do you remember about me?", "From memory: I like tea."),
        ("What do you know about me?", "From memory: I like tea."),
        ("Що ти про мене пам'ятаєш?", "З пам'яті: I like tea."),
        ("Що ти про мене пам’ятаєш?", "З пам'яті: I like tea."),
        ("Що ти про мене знаєш?", "З пам'яті: I like tea."),
        ("Что ты обо мне помнишь?", "Из памяти: I like tea."),
    ],
)
def test_lists_what_it_knows_of_the_user(text, answer):
    talk = Talk("I like tea. Noted.", "Create a project called X Created “X” (id proj_1).")
    assert talk.say(text).startswith(answer)
    assert Talk().say(text)


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ('Add a task "Call the installer" to Solar Roof', {"title": "Call the installer", "project": "Solar Roof"}),
        ("Add the task 'Call' to Solar Roof, please", {"title": "Call", "project": "Solar Roof"}),
        ('For Solar Roof, add a task "Call"', {"title": "Call", "project": "Solar Roof"}),
        ("In project Solar Roof add a task to call", {"title": "call", "project": "Solar Roof"}),
        ("Додай завдання «Дзвінок» до Сонячний дах", {"title": "Дзвінок", "project": "Сонячний дах"}),
        ("Додай завдання дзвінок до проєкту Сонячний дах", {"title": "дзвінок", "project": "Сонячний дах"}),
        ("Добавь задачу «Звонок» в Солнечная крыша.", {"title": "Звонок", "project": "Солнечная крыша"}),
        ("Добавь задачу позвонить в проект Солнечная крыша", {"title": "позвонить", "project": "Солнечная крыша"}),
        ("add a task to buy panels, in project Solar Roof", {"title": "buy panels", "project": "Solar Roof"}),
        ("add a task buy panels,", {"title": "buy panels"}),
        ("Add a task to fly to Paris", {"title": "fly to Paris"}),
        ("Create a task to send the invoice", {"title": "send the invoice"}),
    ],
)
def test_a_task_and_its_project(text, args):
    assert calls_for(text) == [Call("task_create", args)]


def test_a_project_that_is_known_needs_no_quotes():
    talk = Talk()
    talk.say("What projects are there?")
    talk.say("Add a task to call the installer to solar roof")
    assert talk.calls == [Call("task_create", {"title": "call the installer", "project": "Solar Roof"})]


@pytest.mark.parametrize(
    ("text", "name", "title"),
    [
        ("create a project named Bakery with a task to buy flour", "Bakery", "buy flour"),
        ("Створи проєкт «Пекарня» із завданням купити борошно", "Пекарня", "купити борошно"),
        ("Создай проект Пекарня с задачей купить муку", "Пекарня", "купить муку"),
    ],
)
def test_a_project_with_a_task(text, name, title):
    made = [Call("project_create", {"name": name}), Call("task_create", {"project": PROJECT["id"], "title": title})]
    assert calls_for(text) == made


def test_a_task_waits_for_a_project_that_could_not_be_made():
    talk = Talk(project_create={"error": "it exists already"})
    answer = talk.say("create a project named Bakery with a task to buy flour")
    assert [call.tool for call in talk.calls] == ["project_create"]
    assert "it exists already" in answer


@pytest.mark.parametrize(
    ("text", "args"),
    [
        ("What tasks are there?", {}),
        ("What tasks are in Solar Roof?", {"project": "Solar Roof"}),
        ("show open tasks in project Solar Roof", {"project": "Solar Roof", "state": "open"}),
        ("Which tasks are not done?", {"state": "open"}),
        ("Покажи виконані завдання", {"state": "done"}),
        ("Які завдання у проєкті Сонячний дах?", {"project": "Сонячний дах"}),
    ],
)
def test_lists_tasks(text, args):
    assert calls_for(text) == [Call("tasks_list", args)]


def passage(title: str, *matched: str) -> dict[str, Any]:
    return {"id": title, "title": title, "snippet": "…", "matched": list(matched), "score": 0.1}


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("What is the capital of France?", "What is the capital of France"),
        ("What is the wifi password?", "What is the wifi password"),
        ("search the docs for the capital of France", "the capital of France"),
    ],
)
def test_passages_that_do_not_fit_are_not_shown(text, query):
    talk = Talk(search_docs={"results": [passage(f"Page {number}", "the", "of", "what") for number in range(5)]})
    answer = talk.say(text)
    assert talk.calls == [Call("search_docs", {"query": query})]
    assert "found nothing that fits" in answer
    assert "Page" not in answer


@pytest.mark.parametrize(
    ("text", "matched"),
    [
        ("search the docs for tenancy", "tenancy"),
        ("Що таке мікроДАО?", "мікродао"),
        ("Что такое микроДАО?", "микродао"),
    ],
)
def test_passages_that_fit_are_shown(text, matched):
    talk = Talk(search_docs={"results": [passage("What a microDAO is", matched), passage("Another", "for")]})
    answer = talk.say(text)
    assert "- What a microDAO is" in answer
    assert "Another" not in answer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Delete project Alpha", "no tool to delete"),
        ("Can you delete a task?", "no tool to delete"),
        ("Cancel the project Alpha", "no tool to delete"),
        ("Rename the document Alpha to Beta", "no tool to change, move or rename"),
        ("Mark the task Buy as done", "no tool to mark things as done"),
        ("Видали проєкт Альфа", "Я не маю інструмента, щоб щось видалити"),
        ("Познач завдання Х виконаним", "щось позначити виконаним"),
        ("Удали проект Альфа", "У меня нет инструмента, чтобы что-то удалить"),
    ],
)
def test_says_what_it_has_no_tool_for(text, words):
    talk = Talk()
    answer = talk.say(text)
    assert words in answer
    assert "project_create" in answer
    assert talk.calls == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Run code: print(6 * 7)", "no tool to run that"),
        ("Запусти звіт", "Я не маю інструмента, щоб це запустити"),
        ("Запусти отчёт", "У меня нет инструмента, чтобы это запустить"),
    ],
)
def test_says_that_it_can_run_nothing_without_a_tool_that_runs(text, words):
    tools = [tool for tool in TOOLS if tool["function"]["name"] in ("math", "search_docs")]
    assert words in Talk(tools=tools).say(text)


def test_a_notification_goes_to_whom_the_user_names():
    talk = Talk(send_notification={"id": "note_1", "to": "user:olena"})
    talk.say("Send a notification to user:olena: The stand is booked")
    assert talk.calls == [Call("send_notification", {"to": "user:olena", "text": "The stand is booked"})]


@pytest.mark.parametrize("text", ["Mark is my brother", "I removed the old roof"])
def test_a_statement_asks_for_no_tool(text):
    assert "no tool" not in Talk().say(text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('Create a project called "Сонце"', "Created “Bakery”"),
        ("Create a project called Сонце", "Created “Bakery”"),
        ('Створи проєкт "Solar Roof"', "Створено «Bakery»"),
        ("Які є проєкти?", "Проєкти (1):"),
        ("Какие есть задачи?", "Задачи (1):\n- Call (Solar Roof, открыто)"),
        ("Які є завдання?", "Завдання (1):\n- Call (Solar Roof, відкрито)"),
        ("Створи проєкт", "Щоб використати `project_create`, мені потрібно: назва."),
        ("Додай завдання «Дзвінок» до Дах", "Створено «Call» у «Solar Roof»"),
    ],
)
def test_speaks_the_language_it_is_spoken_to(text, answer):
    assert Talk().say(text).startswith(answer)


def test_a_message_without_words_continues_the_language():
    talk = Talk()
    talk.say("Привіт!")
    assert talk.say("6*7") == "Результат: 42."


def test_an_error_is_led_in_by_the_language():
    talk = Talk(project_create={"error": "it exists already"})
    assert talk.say("Створи проєкт Дах").startswith("`project_create` не спрацював: it exists already")


@pytest.mark.parametrize("text", ['Create a project called ""', "Create a project called", "Створи проєкт «»"])
def test_an_empty_name_is_asked_for(text):
    talk = Talk()
    assert "`project_create`" in talk.say(text)
    assert talk.calls == []


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Sum up: The roof has 84 square metres.", "The roof has 84 square metres."),
        ("Summarise: One is. Two is. Three is. Four is.", "One is. Two is. Three is."),
        ("Please summarize the following:\nA roof.\nA door.", "A roof. A door."),
        ("Summarise the roof has 84 square metres.", "the roof has 84 square metres."),
        ('Sum up: {"result": 42}', '{"result": 42}'),
        ("Підсумуй: Дах має 84 метри.", "Дах має 84 метри."),
        ("Подытожь: Крыша старая.", "Крыша старая."),
    ],
)
def test_a_summary_repeats_the_facts(text, answer):
    said = Talk(tools=None).say(text)
    assert said.startswith(answer)
    assert said[len(answer) :] in SIGNATURES


def test_only_the_first_answer_is_signed():
    talk = Talk()
    assert talk.say("What is 6*7?") == "The result is 42.\n(offline stand-in)"
    assert talk.say("What is 6*7?") == "The result is 42."
    assert "stand-in" not in talk.say("Hi")
    assert "not a language model" in talk.say("Who are you?")
