"""The terms by which memories are found: words without their endings, authors, days. Pure.

Words are folded (apostrophes, NFKC, case, marks without width, accents of Latin letters) and then shortened by the rule
of their script, so that one text may mix languages. English loses its function words and its endings (Snowball's
English stemmer, Porter 2001). Words of other scripts lose those of Ukrainian and Russian and become overlapping pieces
of four letters, which joins the forms of inflected languages better than a common beginning or light stemming (McNamee
and Mayfield 2004).
Dates are posted as the terms of "8 May 2023", months as one term in every language, so that "in May" finds the turns
of May though they never name it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

LEXICON = 3
"""Raise it when the same text would give other terms: stored postings must then be made anew."""
_MOST_COUNTED = 32_767  # a posting's smallint holds no more

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_APOSTROPHES = str.maketrans(dict.fromkeys("\u2019\u02bc\u2018\u201b\u02b9\u02c8\u2032\u00b4`", "'"))
_MARKS = re.compile(
    "[\u00ad\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u064b-\u065f\u0670\u200b-\u200f\u2060\ufeff]"
)
"""Stresses (за́мок), vowel points of Hebrew and Arabic, and what nobody sees: a word is the same without."""
_LATIN = re.compile(r"[a-z0-9\u00aa-\u024f]")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)")
_LONGEST = 40
_PIECE = 4
_STEP = 2  # every second piece: half the postings find as much as all of them
_MOST_ASKED = 63  # a search marks the terms that an item holds in a signed word of 64 bits
_MONTHS = (
    "january січень січня січні январь января январе",
    "february лютий лютого лютому февраль февраля феврале",
    "march березень березня березні март марта марте",
    "april квітень квітня квітні апрель апреля апреле",
    "may травень травня травні май мая мае",
    "june червень червня червні июнь июня июне",
    "july липень липня липні июль июля июле",
    "august серпень серпня серпні август августа августе",
    "september вересень вересня вересні сентябрь сентября сентябре",
    "october жовтень жовтня жовтні октябрь октября октябре",
    "november листопад листопада листопаді ноябрь ноября ноябре",
    "december грудень грудня грудні декабрь декабря декабре",
)
_MONTH_OF = {word: number for number, words in enumerate(_MONTHS, 1) for word in words.split()}
_FUNCTION_WORDS = """
    a an the and or but if of at by for with about to from in on is are was were be been being do does did have has had
    i you he she it we they me him her us them my your his its our their this that these those what when where which who
    whom how why so as not no can could will would should might just then than there s t m d ll re ve
"""
_STOP = frozenset(_FUNCTION_WORDS.split())
_OTHER_FUNCTION_WORDS = """
    а аби або але без би бо був була були було бути был была были было быть в вам вами вас ваш вже ви во вона вони
    воно вот все всі вы від він где да де для до его ее ей ему если есть еще ж же з за здесь зі и из или им й його к
    как какая какие какого какое какой каком какую кем ко когда кого коли кому котра котрий котрої котрій кто куда
    куди ли лишь мене меня мені ми мне мной мною мое моего моей мои мой моя моє моєму моєї мої моїй мы мій на над нам
    нами нас наш наша наше нашей нашої наші не нее нему нет нею ним ними них но ну ні о об он она они оно от откуда по
    под при про під с саме свого своей свои своим своих свой свою своя своє свої своїй свій себе себя сколько скільки
    со собі та так також там твой твоя те тебе тебя ти то тобі того тоже той только тому тот ту тут ты ті тільки у уже
    хоча хто це цей цим цього цьому цю ця ці чего чем чи чим чого чому что чтобы що щоб эта эти это этого этой этом
    этот эту я як яка яке який яким яких якого якому якої яку якщо які якій є і із їх їхній її
"""
_OTHER_STOP = frozenset(_OTHER_FUNCTION_WORDS.split())


def frequencies(terms: Mapping[str, int]) -> list[int]:
    """How often each of an item's terms stands in it, as far as postings count."""
    return [min(count, _MOST_COUNTED) for count in terms.values()]


def item_terms(text: str, author: str | None = None, occurred_at: datetime | None = None) -> Counter[str]:
    """How often each term stands in a memory: in its text, its author's name and its date."""
    terms = Counter(_terms(text))
    terms.update(_terms(author or ""))
    if occurred_at is not None:
        terms.update((str(occurred_at.day), _month(occurred_at.month), str(occurred_at.year)))
    return terms


def query_terms(text: str) -> list[str]:
    """The terms of a question, each once, in their order; of a long one the first 63."""
    return list(dict.fromkeys(_terms(text)))[:_MOST_ASKED]


def _terms(text: str) -> list[str]:
    # Apostrophes first: NFKC makes a space and an accent of one of them. Marks last: it composes й and ї of theirs.
    folded = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    return [term for word in _WORD.findall(_MARKS.sub("", folded)) for term in _shortened(word)]


@lru_cache(maxsize=20_000)
def _shortened(word: str) -> tuple[str, ...]:
    """The terms of one folded word: none for a function word, several for one of another script than Latin."""
    if _LATIN.match(word):
        return tuple(_latin(part) for part in word.split("'") if part not in _STOP)
    return _other(word.replace("'", ""))


def _latin(word: str) -> str:
    if word in _MONTH_OF:
        return _month(_MONTH_OF[word])
    plain = "".join(letter for letter in unicodedata.normalize("NFD", word) if not unicodedata.combining(letter))
    if ordinal := _ORDINAL.fullmatch(plain):
        return ordinal[1]
    return _english_stem(plain[:_LONGEST])


def _english_stem(word: str) -> str:
    from Stemmer import Stemmer

    stem: str = Stemmer("english", 0).stemWord(word)  # a stemmer of its own: it keeps state, and threads call this
    return stem


def _other(word: str) -> tuple[str, ...]:
    if word in _MONTH_OF:
        return (_month(_MONTH_OF[word]),)
    plain = word.replace("ё", "е").replace("ґ", "г")
    if plain in _OTHER_STOP:
        return ()
    marked = f"^{plain[:_LONGEST]}"
    return tuple(marked[at : at + _PIECE] for at in range(0, max(1, len(marked) - _PIECE + 1), _STEP))


def _month(number: int) -> str:
    """No word of a text looks like this."""
    return f"month:{number}"
