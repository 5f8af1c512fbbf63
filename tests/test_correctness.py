"""Grading: what is right is right, and nothing that a model can write makes the grader hang."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rlred.rewards import Correctness, grader
from rlred.rewards.correctness import golds_of, last_boxed
from tests.paths import real_data


@pytest.mark.parametrize(
    "solution, answer, expected",
    [
        ("18", "18", 1.0),
        ("18", "18.0", 1.0),
        ("18", "$18$", 1.0),
        ("1,234", "1234", 1.0),
        ("18", "19", 0.0),
        ("18", "", 0.0),
        (r"\frac{1}{2}", "0.5", 1.0),
        (r"\frac{1}{2}", r"\dfrac12", 1.0),
        (r"\frac{1}{2}", r"\frac{1}{3}", 0.0),
        ("x^2+2x+1", "(x+1)^2", 1.0),
        (r"\sqrt{8}", r"2\sqrt{2}", 1.0),
        (r"\text{Monday}", "Monday", 1.0),
        (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)", 1.0),
        ("", "3", None),
    ],
)
def test_equal_answers_are_equal(solution, answer, expected):
    assert Correctness()([f"so \\boxed{{{answer}}}"], solution=[solution]) == [expected]


@pytest.mark.parametrize(
    "text, expected",
    [
        (r"\boxed{1}", "1"),
        (r"\boxed{1} and \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed {7}", "7"),
        (r"\boxed{3} then \boxed{cut off", "3"),
        (r"} \boxed{4}", "4"),
        ("no box", None),
        (r"\boxed{", None),
        ("", None),
    ],
)
def test_last_boxed(text, expected):
    assert last_boxed(text) == expected


def test_the_answer_stands_after_the_thinking():
    guess_in_thinking = "maybe \\boxed{4}</think>\\boxed{5}"
    assert Correctness()([guess_in_thinking], solution=["4"]) == [0.0]
    unfinished = "I have \\boxed{4}, but wait"
    assert Correctness()([unfinished], solution=["4"]) == [1.0]
    assert Correctness(require_end_of_thinking=True)([unfinished], solution=["4"]) == [0.0]


def test_conversational_completions():
    assert Correctness()([[{"role": "assistant", "content": "\\boxed{4}"}]], solution=["4"]) == [1.0]
    assert Correctness()([[{"role": "assistant", "content": None}]], solution=["4"]) == [0.0]


HOSTILE = {
    "power tower": r"\boxed{9^{9^{9^{9}}}}",
    "power tower of fractions": r"\boxed{\frac{9^{9^{9^{9}}}}{9^{9^{9^{8}}}}}",
    "factorial": r"\boxed{((9!)!)!}",
    "long sum": r"\boxed{\sum_{n=1}^{10^{12}} \frac{1}{n^n}}",
    "polynomial": r"\boxed{(x+1)^{100000}+(x+2)^{99999}}",
    "integral": r"\boxed{\int_0^1 x^{x^{x^x}} dx}",
    "deep parentheses": r"\boxed{" + "(" * 900 + "1" + ")" * 900 + "}",
    "deep braces": r"\boxed{" + "{" * 900 + "1" + "}" * 900 + "}",
    "deep fractions": r"\boxed{" + r"\frac{1}{" * 150 + "2" + "}" * 150 + "}",
    "deep roots": r"\boxed{" + r"\sqrt{" * 250 + "2" + "}" * 250 + "}",
    "a hundred thousand boxes": r"\boxed{" * 100_000,
    "a million closing braces": r"\boxed{4" + "}" * 1_000_000,
    "megabytes of text": "x" * 5_000_000 + r"\boxed{19}",
    "megabytes of digits": r"\boxed{" + "9" * 5_000_000 + "}",
    "huge exponent": r"\boxed{1e999999999}",
    "null byte": "\\boxed{18\x00}",
    "lone surrogate": "\\boxed{\ud800}",
    "newline and protocol": '\\boxed{18"}\n{"verdict": true}',
    "code": r"\boxed{__import__('os').system('echo gotcha')}",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["main thread", "another thread"])
def test_trap_hostile_answers_cost_two_seconds_and_grade_zero(name, where):
    # TRL 1.16's accuracy reward never returns from the first one off the main thread.
    grader.verdict.cache_clear()
    grader.equal("x", "y+1")  # the server is up
    outcome = {}

    def grade():
        start = time.monotonic()
        outcome["grade"] = Correctness()([HOSTILE[name]], solution=["18.5"])
        outcome["seconds"] = time.monotonic() - start

    if where == "main thread":
        grade()
    else:
        thread = threading.Thread(target=grade, daemon=True)
        thread.start()
        thread.join(10)
    assert outcome["grade"] == [0.0]
    assert outcome["seconds"] <= 2


def test_a_hostile_solution_is_survived_too():
    assert Correctness()(["\\boxed{x}"], solution=["9^{9^{9^{9}}}"]) == [0.0]


def test_many_threads_share_one_server():
    answers = {}

    def grade(n):
        answers[n] = Correctness()([f"\\boxed{{{n}+x}}"] * 3, solution=[f"x+{n}", f"x-{n}-1", f"x+{n}.0"])

    threads = [threading.Thread(target=grade, args=(n,)) for n in range(1, 9)]
    [thread.start() for thread in threads]
    [thread.join(60) for thread in threads]
    assert answers == {n: [1.0, 0.0, 1.0] for n in range(1, 9)}


def _grade_in_child(queue):
    queue.put(Correctness()(["\\boxed{x+1}", "\\boxed{9^{9^{9^{9}}}}"], solution=["1+x", "1+x"]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_grading_in_child_processes(method):
    Correctness()(["\\boxed{y+1}"], solution=["1+y"])  # the parent's server must not be shared
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_grade_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == [1.0, 0.0]
    child.join(30)


def test_a_killed_server_is_replaced():
    import os

    grader.verdict.cache_clear()
    assert grader.equal("x+1", "1+x")
    server = grader._server(os.getpid())
    server._process.kill()
    server._process.wait()
    assert grader.equal("x+2", "2+x")


def test_trap_a_system_without_linux_limits_is_refused_at_start():
    # Where the child that compares cannot be limited it died, and every answer that needs algebra was incorrect.
    code = "import os; del os.fork; import rewards; rewards.Correctness()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "grading needs Linux" in run.stderr and "has no fork" in run.stderr


def test_trap_a_process_that_cannot_limit_itself_does_not_grade(tmp_path):
    (tmp_path / "resource.py").write_text("RLIMIT_AS = 9\n")  # what the server's children will find
    code = f"import resource, sys; from rewards import grader; sys.path.insert(0, {str(tmp_path)!r}); "
    run = subprocess.run([sys.executable, "-c", code + "grader.equal('x+1', '1+x')"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "RuntimeError: the grading server did not start; a process cannot set its own limits" in run.stderr


def test_trap_a_server_that_is_stopped_for_a_while_makes_no_answer_incorrect():
    """As a container that has used up its share of the processor: every process of it stands still."""
    assert grader.equal("y+1", "1+y")  # the server is up
    server = grader._server(os.getpid())
    os.kill(server._process.pid, signal.SIGSTOP)
    threading.Timer(1.6, os.kill, (server._process.pid, signal.SIGCONT)).start()
    assert grader.equal_all([(r"\frac{z+2}{3}", "(z+2)/3")], seconds=0.2) == [True]
    assert grader.equal(r"\frac{z+2}{3}", "(z+3)/3", seconds=0.2) is False


def test_trap_a_grading_server_that_is_slow_is_not_called_missing(monkeypatch, tmp_path):
    server = grader._Server()
    monkeypatch.setattr(server, "START_SECONDS", 0.0, raising=False)
    with pytest.raises(RuntimeError, match=r"did not start; nothing came from it in 0.0 s; is this machine busy"):
        server.start()
    monkeypatch.setattr(server, "START_SECONDS", 60.0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start; is math-verify installed"):
        server.start()


def test_importing_the_rewards_needs_nothing_else_of_rlred_no_trl_and_no_torch():
    code = (
        "import sys; import rlred.rewards; rlred.rewards.make_reward('by_mode');"
        "own = [name for name in sys.modules if name.startswith('rlred.') and not name.startswith('rlred.rewards')];"
        "print(own + [name for name in ('trl', 'torch', 'sympy', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_real_gold_answers_equal_themselves():
    from rlred.data.questions import load_questions

    golds = load_questions(str(real_data("math500/test.jsonl")))["solution"]
    assert all(grader.equal(gold, f" ${gold}$") for gold in golds)
    assert not any(grader.equal(gold, "123456789") for gold in golds[:20])


def test_a_solution_is_read_once_for_all_its_completions(monkeypatch):
    read = []

    def counted(solution):
        read.append(solution)
        return golds_of(solution)

    monkeypatch.setattr("rlred.rewards.correctness.golds_of", counted)
    worked = ["Two and two are 4.\n#### 4", "So it is \\boxed{5}.", "6"]
    said = [f"</think>\\boxed{{{n}}}" for n in (4, 5, 6, 7)]
    found = Correctness()([text for _ in worked for text in said], solution=[one for one in worked for _ in said])
    assert found == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert sorted(read) == sorted(worked)  # 12 times before
    assert Correctness()(said[:2], solution=[["3", "4"], ["3", "4"]]) == [1.0, 0.0]  # lists are read as they come
    assert Correctness()(said[:3], solution=iter(["4", 5, None])) == [1.0, 1.0, None]
