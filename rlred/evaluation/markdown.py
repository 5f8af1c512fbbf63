"""The HTML of the Markdown that reports are written in: headings, tables, lists, paragraphs, code. Nothing else."""

import html
import itertools
import re


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
    head, _, *rows = [line[1:-1].split("|") for line in markdown.splitlines()]
    cells = lambda row, tag: "".join(f"<{tag}>{html.escape(cell.strip())}</{tag}>" for cell in row)  # noqa: E731
    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{cells(head, "th")}</tr></thead><tbody>{lines}</tbody></table></div>'


def _kind(line: str) -> str:
    for start, kind in (("#", "heading"), ("|", "table"), ("- ", "list")):
        if line.startswith(start):
            return kind
    return "text" if line.strip() else "empty"


def _inline(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text, quote=False))
