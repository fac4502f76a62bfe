"""Every check is missed when it is taken out, and noticed when it speaks without reason."""

import pytest

from doctor.check import CHECKS
from tests import mutations

DONE = dict(mutations.checks())


@pytest.mark.parametrize("change", DONE)
def test_somebody_notices(change):
    assert DONE[change], f"no patient in tests/machines notices: {change}"


def test_every_check_was_changed_both_ways():
    assert len(DONE) == 2 * len(CHECKS)
