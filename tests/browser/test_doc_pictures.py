"""The pictures of our pages in the documentation show the pages of now, and are small."""

import re

from tests.browser.pictures import FOLDER, NAMES, ROOT, SUMS, sums


def test_the_pictures_are_of_these_templates() -> None:
    assert SUMS.read_text() == sums(), "the pages have changed: run `make pictures`"


def test_each_picture_is_there_and_together_they_are_small() -> None:
    pictures = {file.stem: file for file in FOLDER.glob("*.png")}
    assert set(pictures) == set(NAMES)
    assert all(file.read_bytes()[:4] == b"\x89PNG" for file in pictures.values())
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 400_000


def test_each_picture_is_on_a_page_with_words_for_who_cannot_see_it() -> None:
    text = "".join(page.read_text() for page in ROOT.glob("docs/**/*.md"))
    shown = {
        name: words for words, name in re.findall(r"!\[([^]]*)\]\((?:\.\./)?images/([^)]+)\)", text)
    }
    assert set(shown) == {file.name for file in FOLDER.iterdir() if file != SUMS}
    assert all(len(words) > 20 for words in shown.values())
