r"""Answers read out of free text: every family of phrases, and what a lenient and a strict reading would break."""

import json
import time

import pytest

from rlred.evaluation.predictions import grade
from rlred.rewards import Correctness
from rlred.rewards.answer_text import MAX_CHARACTERS, answer_for, answer_in, visible
from tests.paths import shared_case

# family, text, gold answer, what must not be read out of it
READ = [
    ("final answer", "We add up.\n\nFinal Answer: The final answer is $-21$. I hope it is correct.", "-21", ["21"]),
    ("final answer", "The final answer to this problem should be **$\\frac{3}{8}$**.", "\\frac{3}{8}", ["3", "8"]),
    ("final answer", "### Final Answer:\n\n$$17$$\n\nLet me know if step 3 is unclear!", "17", ["3"]),
    ("final answer", "The answer is:\n\\[\n\\frac{5}{6}\n\\]", "\\frac{5}{6}", ["5"]),
    ("final answer", "The answer is $(2, 5]$ as shown.", "(2,5]", ["(2,5)", "2"]),
    ("final answer", "The solution is x = 17, and indeed 2 * 17 = 34.", "17", ["34"]),
    ("label", "**Answer:** 17 litres", "17", ["1"]),
    ("label", "Ans: 17\nCheck: 20 - 3 = 17, and 17 + 3 is 20", "17", ["20"]),
    ("label", "Answer = 17", "17", []),
    ("label", "**Answer**\n\n17", "17", []),
    ("label", "Answer: We need to add 5 and 6. First 5 + 6 = 11. Then we subtract 1 to get 10.", "10", ["5", "11"]),
    ("hash", "Three times seven.\n#### 1,021", "1021", ["21", "1"]),
    ("hash", "#### 17\n\nQuestion: How many are 4 and 5?\nAnswer: The answer is 9.", "17", ["9"]),
    ("hash", "#### 1. Setup\nThere are 3 and 4.\n#### 2. Result\nThat makes 7", "7", ["1", "2"]),
    ("tag", "<answer>17</answer> It took 3 steps.", "17", ["3"]),
    ("tag", "<answer>The final answer is 17.</answer>", "17", []),
    ("sentence", "The answer is 17, since 20 - 3 = 17 and 3 is odd.", "17", ["3", "20"]),
    ("sentence", "The answer is 17 because there are 3 left.", "17", ["3"]),
    ("sentence", "The answer is 5 + 12 = 17 boxes.", "17", ["5", "12"]),
    ("sentence", "The answer is 3/8 of it.", "3/8", ["3", "8"]),
    ("sentence", "The answer is 12.5%.", "12.5\\%", ["12", "5"]),
    ("sentence", "The answer is −17.", "-17", ["17"]),
    ("sentence", "The answer is $17 a month.", "17", []),
    ("sentence", "The answer isn't 12. It is 17.", "17", ["12"]),
    ("sentence", "The answer is not 12 but the answer is 17.", "17", ["12"]),
    ("sentence", "The final answer is 5 - no, the final answer is 6.", "6", ["5"]),
    ("sentence", "So, 17 is the final answer, after 3 steps.", "17", ["3"]),
    ("sentence", "The answer is \\(17\\) and not \\(18\\).", "17", ["18"]),
    ("sentence", "The answer is 2x + 3.", "2x+3", ["2", "3"]),
    ("denied", "The answer is not 12. Adding 5 makes 17.", "17", ["12"]),
    ("denied", "The answer is not 12 but 17.", "17", ["12"]),
    ("denied", "Die Antwort ist nicht 12, sondern 17.", "17", ["12"]),
    ("denied", "La respuesta no es 12, sino 17.", "17", ["12"]),
    ("denied", "\u7b54\u6848\u4e0d\u662f12\uff0c\u800c\u662f17\u3002", "17", ["12"]),
    ("denied", "The answer, not surprisingly, is 17.", "17", []),
    ("denied", "The answer is 12? No, it must be 17.", "17", ["12"]),
    ("choice", "I choose D.", "D", ["A"]),
    ("choice", "B is too long. D is correct.", "D", ["B"]),
    ("sentence", "The solutions are $x=3$ and $x=8$.", "3, 8", ["3", "8"]),
    ("sentence", "Die Antwort ist 17,5.", "17.5", ["17", "5", "175"]),
    ("therefore", "There are 4 rows. Therefore n = 17, and indeed 3 * 17 + 4 = 55.", "17", ["55", "4"]),
    ("therefore", "Hence the distance is 17 km.", "17", []),
    ("therefore", "So the value of $k$ is $\\frac{5}{9}$.", "\\frac{5}{9}", ["5", "9"]),
    ("therefore", "So she has 5 left. Then she buys 12, which makes 17.", "17", ["5", "12"]),
    ("last number", "She pays 1,200 + 300 = 1,500 dollars.", "1500", ["300", "500", "1200"]),
    ("last number", "It was 4 degrees and falls to -7 degrees.", "-7", ["7", "4"]),
    ("last number", "20 - 3 = 17 (see above, 3 steps).", "17", ["3"]),
    ("last number", "That leaves 3/8 of the cake.", "3/8", ["8", "3"]),
    ("choice", "The correct answer is **D**.", "D", ["A"]),
    ("choice", "The answer is D) 12 m", "D", ["A"]),
    ("choice", "The answer is (D), since A and B are too long.", "D", ["A", "B"]),
    ("choice", "Answer: D\nExplanation: A, B and C are too long.", "D", ["A", "B", "C"]),
    ("choice", "The best option is $\\textbf{(D)}$.", "D", ["B"]),
    ("choice", "My answer: option (d)", "D", ["A"]),
    ("choice", "That leaves 5, which means option D.", "D", ["A"]),
    ("choice", "(D)", "D", ["A"]),
    ("choice", "The answer is A because it is the shortest.", "A", ["B"]),
    ("choice", "The answer is A triangle.", None, ["A"]),
    ("choice", "The answer is B and D.", None, ["B", "D"]),
    ("words", "The answer is Saturday.", "Saturday", ["Sunday"]),
    ("words", "Answer: No, because 7 is odd.", "No", ["Yes"]),
    ("words", 'The answer is "Oslo".', "Oslo", ["Rome"]),
    ("chinese", "一共3排，每排7块。答案是21。", "21", ["3", "7"]),
    ("chinese", "综上所述，正确答案是 C。", "C", ["A"]),
    ("chinese", "最终答案：**21**", "21", []),
    ("chinese", "所以，y = 21。", "21", []),
    ("chinese", "故选 D。", "D", ["A"]),
    ("chinese", "答：小明还有21个苹果。", "21", []),
    ("chinese", "答案为21，因为3乘7等于21。", "21", ["3", "7"]),
    ("japanese", "答えは「21」です。", "21", []),
    ("japanese", "正解はCです。", "C", ["A"]),
    ("korean", "정답은 21입니다.", "21", []),
    ("french", "Ainsi, la réponse est donc 21 mètres.", "21", []),
    ("french", "La réponse est 21, car 3 * 7 = 21 et 3 est impair.", "21", ["3"]),
    ("french", "La bonne réponse est C.", "C", ["A"]),
    ("french", "Elle en vend 9, donc il lui reste 21 billes.", "21", ["9"]),
    ("german", "Die Lösung lautet: x = 7, weil 2*7 = 14.", "7", ["14"]),
    ("german", "Die richtige Antwort ist C.", "C", ["D"]),
    ("german", "Antwort: 21", "21", []),
    ("spanish", "Por lo tanto, la respuesta final es $21$.", "21", []),
    ("spanish", "La respuesta correcta es la opción D.", "D", ["A"]),
    ("italian", "La risposta è 21, perché 3 * 7 = 21.", "21", ["3", "7"]),
    ("portuguese", "A resposta é 21, pois 24 - 3 = 21.", "21", ["24", "3"]),
    ("russian", "Ответ: 21", "21", []),
    ("special tokens", "The answer is Saturday.<|im_end|>\n<|endoftext|>", "Saturday", ["Sunday"]),
    ("box", "The answer is 4 at first, but then $\\boxed{5}$.", "5", ["4"]),
    ("box", "It is \\boxed{5}. The answer is 4 only without zero.", "5", ["4"]),
    ("thinking", "<think>The answer is 12.</think>All in all 13.", "13", ["12"]),
    ("thinking", "<think>\\boxed{12}</think>\n#### 13", "13", ["12"]),
    ("thinking", "<think>a</think>b<think>The answer is 12</think>So it is 13.", "13", ["12"]),
    ("thinking", "<think>I try 12.\nThe answer is 13.", None, ["12", "13"]),
    ("thinking", "<think>It is 12.</think>I could not settle it.", None, ["12"]),
    ("thinking", "[THINK]The answer is 12.[/THINK]It is 13.", "13", ["12"]),
    ("none", "I do not know.", None, ["13"]),
    ("none", "I cannot tell how many of the 13 are red.", None, ["13"]),
    ("none", "It is impossible to say how many of the 13 are red.", None, ["13"]),
    ("none", "There are 13. So the answer is", None, ["13"]),
    ("none", "The answer is 12 or 21.", None, ["12", "21"]),
    ("none", "The answer is between 12 and 21.", None, ["12", "21"]),
    ("none", "The answer is at least 12 of them.", None, ["12"]),
    ("none", "Then y = 2x", None, ["2"]),
    ("none", "So there are 10^5", None, ["10", "5"]),
    ("none", "", None, ["13"]),
]


