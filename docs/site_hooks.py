"""MkDocs hooks of the documentation site: pages from outside docs/, and links that leave docs/.

The pages are written for the repository, where `docs/concepts.md` and `../conf` lead somewhere. In the site a link to
a file that is also a page leads to that page. A link to another file of the repository leads to repo_url, or becomes
plain text where mkdocs.yml sets none. A link to nothing stays as it is, and MkDocs refuses it.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# File of the repository -> page of the site.
OUTSIDE = {
    "README.md": "index.md",
    "README.zh.md": "index.zh.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "benchmarks/README.md": "benchmarks.md",
    "conformance.md": "conformance.md",
}
CODE = r"^(?P<fence>```+).*?^(?P=fence)|`+[^`\n]+`+"
LINK = r"(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^)\s]+)\)"
CODE_OR_LINK = re.compile(f"{CODE}|{LINK}", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for source, page in OUTSIDE.items():
        if (path := _root(config) / source).is_file():
            files.append(File.generated(config, page, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with its links resolved for the site."""
    root = _root(config)
    folder = Path(page.file.abs_src_path or "").parent

    def resolved(found: re.Match[str]) -> str:
        target = found["target"]
        if target is None or re.match(r"[a-z]+:|#", target):
            return found[0]
        name, _, anchor = target.partition("#")
        path = Path(os.path.normpath(folder / name))
        if not path.exists() or not path.is_relative_to(root):
            return found[0]
        inside = _place_in_site(path.relative_to(root).as_posix(), files, config)
        if inside is not None:
            link = posixpath.relpath(inside, posixpath.dirname(page.file.src_uri) or ".")
            return f"{found['image']}[{found['text']}]({link}{'#' + anchor if anchor else ''})"
        return _outside(found["text"], path.relative_to(root).as_posix(), config.repo_url)

    return CODE_OR_LINK.sub(resolved, markdown)


def _place_in_site(source: str, files: Files, config: MkDocsConfig) -> str | None:
    """The name in the site of a file of the repository, or None where it has none."""
    docs = Path(config.docs_dir).relative_to(_root(config)).as_posix()
    name = OUTSIDE.get(source) or (source.removeprefix(f"{docs}/") if source.startswith(f"{docs}/") else None)
    return name if name is not None and files.get_file_from_path(name) is not None else None


def _outside(text: str, source: str, repo_url: str | None) -> str:
    return f"[{text}]({repo_url.rstrip('/')}/blob/main/{source})" if repo_url else text


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).resolve().parent
