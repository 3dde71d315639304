"""The offline provider's vocabulary in English, Ukrainian and Russian. Data only.

A concept is one meaning with the stems that stand for it. Latin stems must match whole; Cyrillic ones are beginnings,
since its words change their ends.
"""


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONCEPTS: dict[str, str] = {
    "create": "creat make add register створ додай додат заведи созда добав сдела зроб",
    "list": "list show display what which who view get есть покаж спис перелік які яка який яке переч каки какой кака",
    "search": "search find look lookup seek знайд знайти пошук шука найд найти поиск ищи искать",
    "calculate": "calculate calculat comput math evaluat arithmetic порах рахув обчисл посчит вычисл математ калькул",
    "update": "update updat change chang edit rename renam modify move зміни онови измени обнови переим перейм перем",
    "delete": "delete delet remove remov drop erase eras видал прибер стер удал убери сотри cancel скасу отмен",
    "send": "send email надішл відправ відішл пошл отправ",
    "finish": "finish complete complet close clos done заверш закри закры викон выполн",
    "run": "run execut execute запуст исполн",
    "project": "project проєкт проект",
    "task": "task todo задач завдан",
    "document": "doc document documentation handbook документ докум",
    "open": "open відкрит открыт",
    "remember": "remember recall remind пам'ят памят помн вспомн згада нагада напомн",
    "know": "know known знаєш знаєте знаю знаешь знаете",
    "say": "say said tell told mention ask каза сказ говор згадув спит",
    "weather": "weather forecast погод прогноз",
    "time": "time clock date час дата время врем",
}

EFFECTS = frozenset({"create", "update", "delete", "send", "finish", "run"})
"""What changes something: never done unless the request says so."""

ACTIONS = EFFECTS | {"list", "search", "calculate"}

RECALLING = frozenset({"remember", "know", "say", "before", "early", "last", "раніш", "раньш"})
"""What a question about the past is made of, besides the thing it asks about."""

