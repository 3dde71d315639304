"""What the offline provider says, in the language it was spoken to."""

import re
from typing import Literal

Language = Literal["en", "uk", "ru"]

PHRASES: dict[Language, dict[str, str]] = {
    "en": {
        "who": "I am DAARION's built-in offline stand-in, not a language model: I have rules, tools, memories.",
        "mark": "(offline stand-in)",
        "hello": "Hello!",
        "welcome": "You are welcome.",
        "tools": "I can use: {names}.",
        "no_tools": "I was given no tools here.",
        "ask": "Tell me what you need in other words, or set up a model provider for a real answer.",
        "unclear": "I found no tool and no memory for this.",
        "noted": "I have read that; no rule or tool of mine applies to it.",
        "told": "Noted.",
        "no_memory": "I have no memory about this.",
        "said": "You said: “{text}”",
        "not_wanted": "I take it that you do not want `{tool}`{args}, and did nothing. Tell me plainly if you do.",
        "confirm": "I can use `{tool}`{args} and have not done so. Shall I?",
        "dropped": "All right, I leave it.",
        "cannot": "I have no tool to {action}, so nothing was changed.",
        "unfit": "`{tool}` found nothing that fits.",
        "within": " in “{name}”",
        "need": "To use `{tool}` I need: {what}. Please tell me.",
        "memory": "From memory: {text}",
        "failed": "`{tool}` did not work: {reason}",
        "empty": "`{tool}` found nothing.",
        "done": "`{tool}` is done.",
        "result": "The result is {value}.",
        "create": "Created “{name}”{within} (id {id}).",
        "update": "Updated “{name}”{within} (id {id}).",
        "delete": "Deleted “{name}”{within} (id {id}).",
        "finish": "Finished “{name}”{within} (id {id}).",
        "item": "“{name}”{within} (id {id}).",
        "found": "{what} ({count}):",
    },
    "uk": {
        "who": "Я вбудований офлайн-замінник DAARION, а не мовна модель: маю правила, інструменти й спогади.",
        "mark": "(офлайн-замінник)",
        "hello": "Вітаю!",
        "welcome": "Будь ласка.",
        "tools": "Я можу використати: {names}.",
        "no_tools": "Інструментів мені тут не дали.",
        "ask": "Скажіть, що потрібно, іншими словами, або підключіть постачальника моделей для справжньої відповіді.",
        "unclear": "Я не маю для цього ні інструмента, ні спогаду.",
        "noted": "Я прочитав це; жодне моє правило чи інструмент тут не підходить.",
        "told": "Занотовано.",
        "no_memory": "Я не маю про це спогадів.",
        "said": "Ви казали: «{text}»",
        "not_wanted": "Розумію, що `{tool}`{args} не потрібно; нічого не зроблено. Якщо треба, попросіть прямо.",
        "confirm": "Я можу виконати `{tool}`{args}, але ще не виконав. Виконати?",
        "dropped": "Гаразд, залишаю це.",
        "cannot": "Я не маю інструмента, щоб {action}, тож нічого не змінено.",
        "unfit": "`{tool}` не знайшов нічого доречного.",
        "within": " у «{name}»",
        "need": "Щоб використати `{tool}`, мені потрібно: {what}. Уточніть, будь ласка.",
        "memory": "З пам'яті: {text}",
        "failed": "`{tool}` не спрацював: {reason}",
        "empty": "`{tool}` нічого не знайшов.",
        "done": "`{tool}` виконано.",
        "result": "Результат: {value}.",
        "create": "Створено «{name}»{within} (id {id}).",
        "update": "Оновлено «{name}»{within} (id {id}).",
        "delete": "Видалено «{name}»{within} (id {id}).",
        "finish": "Завершено «{name}»{within} (id {id}).",
        "item": "«{name}»{within} (id {id}).",
        "found": "{what} ({count}):",
    },
    "ru": {
        "who": "Я встроенная офлайн-замена DAARION, а не языковая модель: у меня правила, инструменты и память.",
        "mark": "(офлайн-замена)",
        "hello": "Здравствуйте!",
        "welcome": "Пожалуйста.",
        "tools": "Я могу использовать: {names}.",
        "no_tools": "Инструментов мне здесь не дали.",
        "ask": "Скажите, что нужно, другими словами, или подключите поставщика моделей для настоящего ответа.",
        "unclear": "У меня нет для этого ни инструмента, ни воспоминания.",
        "noted": "Я прочитал это; ни одно моё правило и ни один инструмент тут не подходят.",
        "told": "Принято к сведению.",
        "no_memory": "У меня нет об этом воспоминаний.",
        "said": "Вы сказали: «{text}»",
        "not_wanted": "Понимаю, что `{tool}`{args} не нужно; ничего не сделано. Если надо, попросите прямо.",
        "confirm": "Я могу выполнить `{tool}`{args}, но ещё не выполнил. Выполнить?",
        "dropped": "Хорошо, оставляю это.",
        "cannot": "У меня нет инструмента, чтобы {action}, поэтому ничего не изменено.",
        "unfit": "`{tool}` не нашёл ничего подходящего.",
        "within": " в «{name}»",
        "need": "Чтобы использовать `{tool}`, мне нужно: {what}. Уточните, пожалуйста.",
        "memory": "Из памяти: {text}",
        "failed": "`{tool}` не сработал: {reason}",
        "empty": "`{tool}` ничего не нашёл.",
        "done": "`{tool}` выполнен.",
        "result": "Результат: {value}.",
        "create": "Создано «{name}»{within} (id {id}).",
        "update": "Обновлено «{name}»{within} (id {id}).",
        "delete": "Удалено «{name}»{within} (id {id}).",
        "finish": "Завершено «{name}»{within} (id {id}).",
        "item": "«{name}»{within} (id {id}).",
        "found": "{what} ({count}):",
    },
}


WORDS: dict[Language, dict[str, str]] = {
    "en": {
        "create": "create that",
        "update": "change, move or rename things",
        "delete": "delete things",
        "send": "send things",
        "finish": "mark things as done",
        "run": "run that",
    },
    "uk": {
        "create": "це створити",
        "update": "щось змінити, перемістити чи перейменувати",
        "delete": "щось видалити",
        "send": "щось надіслати",
        "finish": "щось позначити виконаним",
        "run": "це запустити",
        "projects": "проєкти",
        "tasks": "завдання",
        "results": "знайдено",
        "name": "назва",
        "title": "назва",
        "query": "що шукати",
        "expression": "вираз",
        "open": "відкрито",
        "done": "виконано",
    },
    "ru": {
        "create": "это создать",
        "update": "что-то изменить, переместить или переименовать",
        "delete": "что-то удалить",
        "send": "что-то отправить",
        "finish": "что-то отметить выполненным",
        "run": "это запустить",
        "projects": "проекты",
        "tasks": "задачи",
        "results": "найдено",
        "name": "название",
        "title": "название",
        "query": "что искать",
        "expression": "выражение",
        "open": "открыто",
        "done": "выполнено",
    },
}
"""Names from tools and their results, as far as a language has them."""


def say(language: Language, phrase: str, **values: object) -> str:
    """One phrase with its values filled in."""
    return PHRASES[language][phrase].format(**values)


def name_of(language: Language, word: str) -> str:
    """A tool's word in a language; the word itself where the language has none."""
    return WORDS[language].get(word, word)


def patterns(*phrases: str) -> list[re.Pattern[str]]:
    """What recognises these phrases in any language, with a group for each value."""
    templates = (said[phrase] for said in PHRASES.values() for phrase in phrases)
    return [re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.*?)", re.escape(template))) for template in templates]
