"""The user's copies of the novels, in data/harrypotter/. They are under copyright, so gptexp does not include them."""

from __future__ import annotations

from gptexp.data.corpora.text import TextCorpus
from gptexp.util.files import user_path


class HarryPotterCorpus(TextCorpus):
    """Each book is a document, in the natural order of the names of the .txt files."""

    def _nothing_found(self) -> str:
        folder = user_path(self.config.path, "data.path").absolute()
        return (
            f"data=harrypotter: no text found. Put your copies of the books into {folder}, as any number of .txt files "
            "(book1.txt, book2.txt, …), or give their place with data.path=. "
            "data=pydocs and data=python_stdlib work without files"
        )
