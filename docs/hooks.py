"""Make the documentation site whole: the README is its home, and linked source files become pages.

mkdocs calls `on_files`. Pages in docs/ link to files of the project (`../eval/benchmark.py`), so that the links work on
a code host and in an editor; a site would otherwise have no such page.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s]+)(?=\))")
OTHER_HOME = {"README.md": "index.md"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, the guides outside docs/, and every file that a page links to."""
    waiting = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md"]
    written = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    done: dict[str, str] = {}
    for name, text in written.items():
        waiting += targets(text, name)
    while waiting:
        name = waiting.pop()
        if name in done or name.startswith("docs/") or not (PROJECT / name).is_file():
            continue
        text = (PROJECT / name).read_text(encoding="utf-8")
        done[name] = text
        if name.endswith(".md"):
            waiting += targets(text, name)
    for name, text in done.items():
        content = moved(text, name) if name.endswith(".md") else source_page(name, text)
        files.append(File.generated(config, page_of(name), content=content))
    for name, text in written.items():
        file = files.get_file_from_path(name.removeprefix("docs/"))
        files.remove(file)
        files.append(File.generated(config, file.src_uri, content=moved(text, name)))
    return files


def targets(text: str, name: str) -> list[str]:
    """The files that a page links to, relative to the project."""
    folder = posixpath.dirname(name)
    return [posixpath.normpath(posixpath.join(folder, target.partition("#")[0])) for target in LINK.findall(text)]


def page_of(name: str) -> str:
    """Where a file of the project lies in the site: docs/x.md is x.md, and other files have a page each."""
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    return OTHER_HOME.get(name, name if name.endswith(".md") else f"source/{name}.md")


def moved(text: str, name: str) -> str:
    """A page's text with its links as they have to be in the site."""
    here = posixpath.dirname(page_of(name))

    def link(match: re.Match[str]) -> str:
        target, mark, anchor = match[1].partition("#")
        found = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        return posixpath.relpath(page_of(found), here or ".") + mark + anchor

    return LINK.sub(link, text)


def source_page(name: str, text: str) -> str:
    """A page that shows a source file."""
    return f"# {name}\n\n````{LANGUAGES.get(posixpath.splitext(name)[1], 'text')}\n{text}\n````\n"
