"""Settings of the console and the system that ComfyUI, torch or pip would stumble over."""

import re
from collections.abc import Iterator

from doctor.check import check
from doctor.checks.gpu import built_for_cards
from doctor.facts import Facts
from doctor.finding import Finding, Severity

FEW_FILES = 1024  # what Linux itself starts with; a library with many files needs more
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
PROXY = re.compile(r"(?:(https?|socks5h?|socks4a?)://)?[^\s/:@]+(?::\d{1,5})?/?$")
FREEZES = "PYTORCH_MPS_HIGH_WATERMARK_RATIO"


@check("allocator-setting-wrong")
def allocator_setting_wrong(facts: Facts) -> Iterator[Finding]:
    """PYTORCH_CUDA_ALLOC_CONF or its like holds what torch stops at when it first uses the card."""
    known = {name for row in facts.world.allocator for name in row.names}
    wrong = []
    for name, value in facts.environment.items():
        if re.fullmatch(r"PYTORCH_(?:CUDA_|HIP_)?ALLOC_CONF", name) and built_for_cards(facts):
            wrong += [f"{name}={value}: {why}" for why in faults(value, known)]
        if name == FREEZES and value.startswith("0.0"):
            wrong.append(f"{name}={value}: no limit at all, which can freeze the whole machine")
    if wrong:
        yield Finding(Severity.ERROR, because=tuple(wrong))


def faults(value: str, known: set[str]) -> Iterator[str]:
    """What torch's own reader (c10/core/AllocatorConfig.h) stops at in a list of name:value."""
    for item in re.split(r",(?![^\[]*\])", value):
        name, colon, said = (part.strip() for part in item.partition(":"))
        if not name and not colon:
            continue
        if not colon or not said:
            yield f"{item.strip()!r} is not name:value"
        elif name not in known:
            yield f"torch knows no {name}"
        elif name in FLAGS and said not in ("True", "False"):
            yield f"{name} is True or False, not {said}"
        elif name == "max_split_size_mb" and not (said.isdigit() and int(said) >= 20):
            yield f"{name} is a number from 20 on, not {said}"
        elif name == "garbage_collection_threshold" and not re.match(r"0?\.\d*[1-9]", said):
            yield f"{name} lies between 0.0 and 1.0, {said} does not"


FLAGS = frozenset({"expandable_segments", "release_lock_on_cudamalloc", "throw_on_cudamalloc_oom"})


@check("network-setting-wrong")
def network_setting_wrong(facts: Facts) -> Iterator[Finding]:
    """A proxy or certificate variable holds what pip, git or Python's libraries cannot use."""
    wrong = [f"{line}: it is not there" for line in facts.host.astray]
    for name, value in facts.environment.items():
        if name.lower() in PROXIES and value:
            wrong += [f"{name}={value}: {why}" for why in amiss(value, facts)]
    if wrong:
        names = ", ".join(line.partition("=")[0] for line in wrong)
        yield Finding(Severity.WARNING, because=tuple(wrong), values={"names": names})


def amiss(proxy: str, facts: Facts) -> Iterator[str]:
    said = PROXY.match(proxy)
    if proxy.startswith("socks:"):
        yield "Python's libraries know no socks://, write socks5://"
    elif said is None:
        yield "no address of the form http://host:port"
    elif (said[1] or "").startswith("socks") and "pysocks" not in facts.packages:
        yield "pip speaks SOCKS only with the package PySocks, which is not installed"


@check("console-encoding")
def console_encoding(facts: Facts) -> Iterator[Finding]:
    """What this Python prints is not UTF-8, so a node's Chinese text or emoji ends it."""
    here = facts.python.encoding.lower().replace("-", "").replace("_", "")
    if here not in ("utf8", "cp65001", "") and facts.host.os != "windows":
        yield Finding(
            Severity.WARNING,
            because=(f"sys.stdout.encoding: {facts.python.encoding}",),
            commands=("export PYTHONUTF8=1",),
        )


@check("too-many-files")
def too_many_files(facts: Facts) -> Iterator[Finding]:
    """A process may open few files here: loading many models or nodes fails."""
    if 0 < facts.host.open_files < FEW_FILES:
        yield Finding(
            Severity.WARNING,
            because=(f"ulimit -n: {facts.host.open_files}",),
            commands=("ulimit -n 65536",),
        )


@check("cpu-instructions-missing")
def cpu_instructions_missing(facts: Facts) -> Iterator[Finding]:
    """The processor lacks instructions that the usual wheels are built with."""
    if facts.host.lacks:
        severe = set(facts.host.lacks) & {"avx", "sse4_2"}
        yield Finding(
            Severity.WARNING if severe else Severity.INFO,
            because=(f"/proc/cpuinfo names no {', '.join(facts.host.lacks)}",),
        )


ASKED_FOR = {  # flag of ComfyUI -> distributions, any of which it needs at the start
    "--use-sage-attention": ("sageattention", "sageattn3"),
    "--use-flash-attention": ("flash-attn",),
}


@check("attention-package-missing")
def attention_package_missing(facts: Facts) -> Iterator[Finding]:
    """ComfyUI is started with an attention whose package is not installed, and ends at once."""
    flags = facts.comfyui.flags if facts.comfyui is not None else {}
    for flag, names in ASKED_FOR.items():
        if flag in flags and not set(names) & facts.packages.keys():
            yield Finding(Severity.ERROR, because=(flag, f"{names[0]} ∉ {facts.python.site}"))
