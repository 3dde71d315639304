"""The offline provider's vocabulary in English, Ukrainian and Russian. Data only.

A concept is one meaning with the stems that stand for it. Latin stems must match whole; Cyrillic ones are beginnings,
since its words change their ends.
"""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONCEPTS: dict[str, str] = {
    "create": "creat make add register створ додай додат заведи созда добав",
    "list": "list show display what which who view get есть покаж спис перелік які яка який яке переч каки какой кака",
    "search": "search find look lookup seek знайд знайти пошук шука найд найти поиск ищи искать",
    "calculate": "calculate calculat comput math evaluat arithmetic порах рахув обчисл посчит вычисл математ калькул",
    "update": "update updat change chang edit rename renam modify зміни онови измени обнови переимен перейме",
    "delete": "delete delet remove remov drop erase eras видал прибер стер удал убери сотри",
    "send": "send email надішл відправ відішл пошл отправ",
    "finish": "finish complete complet close clos done заверш закри закры викон выполн",
    "project": "project проєкт проект",
    "task": "task todo задач завдан",
    "document": "doc document documentation handbook документ докум",
    "weather": "weather forecast погод прогноз",
    "time": "time clock date час дата время врем",
}

EFFECTS = frozenset({"create", "update", "delete", "send", "finish"})
"""What changes something: never done unless the request says so."""

ACTIONS = EFFECTS | {"list", "search", "calculate"}

STOP_WORDS = _set(
    """
    new новий нова нове нову нового новый новая новое новую thank thanks дякую спасибо
    a an and are as at be been being by can could did do does done for from give go had has have he her here
    hi him his how i if in into is it its just know let like me my need of on one or our please s she should
    so some tell than that the their them then there these they this those to too us use using very want was
    we were when where will with would you your yours am about all any also now out up down but not no і й та
    а але або у в на з із зі до від для по про за що це цей ця ці як де коли чи є був була було були мій моя
    моє мої мене мені ми нам нас ти тебе тобі ви вас вам він вона воно вони його її їх будь ласка можеш можете
    треба хочу мати має и но или с со к ко от о об из это этот эта эти как где когда ли был была было были мой
    мое моё мои меня мне мы ты тебя вы он она оно они его ее её их пожалуйста можешь нужно надо что же бы
    """
)

GREETINGS = _set(
    """
    hi hello hey greetings привіт вітаю добрий доброго добридень здрастуй здоров привет здравствуй
    здравствуйте добрый
    """
)

THANKS = _set("thanks thank thx дякую спасибі спасибо благодарю")

HELP = (
    r"who are you|what are you\b|what can you do|what do you do|^help\b|how can you help|what tools"
    r"|хто ти|що (ти )?(вмієш|можеш)|допоможи мені$|кто ты|что (ты )?(умеешь|можешь)|помощь$"
)

RECALL = (
    r"(?<!^)\bremember\b|\brecall\b|\bdid i (say|tell|mention|ask)|\bi (said|told|mentioned|asked)\b|\bdid we\b"
    r"|\bwe (said|discuss|talk)\w*|\bearlier\b|\blast time\b|\bpreviously\b|\bknow about me\b|\bsaid before\b"
    r"|пам.ятаєш|пам.ятаєте|говорив|говорила|казав|казала|раніше|минулого разу|згадай"
    r"|помнишь|помните|говорил|сказал|раньше|прошлый раз|вспомни"
)
"""Asking for what was said before. "Remember that …" at the beginning tells instead."""

PERSONAL = r"\b(my|mine|about me|мій|моя|моє|мої|мого|моєї|мене|мой|мое|моё|мои|моего|моей|меня)\b"
"""Words of a question that memories may answer and documents never do."""

QUESTION = (
    r"^(and |so |а |и |і |та )?(what|which|who|whom|whose|when|where|why|how|is there|are there"
    r"|do (i|we|you)|does|did|is|are"
    r"|що|хто|які|яка|який|яке|скільки|де|коли|чому|як|чи|чий|что|кто|какие|какая|какой|какое|сколько|где|когда|почему|как"
    r"|есть ли)\b"
)

NAMED = (
    r"(?:called|named|titled|entitled|(?:with|under) (?:the )?(?:name|title)|name it|call it"
    r"|(?:з|із|під)\s+назвою|на ім.я|під\s+заголовком|назви(?:\s+(?:його|її))?|названий|названу"
    r"|(?:с|под)\s+названием|по имени|назови(?:\s+(?:его|её|ее))?)"
)

CLAUSE_WORDS = (
    r"and then|after that|then|and also|and|а потім|і потім|потім|після цього|та|і|й|а потом|и потом|потом|затем|и"
)

OPERATORS: tuple[tuple[str, str], ...] = (
    (r"\b(?:add|sum of|додай|сума|сложи|сумма)\s+(-?[\d.]+)\s+(?:and|to|і|та|и|до|к)\s+(-?[\d.]+)", r"\1 + \2"),
    (r"\bsubtract\s+(-?[\d.]+)\s+from\s+(-?[\d.]+)", r"\2 - \1"),
    (r"\b(?:multiply|помнож|умножь)\s+(-?[\d.]+)\s+(?:by|на)\s+(-?[\d.]+)", r"\1 * \2"),
    (r"\b(?:divide|поділи|раздели)\s+(-?[\d.]+)\s+(?:by|на)\s+(-?[\d.]+)", r"\1 / \2"),
    (r"\b(?:multiplied by|times|помнож\w*\s+на|умнож\w*\s+на)\b", "*"),
    (r"\b(?:divided by|over|поділ\w*\s+на|раздел\w*\s+на)\b", "/"),
    (r"\b(?:plus|плюс)\b", "+"),
    (r"\b(?:minus|мінус|минус)\b", "-"),
    (r"\b(?:to the power of|у степені|в степени)\b", "**"),
    (r"(?<=\d)\s*[x×х·]\s*(?=\d)", "*"),
    (r"÷", "/"),
    (r"−", "-"),
    (r"\^", "**"),
    (r"(\d+(?:\.\d+)?)\s*(?:%|percent|відсот\w+|процент\w+)\s*(?:of|від|от)\s+(?=[\d(])", r"\1/100*"),
    (r"\b(?:square root of|корінь з|корень из)\s+(\d+(?:\.\d+)?)", r"sqrt(\1)"),
    (r"(?<=\d),(?=\d{3}\b)", ""),
)

CYRILLIC_ENDINGS = sorted(
    _set(
        """
        ами ями ого ему ому ими ыми ах ях ів їв ев ов ей ий ый ой ая яя ое ее ою ею ати яти ить ать ять ти ть ся
        сь ом ем ам ям ми им ым у ю а я о е и і ї й ь ы
        """
    ),
    key=lambda ending: (-len(ending), ending),
)

RUSSIAN_WORDS = _set(
    """
    и что как какие какой какая есть создай создать найди сколько меня мне мой мои привет здравствуйте посчитай задачу
    назови назвать помнишь пожалуйста умножить разделить под названием
    """
)
"""Words that tell Russian from Ukrainian where no letter does."""
