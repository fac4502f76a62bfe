"""One module per subject. This list is the order of the report: the order of cause."""

from doctor.checks import python  # isort: split
from doctor.checks import comfyui  # isort: split
from doctor.checks import packages  # isort: split
from doctor.checks import torch  # isort: split
from doctor.checks import gpu  # isort: split
from doctor.checks import nodes  # isort: split
from doctor.checks import models  # isort: split
from doctor.checks import disk  # isort: split
from doctor.checks import network  # isort: split
from doctor.checks import launch

__all__ = [
    "comfyui",
    "disk",
    "gpu",
    "launch",
    "models",
    "network",
    "nodes",
    "packages",
    "python",
    "torch",
]
