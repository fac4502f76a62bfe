"""What a person types on this layout: never `pip` of some other interpreter."""

import ntpath
import shlex

from doctor.facts import Facts


def line(facts: Facts, *words: str) -> str:
    """One command line, quoted for the shell of the patient's system."""
    if facts.host.os == "windows":
        return " ".join(f'"{word}"' if " " in word else word for word in words)
    return shlex.join(words)


def pip(facts: Facts, *words: str) -> str:
    """pip of the patient's interpreter, with the flags its layout starts Python with."""
    python = facts.target.python or "python"
    if facts.target.layout == "portable" and facts.target.comfyui:
        python = ntpath.join("python_embeded", "python.exe")  # typed in the portable folder
    return line(facts, python, *facts.target.flags, "-m", "pip", *words)


def doctor(facts: Facts, *words: str) -> str:
    """comfy-doctor itself on the same patient."""
    where = ["--comfyui", facts.target.comfyui] if facts.target.comfyui else []
    if not where and facts.target.python:
        where = ["--python", facts.target.python]
    own = words.index("--") if "--" in words else len(words)  # what follows is main.py's
    return line(facts, "comfy-doctor", *words[:own], *where, *words[own:])
