"""Data about the world: versions, drivers, cards, mirrors, words. No code but where it lies."""

from pathlib import Path

FOLDER = Path(__file__).parent
