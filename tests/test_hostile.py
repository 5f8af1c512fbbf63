"""Nothing that a model or a file can say hangs, crashes or fills the memory: fuzzing, the thousands are slow tests."""

import json
import os
import string
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlred.data.budgets import MODES, BudgetSampler, effort_of, hundredths, make_wording
from rlred.data.questions import load_questions
from rlred.rewards import Correctness, grader
from tests.test_correctness import HOSTILE

SLOW_CASES = 10_000
PIECES = ["\\boxed{", "}", "{", "(", ")", "^", "!", "_", "9", "0.5", "x", "\\frac", "\\sqrt", "\\sum", "\\int", "\\pi"]
PIECES += ["\\text{", "\\left(", "\\right)", "\\begin{pmatrix}", "\\\\", "&", "%", "$", ",", "=", "\\infty", "-", "+"]
PIECES += ["**", "/", "\\cdot", "e", "10^", "</think>", "\x00", "\ud800", "\u202e", "\n", " ", "\\log", "\\binom"]
PIECES += [
    "\\fbox{",
    "\\boxed 7",
    "\\text{ cm}",
    "\\ldots",
    "\\pm",
    "\\cup",
    "\\begin{cases}",
    "\\end{cases}",
    ":",
    ";",
    " and ",
]
PIECES += [
    "\\pmod",
    "'",
    "\u221a",
    "\u00bd",
    "\\color{red}",
    "1,234",
    "^\\circ",
    " a.m.",
    "million",
    "<",
    "\\le",
    "\\to",
    "[",
    "]",
]
PIECES += ["\\overline{", "\\{", "\\}", "|", "{,}", "~", "\u4e07", "\uff11", "$", "####", "Answer: ", "(A) "]
mathematics = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=30).map("".join)
anything = st.text() | mathematics


def fuzz(test, drawn, cases):
    """Runs a test with this many cases of what `given` draws: anew each time, as settings can be put on only once."""
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    settings(max_examples=cases, suppress_health_check=checks, database=None)(drawn(test))()


solutions = anything | st.none() | st.floats() | st.integers() | st.lists(anything | st.none(), max_size=2)
SHAPES = [
    lambda text: text,
    lambda text: [{"role": "assistant", "content": text}],
    lambda text: [{"role": "assistant", "content": [{"type": "text", "text": text}, {"type": "image"}, None]}],
    lambda text: [{"role": "assistant", "reasoning_content": text, "content": text}],
    lambda text: [{"role": "assistant", "content": text}, {"role": "tool", "content": text}],
    lambda text: [{"role": "assistant"}],
    lambda text: [],
]


def a_grade_is_a_grade(gold, before, answer, shape):
    begin = time.monotonic()
    [grade] = Correctness()([shape(f"{before}</think>\\boxed{{{answer}}}")], solution=[gold])
    assert grade in (0.0, 1.0, None)
    assert time.monotonic() - begin <= 2 * (len(gold) if isinstance(gold, list) else 1) + 0.5


def check_grader(cases):
    grader.verdict.cache_clear()
    grader.equal("x", "y+1")  # the server is up
    drawn = given(gold=solutions, before=anything, answer=mathematics, shape=st.sampled_from(SHAPES))
    fuzz(a_grade_is_a_grade, drawn, cases)
    with open(f"/proc/{grader._server(os.getpid())._process.pid}/status") as file:
        [peak] = [int(line.split()[1]) for line in file if line.startswith("VmHWM")]
    print(f"{cases} cases: none above 2.5 s for each alternative; the grading server's peak is {peak / 1024:.0f} MiB")
    assert peak < 512 * 1024  # what one comparison may add is limited by the kernel: grader.MEMORY_BYTES


def test_fuzzed_answers_are_graded():
    check_grader(150)


@pytest.mark.slow
def test_ten_thousand_fuzzed_answers_are_graded():
    check_grader(SLOW_CASES)


def slowdown() -> float:
    """How much longer than the processor's time the clock's is, on a machine that others use too; 1 on a free core."""
    clock, processor = time.monotonic(), time.process_time()
    while time.process_time() - processor < 0.3:
        pass
    return max(1.0, (time.monotonic() - clock) / 0.3)


def test_trap_a_batch_of_hostile_answers_does_not_cost_a_second_for_each():
    texts = [f"\\boxed{{9^{{9^{{9^{{{n}}}}}}}}}" for n in range(10, 74)]
    texts[20], texts[40] = "\\boxed{\\frac{37}{2}}", "\\boxed{\\frac{74}{4}}"
    grader.verdict.cache_clear()
    grader.equal("x", "y+1")  # the server is up
    others, begin = slowdown(), time.monotonic()
    grades = Correctness()(texts, solution=["18.5"] * 64)
    seconds = (time.monotonic() - begin) / others
    print(f"64 rows, 62 of them hostile: {seconds:.1f} s of a core that others use {others:.1f} times")
    assert grades == [float(row in (20, 40)) for row in range(64)]
    assert seconds < 10


