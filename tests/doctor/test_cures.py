"""Which flag is chosen against what a start printed, and when none is."""

import pytest

from doctor.cures import choose, ending, judged, restarts
from doctor.manifest import world
from doctor.words import pages

CARD = b"""pytorch version: 2.13.0+cu130
Device: cuda:0 NVIDIA GeForce GTX 1650 : cudaMallocAsync
Traceback (most recent call last):
  File "/comfyui/comfy/model_management.py", line 1, in cast_to
RuntimeError: CUDA error: operation not supported
"""
IMPORT = b"""Traceback (most recent call last):
  File "/comfyui/comfy/sd.py", line 1, in <module>
    import einops
ModuleNotFoundError: No module named 'einops'
"""
NAN = b"/comfyui/nodes.py:1: RuntimeWarning: invalid value encountered in cast\n"
FULL = b"""  File "/comfyui/comfy/samplers.py", line 1, in sample
torch.OutOfMemoryError: Allocation on device 0 would exceed allowed memory. (out of memory)
"""


def chosen(said, *given, card=True, live=False, tried=(), code=1):
    fault = choose(judged(said, code, world()), given, world(), card=card, live=live, tried=tried)
    return fault and (fault.cure.flag, fault.contradicts)


def test_the_flag_against_what_blocks_first():
    assert chosen(CARD) == ("--disable-cuda-malloc", "")
    assert chosen(FULL) == ("--reserve-vram", "")
    assert chosen(FULL, "--reserve-vram", "1.0") == ("--lowvram", ""), "the next that costs more"


def test_what_blocks_first_and_has_no_flag_gets_none():
    assert chosen(IMPORT) is None
    assert chosen(CARD + IMPORT) is None, "a start that lacks a module is not cured by a flag"


def test_a_picture_of_nan_is_worth_a_restart_while_it_serves_and_also_after():
    assert chosen(NAN, live=True) == ("--fp32-vae", "")


def test_nothing_wrong_gets_nothing():
    healthy = CARD.partition(b"Traceback")[0]
    assert chosen(healthy, code=0) is None
    assert chosen(healthy, live=True) is None


def test_once_is_enough():
    assert chosen(CARD, tried=["cuda-malloc-unsupported"]) is None
    assert chosen(CARD, "--disable-cuda-malloc") is None


def test_the_owners_flag_that_contradicts_is_named():
    assert chosen(CARD, "--cuda-malloc") == ("--disable-cuda-malloc", "--cuda-malloc")


def test_the_cpu_only_where_there_is_no_card():
    said = b"AssertionError: Torch not compiled with CUDA enabled\n"
    trace = b'Traceback (most recent call last):\n  File "/c/comfy/model_management.py", line 1\n'
    assert chosen(trace + said, card=False) == ("--cpu", "")
    assert chosen(trace + said, card=True) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "Killed"),
        (137, "Killed"),
        (-11, "Segmentation fault (core dumped)"),
        (0, ""),
        (1, ""),
        (None, ""),
    ],
)
def test_an_end_by_a_signal_is_said_as_a_shell_says_it(code, words):
    assert ending(code) == words


def test_every_restart_has_a_page_and_a_flag():
    flags = {row.finding for row in world().flag_cures}
    for row in restarts():
        assert row.finding in pages("en")
        assert (row.against or row.finding) in flags
