"""Devices: where each part computes and in which precision, chosen as ComfyUI chooses.

ComfyUI 0.3.64, model_management.py: unet_dtype, vae_dtype, should_use_fp16, should_use_bf16.
"""

import os
import platform
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from runner.recipe import Refused

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
SMALL_LATENT = 32 * 32  # pixels of a latent
BROKEN_FP16 = (
    *"1660 1650 1630 T500 T550 T600 MX550 MX450 T2000 T1000 T1200".split(),
    "CMP 30HX",
)


@dataclass(frozen=True)
class Placement:
    """A device, and the precision of the denoiser and of the VAE on it."""

    device: torch.device
    unet: torch.dtype
    vae: torch.dtype

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


def choose(device: str | None = None, dtype: str | None = None) -> Placement:
    """The placement ComfyUI would choose; `dtype` overrides denoiser and VAE.

    Refused: unknown-device, device-not-available, unknown-dtype.
    """
    where = available(device) if device else torch.device(best())
    if dtype is not None and dtype not in DTYPES:
        raise Refused("unknown-dtype", f"dtype {dtype!r} is none of {', '.join(DTYPES)}.")
    if dtype is not None:
        return Placement(where, DTYPES[dtype], DTYPES[dtype])
    return Placement(where, denoiser_dtype(where), vae_dtype(where))


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


def denoiser_dtype(device: torch.device) -> torch.dtype:
    """float16 where ComfyUI trusts it: Apple, AMD, NVIDIA from sm_70 but the 16xx cards."""
    if device.type == "cpu":
        return torch.float32
    if device.type != "cuda" or torch.version.hip:
        return torch.float16
    card = torch.cuda.get_device_properties(device)
    if card.major >= 8:
        return torch.float16
    broken = any(model in card.name for model in BROKEN_FP16)
    return torch.float16 if card.major == 7 and not broken else torch.float32


def vae_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 from sm_80 on, else float32."""
    if device.type == "cuda" and torch.cuda.get_device_properties(device).major >= 8:
        return torch.bfloat16
    return torch.float32


@contextmanager
def small_convolutions(device: torch.device, latent: Tensor) -> Iterator[None]:
    """On the CPU, convolve small latents without oneDNN, which repacks all weights each call.

    Half the time of a step at 8 x 8 (measured); the same numbers within every gate.
    """
    mkldnn = torch.backends.mkldnn
    small = device.type == "cpu" and latent.shape[-1] * latent.shape[-2] <= SMALL_LATENT
    if not (small and mkldnn.is_available()):  # type: ignore[no-untyped-call]
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
