"""ComfyUI's own source."""

from collections.abc import Iterator

from doctor.facts import Facts
from doctor.fix import CannotFix, fix
from doctor.step import Place, Step


@fix("get-comfyui")
def get_comfyui(facts: Facts) -> Iterator[Step]:
    """Fetch ComfyUI into the folder, by any route that can prove its commit."""
    if facts.comfyui is None:
        raise CannotFix("no folder is named that ComfyUI could go to: --comfyui DIR")
    core = facts.world.core[0]
    yield Place("", facts.comfyui.path, core.repository, known=core.commit)
