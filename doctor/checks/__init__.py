"""One module per subject. This list is the order of the report: the order of cause."""

# isort: off
from doctor.checks import (
    python,
    comfyui,
    packages,
    torch,
    gpu,
    nodes,
    models,
    surroundings,
    disk,
    network,
    launch,
)
# isort: on

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
    "surroundings",
    "torch",
]
