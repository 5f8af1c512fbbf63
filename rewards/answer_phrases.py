"""The phrases that announce an answer in free text: data for answer_text.py, one entry per language.

A new language is an entry of `LANGUAGES`; a new phrasing is a word in one. Words are matched whole where `spaced` says
that blanks separate them, and in any case.
"""

from dataclasses import dataclass

# Where the thinking of each family of models begins and ends; nothing between them is an answer.
THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),  # Kimi
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|start_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # gpt-oss
    ("assistantanalysis", "assistantfinal"),  # the same, decoded without special tokens
)
SPECIAL_TOKENS = (
    "</s>",
    "<eos>",
    "<end_of_turn>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|endoftext|>",
    "<|return|>",
    "<|end|>",
)
NEXT_QUESTION = ("question", "problem", "q", "exercise")  # a base model that goes on with one of its own
CLOSINGS = ("i hope", "hope this", "hope that", "hope it", "let me know", "feel free", "good luck")
WRAPPERS = ("text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mbox", "boldsymbol", "bm")
_ANSWER_NOUNS = ("answer", "final answer", "correct answer", "correct option", "correct choice")
_CANNOT = ("cannot", "can't", "can not", "could not", "couldn't", "unable to", "not able to", "impossible to")
_CANNOT += ("not possible to",)
_FIND_OUT = (
    "determine",
    "solve",
    "answer",
    "find",
    "tell",
    "say",
    "compute",
    "calculate",
    "settle",
    "work out",
    "decide",
)


@dataclass(frozen=True)
class Phrases:
    """The words of one language. `spaced`: its words are separated by blanks."""

    answers: tuple[str, ...]  # nouns that announce an answer together with a link, or before a colon
    links: tuple[str, ...]  # what connects the noun with the answer
    linked: tuple[str, ...] = ()  # nouns that announce with a link alone: before a colon they begin a solution
    inverted: tuple[str, ...] = ()  # follow the answer
    options: tuple[str, ...] = ()  # nouns before the letter of an option
    labels: tuple[str, ...] = ()  # announce an answer at the start of a line, before a colon
    direct: tuple[str, ...] = ()  # announce an answer with no link
    conclusions: tuple[str, ...] = ()  # begin a last sentence that says the answer
    reasons: tuple[str, ...] = ()  # begin what is said after the answer
    refusals: tuple[str, ...] = ()  # say that there is no answer
    negations: tuple[str, ...] = ()  # beside a link: what follows is not the answer
    contrasts: tuple[str, ...] = ()  # after what is not the answer: what follows is
    ranges: tuple[str, ...] = ()  # between two numbers, or before one: no single number is meant
    multipliers: tuple[str, ...] = ()  # belong to the number before them
    endings: tuple[str, ...] = ()  # of a sentence, no part of the answer
    spaced: bool = True


