r"""The spans of a chain of thought: stretches of the original string that are kept or dropped whole.

Numbers, operators, equations, formulas, boxes, code and newlines are *protected*: they are what a reader, and a grader,
cannot do without, and they are never cut. Words and other punctuation may go. TokenSkip's released pipeline has no such
rule, and loses operators, newlines and `\boxed` (reference: cot-compression, 1.2).

    pieces     numbers, words, operators, brackets, ...: one table of patterns (rlred/compression/pieces.py)
    brackets   each with its partner on the same line; (y + 5) is mathematics, (as we saw) is not
    spans      operands and what stands between them become one span, "expression"; brackets or emphasis around words
               become one span that may go, unless they hold something protected: then both marks stay
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlred.compression.pieces import Piece, Role, split_pieces

_PROTECTED = {Role.WHOLE, Role.OPERAND, Role.COMMAND, Role.OPERATOR, Role.NEWLINE}
_WORDS = {Role.WORD, Role.OTHER, Role.WHOLE}
_SIGNS = set("+-\u00b1\u2213\u2212\u221a\u00ac\u2220\u25b3~\uff0b\uff0d")
_FITS = {"(": ")]", "[": "])", "{": "}", "\\{": "\\}", "\uff08": "\uff09", "\uff3b": "\uff3d", "\uff5b": "\uff5d"}


@dataclass(frozen=True)
class Span:
    """A span of characters. Protected spans are kept at every ratio."""

    start: int
    end: int
    kind: str
    protected: bool = False


def split_spans(text: str) -> list[Span]:
    r"""The spans of a text, in order. Together they hold every character but blanks between them.

    >>> text = "So she pays (all in all) 3(1 + 4) = $15 a day.\nIt is \\boxed{15}."
    >>> [text[span.start : span.end] for span in split_spans(text) if span.protected]
    ['3(1 + 4) = $15', '\n', '\\boxed{15}']
    >>> [text[span.start : span.end] for span in split_spans(text) if not span.protected]
    ['So', 'she', 'pays', '(all in all)', 'a', 'day', '.', 'It', 'is', '.']
    """
    pieces = split_pieces(text)
    return _Joiner(text, pieces, _Brackets(text, pieces)).spans()


@dataclass
class _Frame:
    """An opening mark that waits for its partner, and what has stood after it."""

    index: int
    words: int = 0
    operands: int = 0


class _Brackets:
    """The partner of each bracket, bar, emphasis and heading, and whether it encloses nothing but mathematics."""

    def __init__(self, text: str, pieces: Sequence[Piece]):
        self.text, self.pieces = text, pieces
        self.partner: dict[int, int] = {}
        self.mathematics: set[int] = set()
        self._frames = [_Frame(-1)]
        for index, piece in enumerate(pieces):
            self._read(index, piece)
        self._end_line(len(pieces))

    def _read(self, index: int, piece: Piece) -> None:
        top = self._frames[-1]
        if piece.role is Role.NEWLINE:
            self._end_line(index)
        elif piece.role in (Role.OPEN, Role.HEADING):
            self._frames.append(_Frame(index))
        elif piece.role is Role.CLOSE:
            self._close(index)
        elif piece.role is Role.BAR:
            self._bar(index)
        elif piece.role is Role.MARK:
            self._mark(index)
        else:
            top.words += piece.role in _WORDS
            top.operands += piece.role in (Role.OPERAND, Role.LETTER, Role.COMMAND, Role.HOLE)

    def _is(self, frame: _Frame, role: Role) -> bool:
        return frame.index >= 0 and self.pieces[frame.index].role is role

    def _string(self, index: int) -> str:
        return self.text[self.pieces[index].start : self.pieces[index].end]

    def _same(self, frame: _Frame, index: int) -> bool:
        return self._string(frame.index) == self._string(index)

    def _give_up(self) -> None:
        """The innermost mark has no partner; what followed it belongs to the one around it."""
        frame = self._frames.pop()
        self._frames[-1].words += frame.words + (not self._is(frame, Role.BAR))
        self._frames[-1].operands += frame.operands

    def _bar(self, index: int) -> None:
        """A bar closes |x - 4| unless an operator stands before it, as in |a| - |b|, or nothing, as in ||v||."""
        top, before = self._frames[-1], self.pieces[index - 1].role if index else None
        if self._is(top, Role.BAR) and top.words:
            self._give_up()
        elif self._is(top, Role.BAR) and top.operands and before not in (Role.OPERATOR, Role.LINK, Role.SEPARATOR):
            self._pair(index)
            return
        self._frames.append(_Frame(index))

    def _close(self, index: int) -> None:
        while self._is(self._frames[-1], Role.BAR) or self._is(self._frames[-1], Role.MARK):
            self._give_up()
        top = self._frames[-1]
        if self._is(top, Role.OPEN) and self._string(index) in _FITS[self._string(top.index)]:
            self._pair(index)
        else:
            top.words += 1

    def _mark(self, index: int) -> None:
        """Emphasis opens before a character and closes after one; between blanks or letters a star is an operator."""
        piece, text = self.pieces[index], self.text
        before, after = text[piece.start - 1 : piece.start] or " ", text[piece.end : piece.end + 1] or " "
        top = self._frames[-1]
        if not before.isspace() and not (after.isalnum() or after in "([{") and self._is(top, Role.MARK):
            if self._same(top, index) and top.index < index - 1:
                self._pair(index)
                return
        if not after.isspace() and not (before.isalnum() or before in ")]}"):
            self._frames.append(_Frame(index))

    def _pair(self, index: int) -> None:
        frame = self._frames.pop()
        top = self._frames[-1]
        self.partner[frame.index], self.partner[index] = index, frame.index
        if frame.words or not frame.operands:
            top.words += 1
            return
        self.mathematics.add(frame.index)
        top.operands += 1
        if self.names(frame.index - 1):
            top.words -= 1  # sqrt(49): the word is the name of a function

    def names(self, index: int) -> bool:
        """Whether this word is the name of a function: mathematics in brackets follows, without a blank."""
        if index < 0 or index + 1 not in self.mathematics or self.pieces[index].role is not Role.WORD:
            return False
        word, bracket = self.pieces[index], self.pieces[index + 1]
        return bracket.role is Role.OPEN and word.end == bracket.start

    def _end_line(self, index: int) -> None:
        while len(self._frames) > 1:
            if self._is(self._frames[-1], Role.HEADING):
                frame = self._frames.pop()
                self.partner[frame.index] = index  # the first piece that is not of the heading
            else:
                self._give_up()
        self._frames = [_Frame(-1)]


class _Joiner:
    """Pieces to spans, from left to right."""

    def __init__(self, text: str, pieces: Sequence[Piece], brackets: _Brackets):
        self.text, self.pieces, self.brackets = text, pieces, brackets
        self.found: list[Span] = []
        self._open: list[tuple[int, int, int]] = []  # partner of an opening mark, its span, protected spans before it
        self._protected = 0

    def spans(self) -> list[Span]:
        """The spans of the text."""
        index = 0
        while index < len(self.pieces):
            if self.pieces[index].role is Role.NEWLINE:
                self._enclose(index)  # a heading
            after = self._expression(index)
            if after > index:
                kind = self.pieces[index].kind if after == index + 1 else "expression"
                self._add(Span(self.pieces[index].start, self.pieces[after - 1].end, kind, True))
            else:
                after = index + 1
                self._add(self._alone(index))
                self._enclose(index)
            index = after
        self._enclose(len(self.pieces))
        return self.found

    def _add(self, span: Span) -> None:
        self.found.append(span)
        self._protected += span.protected

    def _alone(self, index: int) -> Span:
        """The span of a piece that is in no expression."""
        start, end, kind, role = self.pieces[index]
        partner = self.brackets.partner.get(index, -1)
        if partner > index:
            self._open.append((partner, len(self.found), self._protected))
            return Span(start, end, "heading" if role is Role.HEADING else "open")
        if partner >= 0:
            return Span(start, end, "close")
        if role in (Role.WORD, Role.LETTER):
            return Span(start, end, "word")
        star = role is Role.MARK and self.text[start] == "*"
        protected = role in _PROTECTED or star
        return Span(start, end, "operator" if star else kind if protected else "other", protected)

    def _enclose(self, index: int) -> None:
        """Ends what has `index` as its closing mark: words become one span; around something protected marks stay."""
        if not self._open or self._open[-1][0] != index:
            return
        _, first, before = self._open.pop()
        heading = self.found[first].kind == "heading"
        if self._protected == before:
            self.found[first:] = [Span(self.found[first].start, self.found[-1].end, "group")]
            return
        for mark in (first,) if heading else (first, -1):
            self.found[mark] = replace(self.found[mark], protected=True)

    def _role(self, index: int) -> Role | None:
        return self.pieces[index].role if index < len(self.pieces) else None

    def _touches(self, index: int) -> bool:
        """Whether no blank stands before this piece."""
        return 0 < index < len(self.pieces) and self.pieces[index - 1].end == self.pieces[index].start

    def _is_word(self, index: int) -> bool:
        """Whether a letter, or two, would be a word without an operator beside it: a, I, At, AB."""
        piece = self.pieces[index]
        return piece.role is Role.LETTER and (piece.end - piece.start > 1 or self.text[piece.start] in "aAI")

    def _expression(self, index: int) -> int:
        """The index after the longest expression that begins here; `index` itself where there is none."""
        first = self._signs(index)
        end = self._operand(first)
        if end == first:
            return index
        while (following := self._continued(end)) > end:
            end = following
        return index if end == index + 1 and self._is_word(index) else end

    def _continued(self, end: int) -> int:
        """The index after what continues an expression that has come to `end`; `end` itself where nothing does."""
        if end == len(self.pieces):
            return end
        if self._role(end) is Role.AFTER:
            return end + (self._touches(end) and not self._is_word(end - 1))
        operand = self._operand(end)
        if operand > end:
            apart = self.pieces[end].end - self.pieces[end].start > 1 and self._is_word(end)  # \\]By
            latex = self.pieces[end].kind == "command" or self._role(end - 1) is Role.COMMAND  # \pi r, 5 \cdot 2
            if (self._touches(end) and not apart) or (latex and not self._is_word(end) and not self._is_word(end - 1)):
                return operand
        operator = self._operator(end)
        sign = self._touches(operator) and not self._touches(end)  # So -3
        if operator == end or (sign and self._is_word(end - 1)):
            return end
        right = self._signs(operator)
        operand = self._operand(right) + (self._role(right) is Role.HOLE)
        return operand if operand > right else end

    def _operand(self, index: int) -> int:
        """The index after the operand that begins here; `index` itself if none does."""
        if index in self.brackets.mathematics:
            return self.brackets.partner[index] + 1
        if self.brackets.names(index):
            return self.brackets.partner[index + 1] + 1
        return index + (self._role(index) in (Role.OPERAND, Role.COMMAND, Role.LETTER))

    def _signs(self, index: int) -> int:
        """The index after one or two signs that touch what follows them."""
        after = index
        while after < index + 2 and self._role(after) is Role.OPERATOR and self._touches(after + 1):
            if self.text[self.pieces[after].start] not in _SIGNS:
                break
            after += 1
        return after

    def _operator(self, index: int) -> int:
        """The index after the operator that begins here, behind an operand; `index` itself if none does."""
        role = self._role(index)
        if role in (Role.OPERATOR, Role.LINK) or (role in (Role.MARK, Role.BAR) and index not in self.brackets.partner):
            return index + 1
        times = role is Role.LETTER and self.text[self.pieces[index].start : self.pieces[index].end] in ("x", "X")
        apart = not self._touches(index) and not self._touches(index + 1)
        return index + (times and apart and self._role(index + 1) is Role.OPERAND)  # 3 x 4
