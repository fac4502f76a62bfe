"""How long planning and holding take: forty packs resolved, three distributions snapshotted.

python benchmarks/treatment.py --python PATIENT [--rounds 5] [--out benchmarks/results/F.json]

PATIENT is an environment with torch and, for the snapshot to mean something, a hundred
distributions or more; nothing in it is changed. Beside them, the peers on the same work: a bare
`uv pip install --dry-run` of the same wishes, and `cp -r` of the same three distributions. The
last two rows are of everything, as before torch is changed.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from record import record

from doctor import installer, locate, snapshot, sync, uv
from doctor.examine import examine

LIBRARIES = (
    "einops aiohttp pyyaml tqdm psutil requests packaging rich filelock scipy Pillow safetensors "
    "transformers tokenizers sentencepiece accelerate kornia spandrel opencv-python-headless "
    "matplotlib pandas scikit-image numba imageio moviepy websocket-client gitpython toml "
    "omegaconf diffusers peft timm ftfy regex jsonschema fonttools simpleeval piexif dill pynvml"
).split()
KEPT = ("numpy", "pillow", "scipy")


def packs(folder: Path) -> None:
    for number in range(40):
        place = folder / "custom_nodes" / f"pack-{number:02}"
        place.mkdir(parents=True)
        wishes = [LIBRARIES[(number + step) % len(LIBRARIES)] for step in (0, 7, 13)]
        (place / "requirements.txt").write_text("\n".join([*wishes, "torch"]) + "\n")


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(python: str, rounds: int) -> dict[str, list[float]]:
    facts = examine(locate.target(None, python), level=1)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        packs(Path(place))
        wishes = sync.gather(Path(place))
        lines = sorted({wish.text for wish in wishes})
        scope = installer.scope(python)
        names = [name for name in KEPT if name in facts.packages]

        everything = sorted(facts.packages)

        def keep(held: list[str]) -> None:
            into = Path(place, f"kept-{time.monotonic_ns()}")
            snapshot.keep(scope, installer.touched(scope, held, ()), into, lambda _: None)

        def copy(held: list[str]) -> None:
            into = Path(place, f"copy-{time.monotonic_ns()}")  # removed at the end, not timed
            for path in snapshot.recorded(Path(scope.root, scope.site), held):
                source = Path(scope.root, scope.site, path)
                if source.is_file() and ".." not in path:
                    target = into / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, target)

        works = {
            "plan for 40 packs": lambda: sync.plan(python, facts, sync.gather(Path(place))),
            "uv alone, same wishes": lambda: uv.resolve(python, lines),
            f"hold {', '.join(names)} of {len(facts.packages)}": lambda: keep(names),
            "copy of the same files": lambda: copy(names),
            f"hold all {len(everything)}": lambda: keep(everything),
            "copy of them all": lambda: copy(everything),
        }
        for number in range(rounds + 1):
            for name, work in works.items():
                taken = timed(work)
                if number:  # the first round fills caches
                    found.setdefault(name, []).append(taken)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--python", required=True)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path)
    asked = options.parse_args()
    found = measure(asked.python, asked.rounds)
    print(f"{'':<36} min median    max")
    for name, runs in found.items():
        print(f"{name:<34} {min(runs):5.2f}  {median(runs):5.2f}  {max(runs):5.2f} s")
    if asked.out:
        record(
            asked.out, f"python benchmarks/treatment.py --rounds {asked.rounds}", {"seconds": found}
        )


if __name__ == "__main__":
    main()
