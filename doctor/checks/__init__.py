"""One module per subject. This list is the order of the report: the order of cause."""

# isort: off
from doctor.checks import (
    python,
    comfyui,
    packages,
    conflicts,
    torch,
    gpu,
    drivers,
    health,
    nodes,
    models,
    git,
    surroundings,
    settings,
    disk,
    network,
    launch,
    verdict,
    speed,
)
# isort: on

__all__ = [
    "comfyui",
    "conflicts",
    "disk",
    "drivers",
    "git",
    "gpu",
    "health",
    "launch",
    "models",
    "network",
    "nodes",
    "packages",
    "python",
    "settings",
    "speed",
    "surroundings",
    "torch",
    "verdict",
]
