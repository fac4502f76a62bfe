"""What holds for every test, whichever module is collected first."""

import os

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")  # Triton reads it once, when first imported

FULL_SIZE = "full size"  # the group of the files whose networks leave no memory for one more


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """With `-n`, a file stays with one worker; networks of full size share one, from the start."""
    groups = [item.get_closest_marker("xdist_group") for item in items]
    full_size = {item: group is not None for item, group in zip(items, groups, strict=True)}
    items.sort(key=full_size.get, reverse=True)
    for item in items:
        if not full_size[item]:
            item.add_marker(pytest.mark.xdist_group(item.path.name))