STOP_WORDS = _set(
    """
    new новий нова нове нову нового новый новая новое новую thank thanks дякую спасибо
    a an and are as at be been being by can could did do does done for from give go had has have he her here
    hi him his how i if in into is it its just know let like me my need of on one or our please s she should
    so some tell than that the their them then there these they this those to too us use using very want was
    we were when where will with would you your yours am about all any also now out up down but not no і й та
    а але або у в на з із зі до від для по про за що це цей ця ці як де коли чи є був була було були мій моя
    моє мої мене мені ми нам нас ти тебе тобі ви вас вам він вона воно вони його її їх будь ласка можеш можете
    треба хочу мати має таке такий така такое такой такая и но или с со к ко от о об обо из это этот эта эти как где
    когда ли был была было были мой мое моё мои меня мне мы ты тебя вы он она оно они его ее её их пожалуйста
    можешь нужно надо что же бы called named
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
    r"\byou (still )?(remember|recall)\b|^(remind|recall)\b|\bdid i (just )?(say|tell|mention|ask)"
    r"|\bi (just )?(said|told|mentioned|asked)\b|\bdid we\b"
    r"|\bwe (said|discuss|talk)\w*|\bearlier\b|\blast time\b|\bpreviously\b|\bknow about me\b|\bsaid before\b"
    r"|пам.ятаєш|пам.ятаєте|(?:про мене|зна[єю]\w*).{0,12}(?:зна[єю]|про мене)|говорив|говорила"
    r"|казав|казала|сказав|сказала|раніше|минулого разу|згадай"
    r"|помнишь|помните|(?:обо мне|знае\w*).{0,12}(?:знае|обо мне)|говорил|сказал|раньше|прошлый раз|вспомни"
)
"""Asking for what was said before."""

REMEMBER = (
    r"^(?:(?:please|будь ласка,?|пожалуйста,?)\s+)?(?:remember|note|keep in mind|don.t forget|запам.ятай|занотуй"
    r"|май на увазі|не забудь|запомни|имей в виду|учти)\b(?! to )(?:\s*:|,?\s+(?:that|this|що|что)\b)?"
)
"""Telling something to keep."""

SUMMARIZE = (
    r"^(?:(?:please|будь ласка,?|пожалуйста,?|can you|could you)\s+)?(?:sum up|summari[sz]e|summary|recap|tl;?dr"
    r"|shorten|report|підсумуй|підсумок|резюмуй|скороти|звіт|суммируй|подытожь|резюмируй|сократи|отч[её]т)\b"
)
"""Asking for the given text in short."""

PERSONAL = r"\b(my|mine|about me|мій|моя|моє|мої|мого|моєї|мене|мой|мое|моё|мои|моего|моей|меня)\b"
"""Words of a question that memories may answer and documents never do."""

FIRST_PERSON = rf"{PERSONAL}|\b(i|i['’]m|we|our|я|ми|мы|мені|мне|наш\w*)\b"
"""Words of a statement in which the user tells of themselves."""

QUESTION = (
    r"^(and |so |а |и |і |та )?(what|which|who|whom|whose|when|where|why|how|is there|are there"
    r"|do (i|we|you)|does|did|is|are"
    r"|що|хто|які|яка|який|яке|скільки|де|коли|чому|як|чи|чий|что|кто|какие|какая|какой|какое|сколько|где|когда|почему|как"
    r"|есть ли)\b"
)

NEGATION = r"\b(?:not|never|no|avoid|without|cannot|dont|\w+n['’ʼ]t|не|ні|ніколи|нет|никогда|без)\b"

DELIBERATION = (
    r"^(?:and |so |but |а |і |и |но )?(?:should|shall|may|might|could we|can i|can we|could i|do you think|what if|if"
    r"|whether|suppose|do (?:i|we) (?:have|need) to"
    r"|(?:is|was|would) it (?:be )?(?:ok|okay|fine|good|wise|possible|worth|better|an?|all)"
    r"|чи (?:варто|треба|слід|можна|потрібно|не|мені|нам|краще)|якщо|що як|а якщо|можна|варто|если|а если"
    r"|что если|можно|стоит|нужно ли|надо ли|лучше ли|следует ли)\b"
)
"""Thinking about doing something, which is not asking for it."""

ASKING = (
    r"(?:can|could|would|will) you|(?:чи )?(?:не )?(?:можеш|можете|могли? б(?:и)?)(?: ти| ви)?"
    r"|(?:ты |вы )?(?:можешь|можете|не мог(?:ла|ли)? бы)(?: ты| вы)?"
)
CREATING = r"add|create|make|додай\w*|створи\w*|добав\w*|созда\w*"
LEAD_IN = (
    rf"{ASKING}|please|now|then|next|also|just|ok|okay|hey|hi|hello|yes|so|and|first|finally|again|actually|instead"
    r"|go ahead and|(?:i|we) (?:want|need|would like|wish)(?: you)? to|(?:i|we).d like (?:you )?to|let.?s|let us"
    r"|i wanna|help me(?: to)?|don.t forget to|будь[ -]?ласка|прошу|привіт|так|тепер|потім|також|ще|просто|а|і|та|й"
    r"|давай|давайте|я|хочу|хочемо|мені|нам|треба|потрібно|допоможи|не забудь|пожалуйста|привет|да|теперь|потом|также"
    r"|ещё|еще|и|хотим|мне|нужно|надо|помоги|(?:for|in|to|для|у|в|до|к)\s[^,:?\n]{1,60}(?=[,:])"
    r"|(?:for|in|to|для|у|в|до|к)\s(?:the )?(?:project|проєкт\w*|проект\w*)\s[^,:?\n]{1,60}?(?=\s"
    rf"(?:{CREATING})\b)"
)
"""What may stand before the verb of a command: politeness, wishes, and the place where a thing belongs."""

CARRIERS = r"(?:mark|set|tick|познач\w*|відзнач\w*|відміть|отметь|пометь|постав\w*)$"
"""Verbs that say what to do only together with a later word: "mark … as done"."""

NOT_IMPERATIVE = (
    r"(?:ed|ing|s|(?<!прав)(?<!став)в|л|ла|ло|(?<!\bвида)(?<!\bуда)(?<!іш)ли|но|н|на|ю|є|ет|ёт|ит|ить|ємо|ем|ют|ють)$"
)
"""Ends of verbs that tell of doing (created, створив, создаю) instead of asking for it."""

CANCEL = _set(
    """
    cancel stop abort nevermind mind forget drop no nope not don't не скасуй скасувати скасуйте відміна відміни стоп
    забудь ні отмена отмени отменить неважно неважливо нет
    """
)
CANCEL_FILLERS = _set(
    """
    never it that this please ok okay all about the do bother actually oh sorry i changed my leave be thanks треба
    надо нужно варто це цього про это все всё об этом будь ласка пожалуйста ой дякую спасибо
    """
)
AGREEMENT = _set(
    """
    yes yeah yep sure ok okay please do it go ahead of course right так давай звісно звичайно авжеж зроби добре да
    конечно сделай хорошо ага угу будь ласка пожалуйста
    """
)

NAMED = (
    r"(?:called|named|titled|entitled|(?:with|under) (?:the )?(?:name|title)|name it|call it"
    r"|(?:з|із|під)\s+назвою|на ім.я|під\s+заголовком|назви(?:\s+(?:його|її))?|названий|названу"
    r"|(?:с|под)\s+названием|по имени|назови(?:\s+(?:его|её|ее))?)"
)

WITH_TASK = r",?\s+(?:with|з|із|с|со)\s+(?:(?:a|an|the|one|new|новим|новою|новой)\s+)*(?=(?:task|завдан|задач)\w*\b)"
"""What joins a task to the project that is to be made for it."""

CLAUSE_WORDS = (
    r"and then|after that|then|and also|and|а потім|і потім|потім|після цього|та|і|й|а потом|и потом|потом|затем|и"
)

CALCULATION_ASKED = (
    r"(?:\b(?:what(?:['’]?s| is| does| are)|how much(?: is| are)?|how many(?: is| are)?|tell me|give me|result of"
    r"|value of|скільки(?: ж)?(?: буде| є| це)?|чому дорівнює|що таке|що буде|скажи(?: мені| мне)?"
    r"|сколько(?: будет| это)?|чему рав\w+|что такое|что будет)"
    r"\s+(?:(?:the|result|answer|value|of|to|is|буде|результат|для)\s+)*"
    r"|\b(?:calculat|comput|evaluat|solve|work out|порахуй|рахуй|обчисл|посчита|вычисл)[^.?!]{0,40})$"
)
"""What stands right before an expression whose value is asked for."""

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
    назови назвать помнишь пожалуйста ли стоит проект проекта проекте проекту нет добавь удали отметь переименуй отмена
    отмени обо сколько будет запомни умножить разделить под названием
    """
)
"""Words that tell Russian from Ukrainian where no letter does."""
