"""The links of the built site: `make docs` ends with an error where one leads to no file or to no anchor.

MkDocs checks the links of the pages that it reads. This also checks made pages, pictures and what HTML the pages hold.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote


class Links(HTMLParser):
    """The addresses and the anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.to, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.to += [told[name] for name in ("href", "src") if told.get(name)]
        self.anchors |= {told[name] for name in ("id", "name") if told.get(name)}


def dead_links(site: Path) -> list[str]:
    """The links of a built site, its made pages and pictures among them, that lead to no file and to no anchor."""
    pages = {path: Links(path.read_text()) for path in site.rglob("*.html") if path.name != "404.html"}
    dead = []
    for path, page in pages.items():
        for link in page.to:
            target, _, anchor = unquote(link).partition("#")
            if re.match(r"\w+:|//", target) or target.startswith("/"):
                continue
            place = (path.parent / target).resolve() if target else path
            place = place / "index.html" if place.is_dir() else place
            if not place.is_file() or (anchor and place in pages and anchor not in pages[place].anchors):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead
