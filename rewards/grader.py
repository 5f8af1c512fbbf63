r"""Are two mathematical answers equal? Decided by math-verify in a process that can be killed.

sympy can run for ever inside one C call (`9^{9^{9^{9}}}` asks for an integer that does not fit the universe), where no
Python timeout reaches it: math-verify's own uses `signal.alarm`, which needs the main thread and a returning C call.
So all answers but plain numbers go to a small server process, started once. It forks a child for each question; the
child sets limits on its own time and memory that the *kernel* enforces, and whatever happens to it (time, memory, a
crash, a full stack) is read as "not equal". It works the same from any thread of any process. What the child does with
the two texts is `rewards/grading/forms.py`; nothing of it runs here. Limits of this kind are Linux's: on another system
the grader refuses to start.

    equal(gold, answer, seconds)    True, False, or None where the gold answer itself cannot be read
    equal_all(pairs, seconds)       the same for a batch, in a bounded time for all of it together
    serve()                         the server: one JSON request per line, one JSON reply per line
"""

import atexit
import contextlib
import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from decimal import Decimal

MAX_CHARACTERS = 2_000  # of an answer worth algebra; the longest gold answer of MATH-500 has 53
MEMORY_BYTES = 1 << 30  # that one comparison may add to the server's own
_MEMORY_FILE = "/proc/self/statm"
_PLAIN = re.compile(r"[+-]?(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)", re.ASCII)
QUICK_SECONDS = 0.05  # of the first attempt at each answer of a batch; three in four of MATH-500's need less
BUSY = 10  # times its seconds may pass on the clock where a busy machine gave an answer less than half of them
LATE = "late"  # the verdict on an answer that was not compared in its time
_spending = threading.local()  # `seconds`: what `_spent` says
# What a server reads before it is asked: the parser is built as it is used, and a forked child inherits what is there.
# Without them the median answer of MATH-500 takes twice as long.
WARM_UP = (
    (r"\frac{11+9a}{20}", "x+1"),
    (r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]", r"\left( 3, \frac{\pi}{2} \right)"),
    (r"(-\infty, 2) \cup (3, \infty)", r"y = 2x + 3"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & -4 \end{pmatrix}", r"\{1, 2\}"),
    (r"2\sqrt{2} + 4i", r"\sqrt[3]{8}"),
    (r"\frac{270}7\text{ degrees}", r"50\%"),
    (r"\log_2 8", "5!"),
    (r"3 \text{ h } 25 \text{ min}", "18 km/h"),
    (r"\sqrt{2}x", r"x\frac{2}{\sqrt{2}}"),
    (r"x \le 3", r"(-\infty, 3]"),
    ("(x-3)^2+(y+1)^2=16", "x^2+y^2-6x+2y-6=0"),
    (r"4\sin(\frac{\pi x}{3})-2", r"\sin^2 \theta + 2\cos x\sin x"),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}"),
    ("4*sin(pi*x/3)-2", "x^5-x^4+x-1"),
    ("3ax^{2}-5bx+7", "x^2-x^3"),
    (r"-\frac{3}{8}\sqrt{2}+\sqrt[3]{5}", r"\frac{-1+\sqrt{5}}{2}"),
    ("e^{2x}+e^{-x}", r"2e^{i\pi/3}"),
    ("a_{n}=3n-1", r"x=\frac{y+7}{4}"),
    (r"\ln x+\log_{3} 5", r"\frac{n!}{k!(n-k)!}"),
    (r"3\pi r^{2}", r"(x+1)/(x-1)+|x-2|"),
    (r"2^{n+1}-1", r"2 \cdot 3^{k-1}"),
    (r"\sum_{k=1}^{n} k^2", r"\lfloor \frac{n}{2} \rfloor + 1"),
)


def normalise(answer: str) -> str:
    r"""The answer without the decorations that never change its value.

    >>> normalise(r" $\text{ 1,234 }$. ")
    '1234'
    """
    text = answer.strip().rstrip(".").strip().strip("$").strip()
    text = re.sub(r"^\\(?:text|mathrm|textbf|mbox)\s*\{([^{}]*)\}$", r"\1", text)
    text = (
        text.replace("\\!", "").replace("\\,", "").replace("\\$", "").replace("dfrac", "frac").replace("tfrac", "frac")
    )
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return re.sub(r"\s+", "", text)