@pytest.mark.slow
def test_a_busy_machine_makes_no_honest_answer_incorrect():
    pairs = [(rf"\frac{{n(n+{k})}}{{{k}}}", rf"\frac{{n^2+{k}n}}{{{k}}}") for k in range(2, 34)]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(40)]
    try:
        assert grader.equal_all(pairs) == [True] * len(pairs)
    finally:
        for one in others:
            one.kill()


def test_a_batch_of_all_known_hostile_answers():
    sized = [text for text in HOSTILE.values() if len(text) < 10_000]  # longer than any rollout's text
    texts = [sized[n % len(sized)].replace("\\boxed{", f"\\boxed{{{n}+", 1) for n in range(64)]
    others, begin = slowdown(), time.monotonic()
    assert Correctness()(texts, solution=["18.5"] * 64) == [0.0] * 64
    assert (time.monotonic() - begin) / others < 10


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
templates = st.text() | st.lists(
    st.sampled_from(["{question}", "{budget}", "{", "}", "exactly", "maximum", " ", "{question!r}", "{budget:d}"])
).map("".join)


asked = given(
    spec=st.text(max_size=12)
    | st.dictionaries(st.sampled_from(MODES) | st.text(max_size=5), templates, max_size=3)
    | st.just({}),
    question=st.text(),
    budget=numbers | st.integers(1, 10**9) | st.floats(0, 1) | st.text(max_size=6),
    mode=st.sampled_from(MODES) | st.text(max_size=5),
)


def a_budget_is_worded_or_refused(spec, question, budget, mode):
    try:
        text = make_wording(spec).ask(question, budget, mode)
    except ValueError as error:
        assert str(error)
    else:
        asked = hundredths(effort_of(budget)) if mode == "effort" else budget
        assert question in text and (mode == "free" or str(asked) in text)


sampled = given(
    low=numbers,
    high=numbers,
    distribution=st.sampled_from(["uniform", "log_uniform", "choices"]) | st.text(max_size=5),
    choices=st.lists(numbers, max_size=3).map(tuple),
    modes=st.dictionaries(st.sampled_from(MODES) | st.text(max_size=3), numbers, max_size=3),
    efforts=st.just(()) | st.lists(numbers | st.floats(0, 1), max_size=2).map(tuple),
    random=st.randoms(use_true_random=False),
)


def budgets_are_drawn_or_refused(low, high, distribution, choices, modes, efforts, random):
    told = {"low": low, "high": high, "distribution": distribution, "choices": choices}
    try:
        sampler = BudgetSampler(**told, modes=modes, efforts=efforts)
    except ValueError as error:
        assert str(error)
        return
    mode, budget = sampler.draw(random)
    assert modes[mode] > 0
    assert (budget is None) == (mode == "free")
    least, most = (0, 1) if mode == "effort" else sampler.bounds
    assert budget is None or (least <= budget <= most and budget > 0)


OF_BUDGETS = [(a_budget_is_worded_or_refused, asked), (budgets_are_drawn_or_refused, sampled)]


@pytest.mark.parametrize("target, drawn", OF_BUDGETS)
def test_fuzzed_budgets_are_worded_and_drawn_or_refused(target, drawn):
    fuzz(target, drawn, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("target, drawn", OF_BUDGETS)
def test_ten_thousand_fuzzed_budgets_are_worded_and_drawn_or_refused(target, drawn):
    fuzz(target, drawn, SLOW_CASES)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
columns = st.sampled_from(["question", "problem", "answer", "solution", "level", "reference_length"]) | st.text(
    max_size=3
)
rows = st.lists(st.dictionaries(columns, values, max_size=5), max_size=4)
files = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet=string.printable, max_size=200).map(str.encode),
    rows.map(lambda found: json.dumps(found).encode()),
    rows.map(lambda found: "\n".join(map(json.dumps, found)).encode()),
    st.integers(1, 100_000).map(lambda depth: b"[" * depth),
    st.integers(1, 5_000).map(lambda digits: b'[{"question": "q", "answer": ' + b"9" * digits + b"}]"),
)


def check_loader(path, cases):
    def a_file_is_loaded_or_refused(content):
        path.write_bytes(content)
        begin = time.monotonic()
        try:
            questions = load_questions(str(path))
        except ValueError as error:
            assert str(error)
        else:
            assert len(questions) >= 1
            for row in questions:
                solutions = row["solution"] if isinstance(row["solution"], list) else [row["solution"]]
                assert row["question"].strip() and solutions and all(text.strip() for text in solutions)
        assert time.monotonic() - begin <= 2

    fuzz(a_file_is_loaded_or_refused, given(content=files), cases)


def test_fuzzed_files_are_loaded_or_refused(tmp_path):
    check_loader(tmp_path / "questions.jsonl", 500)


@pytest.mark.slow
def test_ten_thousand_fuzzed_files_are_loaded_or_refused(tmp_path):
    check_loader(tmp_path / "questions.jsonl", SLOW_CASES)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_fuzzed_tables_are_loaded_or_refused(tmp_path, ending):
    check_loader(tmp_path / f"questions.{ending}", 25)
