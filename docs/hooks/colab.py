"""Where the repository is, and the links that open its notebooks in Colab, which opens what is on GitHub.

The address is that of pyproject.toml (`[project.urls]`, `Repository`). Where pyproject.toml has none, the address is
the `origin` of the clone, if that is on GitHub. `python docs/hooks/pages.py` writes the address into the notebooks, and
the site has the links on its page of notebooks.
"""

import json
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "docs" / "notebooks"
COLAB = "https://colab.research.google.com"
SETUP = """import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = "{address}"  # what is cloned where this notebook does not lie in a clone, as in Colab
ROOT = next((place for place in (Path.cwd(), *Path.cwd().parents) if (place / "recipes").is_dir()), None)
if ROOT is None:
    if not REPOSITORY:
        raise SystemExit("Set REPOSITORY to the address of the repository, and run this cell again.")
    subprocess.run(["git", "clone", "--depth", "1", REPOSITORY, "rlred"], check=True)
    ROOT = Path("rlred").resolve()
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--editable", str(ROOT)], check=True)
    sys.path.insert(0, str(ROOT))
os.chdir(ROOT)
"""


def address(root: Path = ROOT) -> str:
    """Where the repository is; "" where neither pyproject.toml nor the clone says so."""
    return declared(root) or origin(root)


def declared(root: Path = ROOT) -> str:
    """The address that pyproject.toml has, "" where it has none."""
    told = tomllib.loads((root / "pyproject.toml").read_text())["project"].get("urls", {})
    return told.get("Repository", "").removesuffix("/").removesuffix(".git")


def origin(root: Path) -> str:
    """The address of the `origin` of a clone, "" where that is not on GitHub."""
    if not (root / ".git").exists():  # else git would answer for the folder above
        return ""
    told = subprocess.run(["git", "remote", "get-url", "origin"], cwd=root, capture_output=True, text=True)
    return on_github(told.stdout.strip())


def on_github(told: str) -> str:
    """The page of a repository on GitHub, without a name or a token of the user's; "" for another place.

    >>> on_github("git@github.com:me/it.git"), on_github("https://token@github.com/me/it"), on_github("/home/me/it")
    ('https://github.com/me/it', 'https://github.com/me/it', '')
    """
    form = r"(?:https://(?:[^@/]+@)?|(?:ssh://)?git@)github\.com[/:]([\w.-]+/[\w.-]+?)(?:\.git)?/?"
    found = re.fullmatch(form, told)
    return f"https://github.com/{found[1]}" if found else ""


def link(name: str, address: str) -> str:
    """What opens a notebook in Colab; "" for a repository that is not on GitHub."""
    place = address.partition("https://github.com/")[2]
    return f"{COLAB}/github/{place}/blob/main/docs/notebooks/{name}.ipynb" if place else ""


def badge(name: str, address: str) -> str:
    """The line of a notebook that opens the notebook in Colab; "" for a repository that is not on GitHub.

    >>> badge("a", "https://github.com/me/it").partition("](")[2].partition("](")[2]
    'https://colab.research.google.com/github/me/it/blob/main/docs/notebooks/a.ipynb)'
    >>> badge("a", "")
    ''
    """
    target = link(name, address)
    return f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({target})" if target else ""


def with_links(text: str, address: str) -> str:
    """The page of notebooks with a link to Colab beside each notebook's own.

    >>> with_links("| [A](a.ipynb) | x |", "https://github.com/me/it")[:78]
    '| [A](a.ipynb) ([Colab](https://colab.research.google.com/github/me/it/blob/ma'
    """

    def both(match: re.Match) -> str:
        target = link(match[1], address)
        return f"{match[0]} ([Colab]({target}))" if target else match[0]

    return re.sub(r"\[[^\]]+\]\((\w+)\.ipynb\)", both, text)


def with_address(name: str, text: str, address: str) -> str:
    """The text of a notebook that knows where the repository is: its first line of Markdown, its first cell of code."""
    book = json.loads(text)
    about = next(cell for cell in book["cells"] if cell["cell_type"] == "markdown")
    code = next(cell for cell in book["cells"] if cell["cell_type"] == "code")
    lines = re.sub(r"\[!\[Open in Colab\].*\n\n?", "", "".join(about["source"])).split("\n")
    opens = badge(name, address)
    about["source"] = "\n".join([lines[0], "", opens, *lines[1:]] if opens else lines).splitlines(keepends=True)
    own = "".join(code["source"]).partition("os.chdir(ROOT)\n")[2]
    code["source"] = (SETUP.format(address=address) + own).removesuffix("\n").splitlines(keepends=True)
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"
