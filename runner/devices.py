"""Devices: where each part computes and in which precision, chosen as ComfyUI chooses.

ComfyUI 0.3.64, model_management.py: unet_dtype, vae_dtype, should_use_fp16, should_use_bf16.
"""

import json
import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from runner.recipe import Refused

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALL_LATENT = 32 * 32  # pixels of a latent
CARDS = Path(__file__).parent / "data" / "cards.json"


@dataclass(frozen=True)
class Card:
    """An NVIDIA card as far as ComfyUI looks at it: name, compute capability, bytes of memory."""

    name: str
    major: int
    memory: int
    windows: bool = False

    @classmethod
    def of(cls, device: torch.device) -> "Card":
        about = torch.cuda.get_device_properties(device)
        return cls(about.name, about.major, about.total_memory, platform.system() == "Windows")


@dataclass(frozen=True)
class Placement:
    """A device, and the precision in which the denoiser and the VAE compute on it.

    stored: what the denoiser's weights are rounded to before, where that differs.
    """

    device: torch.device
    unet: torch.dtype
    vae: torch.dtype
    stored: torch.dtype | None = None

    @property
    def places(self) -> Mapping[str, tuple[torch.device, torch.dtype]]:
        """Part -> (device, dtype). Text is stored in float16 and computed in float32."""
        return {
            "text": (self.device, torch.float16),
            "unet": (self.device, self.unet),
            "vae": (self.device, self.vae),
        }

    @property
    def dtype(self) -> str:
        return name(self.unet)


def name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def choose(device: str | None = None, dtype: str | None = None, weights: int = 0) -> Placement:
    """The placement ComfyUI would choose; `dtype` overrides denoiser and VAE.

    weights: how many the denoiser has, which matters on cards that are slow in float16.

    Refused: unknown-device, device-not-available, unknown-dtype.
    """
    where = available(device) if device else torch.device(best())
    if dtype is not None and dtype not in DTYPES:
        raise Refused("unknown-dtype", f"dtype {dtype!r} is none of {', '.join(DTYPES)}.")
    if dtype is not None:
        return Placement(where, DTYPES[dtype], DTYPES[dtype])
    return usual(where, weights)


def usual(device: torch.device, weights: int = 0) -> Placement:
    """The placement ComfyUI chooses on a device."""
    if device.type != "cuda" or torch.version.hip:
        half = device.type != "cpu"  # Apple's, AMD's and others' are trusted with float16
        return Placement(device, torch.float16 if half else torch.float32, torch.float32)
    unet, stored, vae = precision(Card.of(device), weights)
    return Placement(device, unet, vae, None if stored == unet else stored)


def denoiser_dtype(device: torch.device) -> torch.dtype:
    return usual(device).unet


def best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    mps = getattr(torch.backends, "mps", None)
    return "mps" if mps and mps.is_available() else "cpu"


def available(device: str) -> torch.device:
    """The device of that name, or Refused if this torch cannot use it here."""
    try:
        where = torch.device(device)
    except RuntimeError:
        raise Refused("unknown-device", f"torch knows no device {device!r}.") from None
    if where.type == "cpu":
        return torch.device("cpu")
    backend = getattr(torch.backends if where.type == "mps" else torch, where.type, None)
    if backend is None or not getattr(backend, "is_available", lambda: False)():
        raise Refused(
            "device-not-available",
            f"{device} is not available: this torch is {torch.__version__} and sees no such "
            "device; cpu is always there.",
        )
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise Refused("device-not-available", f"{device}: only {count} CUDA device(s) are here.")
    return where


@lru_cache(maxsize=1)
def rules() -> dict[str, Any]:
    """Which cards ComfyUI trusts with which precision: data with its source."""
    read: dict[str, Any] = json.loads(CARDS.read_text("utf-8"))
    return read


