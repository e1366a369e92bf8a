"""The user's own copies of the novels, in data/harrypotter/. They are under copyright, so none comes along."""

from __future__ import annotations

from gptexp.data.corpora.text import TextCorpus
from gptexp.util.files import user_path


class HarryPotterCorpus(TextCorpus):
    """Every book a document, in the natural order of the names of the .txt files."""

    def _nothing_found(self) -> str:
        folder = user_path(self.config.path, "data.path").absolute()
        return (
            f"data=harrypotter: no text there yet. Put your own copies of the books into {folder}, as any number of "
            ".txt files (book1.txt, book2.txt, …), or say where they are with data.path=. "
            "data=pydocs and data=python_stdlib work without files"
        )


Corpus = HarryPotterCorpus
