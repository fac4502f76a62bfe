"""What holds for every test, whichever module is collected first."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it once, when first imported

LARGEST = "test_families_full_size.py"  # 13 GB; with `-n 2` over before test_full_size.py begins


def pytest_collection_modifyitems(items):
    """The file that takes the most memory goes first."""
    items.sort(key=lambda item: item.path.name != LARGEST)
