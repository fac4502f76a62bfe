"""The card's figures are those on record."""

import runpy


def test_the_card_says_what_was_measured():
    card = runpy.run_path("docs/write_embedded.py")
    assert card["page"]() == card["CARD"].read_text("utf-8"), "python docs/write_embedded.py"
