"""Which packages a fix asks for."""

from doctor import fixes  # noqa: F401  (registers them)
from doctor.fix import FIXES
from tests.doctor.test_machines import read


def test_the_numpy_installed_is_one_that_comfyui_accepts():
    (step,) = FIXES["install-numpy"](read("core-asks-for-a-newer-numpy"))
    assert step.wants[0].startswith("numpy")
    assert ">=2.4" in step.wants[0].split("numpy")[1].split(",")