LANGUAGES = {
    "english": Phrases(
        answers=(
            "answer",
            "answers",
            *(f"{a} {b}" for a in ("correct", "right", "best") for b in ("option", "choice")),
        ),
        links=("is", "are", "was", "would be", "should be", "must be", "will be", "equals", "comes to", "becomes"),
        linked=("solution", "solutions", "final result"),
        inverted=tuple(f"is {the} {noun}" for the in ("the", "my", "our") for noun in _ANSWER_NOUNS),
        options=("option", "choice", "answer"),
        labels=("ans", "ans.", "result", "final result"),
        conclusions=("therefore", "thus", "hence", "so", "consequently", "in conclusion", "finally", "in total"),
        reasons=(
            *("since", "because", "as", "not", "which", "where", "so", "but", "while", "given that", "rather than"),
            *("instead of", "and indeed"),
        ),
        refusals=(
            *(f"{modal} {verb}" for modal in _CANNOT for verb in _FIND_OUT),
            *("do not know", "don't know", "not sure", "no idea", "not enough information", "give up"),
            *("cannot be determined", "can't be determined", "could not be determined"),
        ),
        negations=("not", "neither", "never"),
        contrasts=("but", "rather"),
        ranges=("or", "and", "to", "between", "at least", "at most", "more than", "less than", "from"),
        multipliers=("hundred", "thousand", "million", "billion", "trillion", "dozen", "pairs", "percent"),
    ),
    "chinese": Phrases(
        answers=("答案", "正确选项", "正确的选项", "正確選項", "最终结果", "最終結果"),
        links=("应该是", "應該是", "应为", "應為", "等于", "等於", "就是", "是", "为", "為", "选", "選"),
        options=("选项", "選項", "选择", "選擇", "选", "選"),
        labels=("结果", "結果", "解"),
        direct=("故选", "故選", "应选", "應選", "因此选", "所以选", "答：", "答:"),
        conclusions=("因此", "所以", "故", "于是", "於是", "综上", "综上所述", "最终", "最後"),
        reasons=("因为", "因為", "由于", "由於", "而不是", "不是"),
        refusals=("无法确定", "無法確定", "无法解", "无法得出", "不能确定", "不知道", "不确定"),
        negations=("不是", "不"),
        contrasts=("而是",),
        ranges=("或", "和", "到", "至", "至少", "至多", "之间"),
        multipliers=("百", "千", "万", "萬", "亿", "億"),
        spaced=False,
    ),
    "japanese": Phrases(
        answers=("答え", "答案", "正解", "解答"),
        links=("は", "が"),
        conclusions=("よって", "したがって", "ゆえに", "従って"),
        reasons=("なぜなら", "ではなく"),
        refusals=("わかりません", "分かりません", "決定できません"),
        negations=("ありません",),
        ranges=("または", "から", "以上", "以下"),
        multipliers=("百", "千", "万", "億"),
        endings=("になります", "となります", "である", "です", "だ"),
        spaced=False,
    ),
    "korean": Phrases(
        answers=("답", "정답"),
        links=("은", "는", "이"),
        conclusions=("따라서", "그러므로"),
        reasons=("왜냐하면",),
        refusals=("모르겠습니다", "알 수 없습니다"),
        endings=("입니다", "이다"),
        spaced=False,
    ),
    "french": Phrases(
        answers=("réponse", "réponse finale", "bonne option", "bon choix"),
        links=("est", "sont", "vaut", "serait", "égale", "donne"),
        linked=("solution",),
        options=("option", "réponse"),
        labels=("résultat", "rép."),
        conclusions=("donc", "ainsi", "par conséquent", "alors", "finalement", "d'où"),
        reasons=("car", "parce que", "puisque", "et non", "non", "mais"),
        refusals=("ne sais pas", "ne peux pas", "impossible de", "ne peut pas déterminer"),
        negations=("pas",),
        contrasts=("mais",),
        ranges=("ou", "et", "à", "entre", "au moins", "au plus"),
        multipliers=("cents", "mille", "million", "millions", "milliard", "milliards", "douzaine", "douzaines"),
    ),
    "german": Phrases(
        answers=("Antwort", "Endergebnis", "richtige Option", "richtige Lösung"),
        links=("ist", "sind", "lautet", "wäre", "beträgt"),
        linked=("Lösung",),
        options=("Option", "Antwort"),
        labels=("Ergebnis",),
        conclusions=("also", "somit", "daher", "folglich", "deshalb", "demnach"),
        reasons=("da", "weil", "denn", "und nicht", "nicht", "sondern"),
        refusals=("weiß es nicht", "weiß nicht", "kann ich nicht", "nicht bestimmen", "unmöglich"),
        negations=("nicht",),
        contrasts=("sondern",),
        ranges=("oder", "und", "bis", "zwischen", "mindestens", "höchstens"),
        multipliers=("hundert", "tausend", "Million", "Millionen", "Milliarden", "Dutzend"),
    ),
    "spanish": Phrases(
        answers=("respuesta", "opción correcta"),
        links=("es", "son", "sería"),
        linked=("solución",),
        options=("opción",),
        labels=("resultado",),
        conclusions=("por lo tanto", "por tanto", "así que", "entonces", "luego"),
        reasons=("porque", "ya que", "pues", "dado que", "no", "sino"),
        refusals=("no sé", "no puedo", "no es posible"),
        negations=("no",),
        contrasts=("sino",),
        ranges=("o", "y", "a", "entre", "al menos", "como máximo"),
        multipliers=("cientos", "mil", "millón", "millones", "docena", "docenas"),
    ),
    "italian": Phrases(
        answers=("risposta", "opzione corretta"),
        links=("è", "sono", "sarebbe"),
        linked=("soluzione",),
        options=("opzione",),
        labels=("risultato",),
        conclusions=("quindi", "dunque", "perciò", "pertanto"),
        reasons=("perché", "poiché", "e non", "non"),
        refusals=("non so", "non posso"),
        negations=("non",),
        contrasts=("ma", "bensì"),
        ranges=("o", "tra", "fra", "almeno", "al massimo"),
        multipliers=("mila", "milione", "milioni", "dozzina"),
    ),
    "portuguese": Phrases(
        answers=("resposta", "opção correta", "alternativa correta"),
        links=("é", "são", "seria"),
        linked=("solução",),
        options=("opção", "alternativa"),
        labels=("resultado",),
        conclusions=("portanto", "logo", "assim", "então"),
        reasons=("porque", "pois", "já que", "não"),
        refusals=("não sei", "não posso", "não é possível"),
        negations=("não",),
        contrasts=("mas", "e sim"),
        ranges=("ou", "e", "a", "entre", "pelo menos", "no máximo"),
        multipliers=("mil", "milhão", "milhões", "dúzia", "dúzias"),
    ),
    "russian": Phrases(
        answers=("ответ", "правильный ответ", "правильный вариант"),
        links=("равен", "будет", "это", "-", "—"),
        options=("вариант",),
        conclusions=("следовательно", "значит", "таким образом", "итак", "поэтому"),
        reasons=("так как", "потому что", "поскольку", "а не"),
        refusals=("не знаю", "не могу", "невозможно"),
        negations=("не",),
        contrasts=("а",),
        ranges=("или", "и", "от", "до", "между"),
        multipliers=("тысяч", "тысячи", "миллион", "миллиона", "миллионов"),
    ),
}