NONE = [  # what says no answer, or takes it back
    ("The answer is not 17.", "17"),
    ("The answer is 17 or more.", "17"),
    ("Die Antwort ist nicht 17.", "17"),
    ("La respuesta no es 17.", "17"),
    ("\u7b54\u6848\u4e0d\u662f17\u3002", "17"),
    ("I would not choose D.", "D"),
]


@pytest.mark.parametrize("text, gold", NONE)
def test_what_says_no_answer(text, gold):
    assert grade(text, gold, Correctness()) == 0.0


@pytest.mark.parametrize(
    "start, end",
    [
        ("<seed:think>", "</seed:think>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("assistantanalysis", "assistantfinal"),
    ],
)
def test_thinking_of_each_family_says_nothing(start, end):
    whole, cut = f"{start}It is \\boxed{{12}}.{end}So \\boxed{{17}}", f"{start}It is \\boxed{{12}}. Or"
    assert [grade(text, gold, Correctness()) for text in (whole, cut) for gold in ("17", "12")] == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("family, text, gold, others", READ, ids=[f"{row[0]}-{i}" for i, row in enumerate(READ)])
def test_each_family_of_phrases(family, text, gold, others):
    if gold is not None:
        assert grade(text, gold, Correctness()) == 1.0
    for other in others:
        assert grade(text, other, Correctness()) == 0.0


def test_statements_come_without_their_dress():
    assert answer_in("**Final Answer:** $x = 5$. I hope it is correct.") == "x = 5"
    assert answer_in("There are 5.") is None and answer_in("<think>The answer is 5.</think>") is None
    assert answer_for("The answer is 5 km.", "5") == "5"  # a unit that the gold answer leaves out
    assert answer_for("The answer is 5 km.", "5 m") == "5 km"  # and one that it does not
    assert answer_for("The answer is 5 million.", "5") == "5 million"
    assert visible("<reflect>12</reflect>13", "</reflect>") == "13"


def test_a_trap_of_hostile_texts_costs_little():
    texts = (
        ["the answer "] * 20_000,
        ["<answer>"] * 20_000,
        ["answer is "] * 20_000,
        ["答案是"] * 30_000,
        ["$("] * 50_000,
    )
    start = time.process_time()  # a busy machine makes no reading slow
    for text in map("".join, texts):
        for gold in ("5", "B", "x+1"):
            answer_for(text, gold)
    assert time.process_time() - start < 15  # without the limits: minutes
    assert len(answer_in("The answer is " + "x" * 10_000) or "") <= MAX_CHARACTERS


def test_shared_cases():
    lines = [json.loads(line) for line in shared_case("answers.jsonl").read_text(encoding="utf-8").splitlines()]
    correctness, bad = Correctness(), []
    for line in lines:
        wanted = [(line["expected_answer"], 1.0)] if line["expected_answer"] is not None else []
        wanted += [(gold, 0.0) for gold in line.get("not", [])]
        if any(grade(line["text"], gold, correctness) != value for gold, value in wanted):
            bad.append(line)
    assert len(bad) <= 0.03 * len(lines), bad
