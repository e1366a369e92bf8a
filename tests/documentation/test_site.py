"""The documentation site: it builds without a network, its pages load nothing from elsewhere, and no link is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
# Python calls the hook at each system call that reaches for the network; the build has no reason to.
OFFLINE = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        raise SystemExit(f"the build uses the network: {event} {arguments}")

sys.addaudithook(refuse)
from mkdocs.__main__ import cli
cli()
"""
# In these the page itself asks for the address; an <a> only offers it.
LOADING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src"}


@dataclass
class Html(HTMLParser):
    """What the tests need of a page: its anchors, its links, and the addresses that a browser loads."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADING and LOADING[tag] in given and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given[LOADING[tag]])


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build a site as `make docs` does, in a process that may not use the network.

    Without --quiet: it drops the warnings before --strict counts them.
    """
    line = [sys.executable, "-c", OFFLINE, "build", "--strict", "-f", str(config), "-d", str(site)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=110)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Html]:
    return {path: Html(path) for path in sorted(site.rglob("*.html"))}


def broken(page: Html, pages: dict[Path, Html]) -> Iterator[str]:
    """The links of a page that lead to no file, or to no anchor, of the site."""
    for link in [*page.links, *page.loaded]:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or page.path.name == "404.html":  # the error page links from the site's root
            continue
        target = page.path if not parts.path else (page.path.parent / unquote(parts.path)).resolve()
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            yield f"{page.path.name}: {link}: no such file"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{page.path.name}: {link}: no such anchor"


def test_every_page_of_the_repository_is_in_the_site(site: Path, pages: dict[Path, Html]) -> None:
    names = {path.relative_to(site).with_suffix("").as_posix() for path in pages}
    assert names >= {
        path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")
    }
    assert names >= {"index", "contributing", "changelog", "security", "benchmarks", "conformance"}


def test_no_link_of_the_site_is_broken(pages: dict[Path, Html]) -> None:
    assert sum(len(page.links) for page in pages.values()) > 500  # the links were found
    assert not [problem for page in pages.values() for problem in broken(page, pages)]


def test_pages_load_nothing_from_the_network(site: Path, pages: dict[Path, Html]) -> None:
    assert not [f"{page.path.name}: {a}" for page in pages.values() for a in page.loaded if urlsplit(a).netloc]
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]
    assert sheets
    assert not [sheet for sheet in sheets if "url(http" in sheet or "url(//" in sheet or "@import" in sheet]


def test_api_page_documents_the_public_modules(pages: dict[Path, Html]) -> None:
    page = next(page for path, page in pages.items() if path.name == "api.html")
    assert page.anchors >= {"gptexp.notebook.command", "gptexp.config.GPTConfig", "gptexp.models.gpt.GPT.forward"}


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("[right](../mkdocs.yml) and [this](index.md#title)", None),
        ("[gone](missing.md)", "missing.md"),
        ("[gone](index.md#nowhere)", "#nowhere"),
        ("[gone](../missing.yml)", "../missing.yml"),
    ],
)
def test_build_refuses_a_broken_link(tmp_path: Path, link: str, problem: str | None) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text(f"# Title\n\n{link}\n", encoding="utf-8")
    settings = f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: docs\nwatch: []\nnav: [index.md]\nplugins: []\n"
    settings += f"theme: mkdocs\nhooks: ['{ROOT / 'docs/site_hooks.py'}']\n"
    (tmp_path / "mkdocs.yml").write_text(settings, encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert (done.returncode == 0) == (problem is None), done.stdout + done.stderr
    assert problem is None or problem in done.stderr
