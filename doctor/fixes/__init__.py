"""One module per subject, as in checks/."""

from doctor.fixes import comfyui, launch, packages, torch

__all__ = ["comfyui", "launch", "packages", "torch"]
