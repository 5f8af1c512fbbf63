"""MkDocs' hooks: the pages and pictures that are made while the site is built, links to files beside docs/, dead links.

A link to a file of the repository that is not in docs/ would be dead on the site: it becomes the file's name.
"""

import logging
import posixpath
import re
from pathlib import Path

import colab
import links
import pages
import plots
from mkdocs.structure.files import File

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s]+)(#[^)]*)?\)")
TABLES = Path(__file__).parents[2] / "rlred" / "evaluation" / "tables.js"  # sorts and filters, as in `rlred report`
_made: dict[str, str] = {}


def on_config(config):
    """Makes the pages, and names them in the navigation."""
    drawn = plots.pictures()
    made = {"recipes": pages.recipes(), "rewards": pages.rewards(set(drawn), plots.needs())}
    about = {
        "recipes": "A recipe is a published method: a script and its YAML. Without flags it runs on a tiny model.",
        "rewards": "A reward is a callable for any TRL trainer. The curves show one completion of a group of four.",
    }
    for entry in config.nav:
        for title in [name for name in entry if name.lower() in made]:
            room = title.lower()
            _made[f"{room}/index.md"] = pages.index(title, about[room], made[room])
            _made.update({f"{room}/{name}.md": text for name, text in made[room].items()})
            entry[title] = [f"{room}/index.md", *({name: f"{room}/{name}.md"} for name in made[room])]
    _made.update({f"rewards/images/{name}.svg": svg for name, svg in drawn.items()})
    _made["reference/cli.md"] = pages.cli()
    _made["audit.md"] = pages.audit()
    _made[TABLES.name] = TABLES.read_text(encoding="utf-8")
    return config


def on_files(files, config):
    """Adds what was made to the files of docs/."""
    for name, text in _made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Replaces links to files outside docs/ by the files' names, and adds the links to Colab."""
    if page.file.src_uri == "notebooks/index.md":
        markdown = colab.with_links(markdown, colab.address())
    folder = posixpath.dirname(page.file.src_uri)

    def replaced(match):
        text, target = match[1], match[2]
        place = posixpath.normpath(posixpath.join(folder, target))
        outside = "://" not in target and place.startswith("..")
        return f"{text} (`{place.lstrip('./')}` of the repository)" if outside else match[0]

    return LINK.sub(replaced, markdown)


def on_post_build(config):
    """Warns of each dead link of the built site; with `--strict` the build then fails."""
    for dead in links.dead_links(Path(config.site_dir)):
        logging.getLogger("mkdocs.hooks.links").warning("dead link: %s", dead)