def _undressed(text: str) -> str:
    r"""A number without the blanks and dollars around it, which is most of what GSM8K needs: `$ \$36,000 $.`"""
    text = text.strip(" \t\n$").rstrip(".").rstrip(" $")
    return text.removeprefix("\\$").replace("\\!", "") if "\\" in text else text


def _number(text: str) -> Decimal | None:
    if len(text) <= 50 and _PLAIN.fullmatch(text) is not None:
        return Decimal(text.replace(",", ""))
    return None


def equal(gold: str, answer: str, seconds: float = 1.0) -> bool | None:
    r"""Whether `answer` equals `gold`; None where `gold` cannot be read as mathematics. Never raises, never hangs.

    Plain numbers and equal strings are decided here, at once; everything else by the server, within `seconds`.

    >>> equal("18", "18.0"), equal("18", "19"), equal(r"\frac{1}{2}", "0.5")
    (True, False, True)
    >>> equal("18", "9^{9^{9^{9}}}")
    False
    """
    found = _verdict(gold, answer, seconds)
    return False if found == LATE else found


def equal_all(pairs: Sequence[tuple[str, str]], seconds: float = 1.0) -> list[bool | None]:
    r"""`equal` of each (gold, answer), in a tenth of a second for each on average, or 2 * `seconds` for a small batch.

    Half of the time is for a first attempt at each. Those that need longer get up to `seconds` one after the other,
    until the other half is used up; the rest are incorrect. So a batch of 64 hostile answers costs 7 seconds, not 64.
    The seconds are the processor's: on a busy machine an honest answer comes later, and is not counted as incorrect.

    >>> equal_all([("18", "18.0"), ("18", "9^{9^{9^{9}}}")])
    [True, False]
    """
    found = [_verdict(gold, answer, min(seconds, QUICK_SECONDS)) for gold, answer in pairs]
    end = _spent() + max(2 * seconds, QUICK_SECONDS * len(pairs))
    for index, (gold, answer) in enumerate(pairs):
        if found[index] == LATE and _spent() + seconds <= end:
            found[index] = _verdict(gold, answer, seconds)
    return [False if value == LATE else value for value in found]


def _spent() -> float:
    """The processor's seconds that the questions of this thread have taken so far."""
    return getattr(_spending, "seconds", 0.0)


def _verdict(gold: str, answer: str, seconds: float) -> bool | str | None:
    try:
        return verdict(gold, answer, seconds)
    except NoAnswer:
        return LATE


class NoAnswer(Exception):
    """The server gave no verdict, and a new one neither: that says nothing of the answer, and is not remembered."""


@functools.lru_cache(maxsize=16_384)
def verdict(gold: str, answer: str, seconds: float) -> bool | str | None:
    """`equal`, but `LATE` for an answer that took longer than `seconds`."""
    if len(gold) > MAX_CHARACTERS or len(answer) > MAX_CHARACTERS:
        return False if len(gold) <= MAX_CHARACTERS else None
    left, right = _undressed(gold), _undressed(answer)
    number = _number(left)
    if number is not None:
        if not right:
            return False
        other = _number(right)
        if other is not None and (number == other or not ("," in left and "," in right)):  # 260,315 may be two numbers
            return number == other
    if not left:
        return None
    return _server(os.getpid()).ask(gold, answer, seconds)


def check_system() -> None:
    """Raises `ValueError` on a system that cannot end a comparison from outside: without fork, limits and /proc."""
    try:
        import resource

        missing = [name for name in ("fork", "waitpid", "sysconf") if not hasattr(os, name)]
        missing += [name for name in ("setitimer", "SIGPROF", "SIGALRM") if not hasattr(signal, name)]
        missing += [] if hasattr(resource, "RLIMIT_AS") else ["RLIMIT_AS"]
        missing += [] if os.path.exists(_MEMORY_FILE) else [_MEMORY_FILE]
    except ImportError:
        missing = ["resource"]
    if missing:
        raise ValueError(
            f"grading needs Linux, whose limits end an answer that never would: this system ({sys.platform}) has no "
            f"{', '.join(missing)}; run it on Linux, in a Linux container or under WSL"
        )


class _Server:
    """This process's connection to its grading server, restarted when it stops answering."""

    START_SECONDS = 600  # importing sympy on a busy machine, or from a file system behind a network
    SILENT_SECONDS = 10  # beyond a question's own time: a server that stands still may go on, as this process does

    def __init__(self):
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        atexit.register(self.stop)

    def ask(self, gold: str, answer: str, seconds: float) -> bool | str | None:
        request = json.dumps({"gold": gold, "answer": answer, "seconds": seconds}) + "\n"
        with self._lock:
            for _ in range(2):  # a server that died, or says nothing, is started again, once
                if self._process is None or self._process.poll() is not None:
                    self.start()
                try:
                    self._process.stdin.write(request.encode())
                    self._process.stdin.flush()
                except OSError:
                    self.stop()
                    continue
                reply = self._read((BUSY + 2) * seconds + self.SILENT_SECONDS)
                if reply is not None:
                    _spending.seconds = _spent() + reply["spent"]
                    return reply["verdict"]
                _spending.seconds = _spent() + seconds
                self.stop()  # stopped from outside, or out of memory: a child's own limits end it long before
        raise NoAnswer

    def start(self) -> None:
        check_system()
        # The server finds modules where this process does, as multiprocessing's spawn has it.
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C belongs to the training run
        )
        started = self._read(self.START_SECONDS)
        if started is None or started["error"]:
            reason = started["error"] if started else self._silence()
            self.stop()
            raise RuntimeError(f"the grading server did not start; {reason}")

    def _read(self, seconds: float) -> dict | None:
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else b""
        return json.loads(line) if line.endswith(b"\n") else None

    def _silence(self) -> str:
        """Why a new server says nothing: it is slow, or it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
            return "is math-verify installed?"
        return f"nothing came from it in {self.START_SECONDS} s; is this machine busy, or its disk slow?"

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process = None


@functools.cache
def _server(pid: int) -> _Server:
    # Keyed by process: a forked worker must not share its parent's pipe.
    return _Server()


def _compare(gold: str, answer: str) -> bool | None:
    from .grading import forms

    return forms.compare(gold, answer)


def _limit_this_process(seconds: float, clock: float) -> None:
    import resource

    with open(_MEMORY_FILE) as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = used + MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(used + MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Their default action ends the process inside any C call, unlike a Python handler. The seconds are the processor's;
    # the clock ends what waits and does not compute.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, clock)


def _compare_in_child(request: dict) -> tuple[bool | str | None, float]:
    """The verdict on one request, and the processor's seconds that it took."""
    seconds = request["seconds"]
    found, spent, ended_by = _attempt(request, 1.5 * seconds + 0.1)
    if ended_by == signal.SIGALRM and spent < seconds / 2:  # the processor was busy with others
        found, more, _ = _attempt(request, BUSY * seconds + 1)
        spent += more
    return found, spent


def _attempt(request: dict, clock: float) -> tuple[bool | str | None, float, int | None]:
    """The verdict of one child, the processor's seconds that it took, and the signal that ended it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            _limit_this_process(request["seconds"], clock)
            verdict = _compare(request["gold"], request["answer"])
            os.write(write_end, {True: b"1", False: b"0", None: b"?"}[verdict])
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        verdict = pipe.read(1)  # empty when the child was ended by a limit
    before = os.times()
    _, status = os.waitpid(child, 0)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if ended_by in (signal.SIGPROF, signal.SIGALRM):
        return LATE, spent, ended_by
    return {b"1": True, b"?": None}.get(verdict, False), spent, ended_by


def serve() -> None:
    """Answer requests from standard input until it closes."""
    import logging

    logging.disable(logging.CRITICAL)
    reply = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever sympy prints does not reach the protocol
    for gold, answer in WARM_UP:
        _compare(gold, answer)
    # Not every system that has the limits lets a process set them: then every answer would be graded incorrect.
    tried, _ = _compare_in_child({"gold": "x+1", "answer": "1+x", "seconds": 20})
    error = None if tried is True else "a process cannot set its own limits here (RLIMIT_AS, ITIMER_PROF)"
    reply.write(json.dumps({"error": error}) + "\n")
    for line in sys.stdin:
        found, spent = _compare_in_child(json.loads(line))
        reply.write(json.dumps({"verdict": found, "spent": spent}) + "\n")
