"""The Markdown of reports: the only maker of its tables, and its HTML (headings, tables, lists, paragraphs, code)."""

import html
import itertools
import re
from collections.abc import Iterable, Sequence

BAR = r"\|"  # a bar that is part of a cell
EMPTY = ("", "-", None)  # what a cell without a value holds


def table(names: Sequence[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a table. A bar or a line break in a cell does not end it. Raises `ValueError` for a row too long.

    >>> print("\\n".join(table(["stage", "tokens"], [["base", 40.5], ["a|b", ""]])))
    | stage | tokens |
    |---|---|
    | base | 40.5 |
    | a\\|b | |
    """
    lines = [_line(names), "|---" * len(names) + "|"]
    for row in rows:
        cells = list(row)
        if len(cells) != len(names):
            raise ValueError(f"table: {len(cells)} cells for {len(names)} columns: {cells}")
        lines.append(_line(cells))
    return lines


def filled(names: Sequence[str], rows: Iterable[Iterable[object]]) -> tuple[list[str], list[list[object]]]:
    """Names and rows without the columns that no row fills: a dash is no value.

    >>> filled(["mode", "budget", "tokens"], [["free", "-", 9.0], ["free", "", 8.0]])
    (['mode', 'tokens'], [['free', 9.0], ['free', 8.0]])
    """
    cells = [list(row) for row in rows]
    kept = [place for place in range(len(names)) if not cells or any(row[place] not in EMPTY for row in cells)]
    return [names[place] for place in kept], [[row[place] for place in kept] for row in cells]


def _line(cells: Iterable[object]) -> str:
    texts = [" ".join(str(cell).replace("|", BAR).split()) for cell in cells]
    return "|" + "".join(f" {text} |" if text else " |" for text in texts)


def to_html(markdown: str, level: int = 3) -> str:
    """The HTML of a report, its largest heading at `level`; text is escaped.

    >>> to_html("# Ratios\\n\\nOf `a<b`.\\n\\n- one\\n- two")
    '<h3>Ratios</h3><p>Of <code>a&lt;b</code>.</p><ul><li>one</li><li>two</li></ul>'
    """
    parts = []
    for kind, group in itertools.groupby(markdown.splitlines(), key=_kind):
        lines = list(group)
        if kind == "heading":
            for line in lines:
                depth = min(6, level - 1 + len(line) - len(line.lstrip("#")))
                parts.append(f"<h{depth}>{_inline(line.lstrip('# '))}</h{depth}>")
        elif kind == "table":
            parts.append(table_of("\n".join(lines)))
        elif kind == "list":
            parts.append(f"<ul>{''.join(f'<li>{_inline(line[2:])}</li>' for line in lines)}</ul>")
        elif kind == "text":
            parts.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "".join(parts)


def table_of(markdown: str) -> str:
    """The HTML of a Markdown table."""
    head, _, *rows = [re.split(r"(?<!\\)\|", line[1:-1]) for line in markdown.splitlines()]

    def cells(row: list[str], tag: str) -> str:
        return "".join(f"<{tag}>{_inline(cell.strip().replace(BAR, '|'))}</{tag}>" for cell in row)

    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{lines}</tbody></table></div>'


def _kind(line: str) -> str:
    for start, kind in (("#", "heading"), ("|", "table"), ("- ", "list")):
        if line.startswith(start):
            return kind
    return "text" if line.strip() else "empty"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))