def precision(card: Card, weights: int) -> tuple[torch.dtype, torch.dtype, torch.dtype]:
    """(what the denoiser computes in, what its weights are kept in, what the VAE computes in).

    ComfyUI 0.3.64, model_management.py: unet_dtype, unet_manual_cast, vae_dtype. A denoiser too
    large for the card in float32 is kept in 16 bits and computed in float32.
    """
    if card.major >= rules()["bfloat16_from"]:
        return torch.float16, torch.float16, torch.bfloat16
    if fast_half(card):
        return torch.float16, torch.float16, torch.float32
    system = "windows" if card.windows else "elsewhere"
    reserved = rules()["inference_memory"] + rules()["reserved_memory"][system]
    crowded = weights * 4 > card.memory * rules()["share_for_weights"] - reserved
    if card.major < rules()["float16_from"]:
        kept = torch.bfloat16 if crowded else torch.float32
    else:
        kept = torch.float16 if crowded or slow_half(card) else torch.float32
    return torch.float32, kept, torch.float32


def fast_half(card: Card) -> bool:
    """Whether float16 is computed in: not on cards where it is broken, or slower."""
    if slow_half(card):
        return card.windows
    broken = any(model in card.name for model in rules()["broken_float16"])
    return card.major >= rules()["fast_float16_from"] and not broken


def slow_half(card: Card) -> bool:
    old = rules()["float16_from"] <= card.major < rules()["bfloat16_from"]
    return old and any(model in card.name.lower() for model in rules()["slow_float16"])


@contextmanager
def small_convolutions(device: torch.device, latent: Tensor) -> Iterator[None]:
    """On the CPU, convolve small latents without oneDNN, which repacks all weights each call.

    Half the time of a step at 8 x 8 (measured); the same numbers within every gate.
    """
    if device.type == "cpu" and latent.shape[-1] * latent.shape[-2] <= SMALL_LATENT:
        with without_onednn():
            yield
    else:
        yield


@contextmanager
def without_onednn() -> Iterator[None]:
    """The CPU's convolutions and products by torch itself, where oneDNN is there at all."""
    mkldnn = torch.backends.mkldnn
    if not mkldnn.is_available():  # type: ignore[no-untyped-call]
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch speaks of Intel GPUs here
        with mkldnn.flags(enabled=False):
            yield


def settle(device: torch.device) -> None:
    """Wait until everything that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def threads() -> int:
    """Threads of torch on the CPU. Another number changes last bits, so it is always recorded."""
    return torch.get_num_threads()


def set_threads(count: int) -> None:
    """Use that many threads of the CPU. Refused: bad-threads."""
    if not 1 <= count <= 1024:
        raise Refused("bad-threads", f"threads is {count}; it is a number from 1 to 1024.")
    torch.set_num_threads(count)


@contextmanager
def at_most(count: int | None) -> Iterator[None]:
    """No more threads than that while this lasts; None: as many as there are."""
    before = threads()
    torch.set_num_threads(min(before, count or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact(placement: Placement) -> Iterator[None]:
    """On a GPU, float32 that is float32: TF32 off in matmul and cuDNN while this lasts."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if placement.device.type != "cuda":
        yield
        return
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def machine(device: torch.device) -> dict[str, object]:
    """What a measurement must be read with: processor, threads, torch, device."""
    return {
        "system": platform.system(),
        "cpu": processor(),
        "capability": capability(),
        "cores": os.cpu_count(),
        "threads": threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
    }


def capability() -> str:
    """The instruction set torch's own CPU kernels use: another one changes last bits."""
    cpu = getattr(torch.backends, "cpu", None)  # since torch 2.1
    ask = getattr(cpu, "get_cpu_capability", None)
    return ask() if ask else os.environ.get("ATEN_CPU_CAPABILITY", "unknown")


def processor() -> str:
    with suppress(OSError):
        for row in Path("/proc/cpuinfo").read_text().splitlines():
            if row.startswith("model name"):
                return row.partition(":")[2].strip()
    return platform.processor() or platform.machine()
