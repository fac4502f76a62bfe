"""Births: the very operation in which a number stopped being finite, by stage and by layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from runner.devices import name
from runner.pipeline import Models, Watch

NEXT = {  # what was seen last -> the stage at work since
    "cond/negative": "encode",
    "latent/input": "step 1",
    "latent/output": "decode",
}
UNWRITTEN = ("empty", "new_empty", "__get__")  # give memory as it is, or what was there before


@dataclass(frozen=True)
class Birth:
    """Where the first number that is not finite came from."""

    stage: str
    layer: str  # by the checkpoint's own name; "" between the networks
    operation: str  # torch's name
    dtype: str
    largest: float  # of what it was given
    weight: bool  # it was given a weight that is not finite

    def __str__(self) -> str:
        place = f"{self.stage}, {self.layer}" if self.layer else self.stage
        if self.weight:
            return f"{place}: its weights hold NaN or infinity"
        limit = f"{self.dtype} ends at {torch.finfo(getattr(torch, self.dtype)).max:.5g}"
        return f"{place}: {self.operation}, given at most {self.largest:.3g}; {limit}"


@dataclass
class Witness(TorchFunctionMode):  # type: ignore[misc]
    """Looks at what every operation gives until one is the first that is not finite."""

    stage: str = "text"
    inside: list[str] = field(default_factory=list)  # layers being computed, outermost first
    born: Birth | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def watch(self, seen: str, shown: Tensor) -> None:
        """To be shown what img2img shows: so it knows the stage."""
        kind, _, place = seen.partition("/")
        self.stage = f"step {int(place) + 1}" if kind == "step" else NEXT.get(seen, self.stage)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        called = getattr(func, "__name__", "")
        if self.born is None and not called.startswith(UNWRITTEN) and not whole(out):
            given = list(numbers((args, tuple((kwargs or {}).values()))))
            weights = [one for one in given if isinstance(one, nn.Parameter)]
            others = [one for one in given if not isinstance(one, nn.Parameter)]
            if given and all(whole(one) for one in others):
                self.born = self.birth(called, next(numbers(out)), others, weights)
        return out

    def birth(
        self, called: str, out: Tensor, given: Sequence[Tensor], weights: Sequence[Tensor]
    ) -> Birth:
        largest = max((float(one.abs().max()) for one in given if one.numel()), default=0.0)
        sick = any(not whole(one) for one in weights)
        layer = self.inside[-1] if self.inside else ""
        return Birth(self.stage, layer, called, name(out.dtype), largest, sick)


def numbers(values: Any) -> Iterator[Tensor]:
    """The floating tensors in what an operation takes or gives."""
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from numbers(value)


def whole(values: Any) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in numbers(values))


@contextmanager
def named(networks: Mapping[str, nn.Module], inside: list[str]) -> Iterator[None]:
    """While this lasts, `inside` holds the names of the layers that are being computed."""

    def enter(layer: str) -> Callable[..., None]:
        return lambda *_: inside.append(layer)

    with ExitStack() as hooks:
        for prefix, network in networks.items():
            for layer, module in network.named_modules():
                if layer:
                    hook = module.register_forward_pre_hook(enter(prefix + layer))
                    hooks.callback(hook.remove)
                    hook = module.register_forward_hook(lambda *_: inside.pop() and None)
                    hooks.callback(hook.remove)
        yield


Run = Callable[[Models, Watch], object]


def birth(models: Models, run: Run) -> Birth | None:
    """Where NaN or infinity is born while run(models, watch) renders; None if it is not.

    By the plain network, whose layers have names; what only the engine bears is named by stage.
    """
    plain = replace(models, denoiser=replace(models.denoiser, engine=None))
    return witnessed(plain, run) or witnessed(models, run)


def witnessed(models: Models, run: Run) -> Birth | None:
    witness = Witness()
    networks: dict[str, nn.Module] = {
        "text: ": models.text,
        "denoiser: ": models.denoiser.unet,  # type: ignore[dict-item]
        "VAE: ": models.vae,
    }
    with named(networks, witness.inside), witness:
        run(models, witness.watch)
    return witness.born
