"""Are the model files whole and what their names say; can ComfyUI find and write its files?"""

from collections.abc import Iterator

from doctor import advise
from doctor.check import check
from doctor.facts import Facts, ModelFile
from doctor.finding import Finding, Severity

DAMAGED = frozenset(
    {
        "empty",
        "web page",
        "git-lfs pointer",
        "cut safetensors",
        "unreadable",
        "unfinished download",
    }
)


def damaged(model: ModelFile) -> bool:
    return model.kind in DAMAGED or model.expected > model.size


def odd(facts: Facts) -> tuple[ModelFile, ...]:
    return () if facts.folder is None else facts.folder.odd


@check("model-file-corrupt")
def model_file_corrupt(facts: Facts) -> Iterator[Finding]:
    """Model files are cut short, empty, unreadable, web pages or pointers of git-lfs."""
    wrong = [model for model in odd(facts) if damaged(model)]
    if wrong:
        yield Finding(Severity.WARNING, because=tuple(told(model) for model in wrong[:8]))


def told(model: ModelFile) -> str:
    if model.kind not in DAMAGED:
        return f"models/{model.path}: {model.size} of {model.expected} bytes"
    return f"models/{model.path}: {model.kind}, {model.size} bytes"


@check("model-wrong-extension")
def model_wrong_extension(facts: Facts) -> Iterator[Finding]:
    """Model files are of another kind than their extensions say."""
    wrong = [model for model in odd(facts) if not damaged(model) and not model.holds]
    if wrong:
        lines = (f"models/{model.path}: by its first bytes, {model.kind}" for model in wrong[:8])
        yield Finding(Severity.WARNING, because=tuple(lines))


@check("wrong-loader-for-model")
def wrong_loader_for_model(facts: Facts) -> Iterator[Finding]:
    """Model files lie in the folder of another loader, which cannot read them."""
    wrong = [model for model in odd(facts) if model.holds and not damaged(model)]
    if wrong:
        lines = (f"models/{model.path}: by its tensors, a {model.holds}" for model in wrong[:8])
        yield Finding(Severity.WARNING, because=tuple(lines))


@check("extra-model-paths-invalid")
def extra_model_paths_invalid(facts: Facts) -> Iterator[Finding]:
    """extra_model_paths.yaml has a line that ComfyUI stops at."""
    if facts.folder is not None and facts.folder.extra_paths:
        lines = (f"extra_model_paths.yaml, {line}" for line in facts.folder.extra_paths[:8])
        yield Finding(Severity.ERROR, because=tuple(lines))


@check("extra-model-folder-missing")
def extra_model_folder_missing(facts: Facts) -> Iterator[Finding]:
    """extra_model_paths.yaml names a folder that is not there."""
    if facts.folder is not None and facts.folder.absent:
        lines = (f"extra_model_paths.yaml, {line}" for line in facts.folder.absent[:8])
        yield Finding(Severity.WARNING, because=tuple(lines))


@check("database-unusable")
def database_unusable(facts: Facts) -> Iterator[Finding]:
    """The database in the user folder is damaged, or closed to this user."""
    if facts.folder is not None and facts.folder.database:
        yield Finding(Severity.WARNING, because=(facts.folder.database,))


@check("database-locked")
def database_locked(facts: Facts) -> Iterator[Finding]:
    """A process holds the database now; a ComfyUI that runs here may do so."""
    if facts.folder is not None and facts.folder.database_held:
        own = "main.py" in facts.port.by
        yield Finding(
            Severity.INFO if own else Severity.WARNING,
            because=(f"user/comfyui.db: {facts.folder.database_held}",),
        )


@check("permission-denied")
def permission_denied(facts: Facts) -> Iterator[Finding]:
    """Folders that ComfyUI writes to are closed to this user."""
    if facts.folder is not None and facts.folder.read_only:
        unix = facts.host.os != "windows"
        yield Finding(
            Severity.WARNING,
            because=tuple(f"{name}: no right to write" for name in facts.folder.read_only),
            commands=(advise.line(facts, "chown", "-R", "$USER", facts.comfyui.path),)
            if unix and facts.comfyui is not None
            else (),
        )
