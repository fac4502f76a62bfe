"""Asks one allocator of torch to work. Runs inside the patient: stdlib and its torch, nothing of
ours; PYTORCH_CUDA_ALLOC_CONF says which allocator, as ComfyUI's cuda_malloc.py sets it.

PY probe_allocator.py MARK -> MARK{json}MARK. Blocks of many sizes are taken, given back and taken
again, which is what allocators get wrong, then a small convolution runs. Must run on any Python 3.
"""

import json
import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the doctor's own modules must not stand before those of the patient

MB = 1 << 20
SIZES = (1, 3, 20, 64, 130, 256)  # MB: below and above where allocators change their ways
SHARE = 8  # no more than this part of the free memory is taken


def work():
    import torch

    if not torch.cuda.is_available():
        return {"skipped": "torch finds no CUDA device"}
    free = torch.cuda.mem_get_info()[0]
    sizes = [size * MB for size in SIZES if size * MB * 2 < free // SHARE]
    for _ in range(2):
        blocks = [torch.empty(size, dtype=torch.uint8, device="cuda") for size in sizes]
        for block in blocks:
            block.fill_(7)
        torch.cuda.synchronize()
        del blocks[::2], block
        blocks += [torch.full((size // 4,), 3.0, device="cuda") for size in sizes[::2]]
        torch.cuda.synchronize()
        del blocks
        torch.cuda.empty_cache()
    image = torch.ones((1, 4, 64, 64), device="cuda").half()
    kernel = torch.ones((8, 4, 3, 3), device="cuda").half()
    made = torch.nn.functional.conv2d(image, kernel, padding=1)
    middle = float(made[0, 0, 32, 32])
    if middle != 36.0:
        raise RuntimeError("a convolution of ones gave %s instead of 36" % middle)
    torch.cuda.synchronize()
    return {
        "ok": True,
        "backend": str(torch.cuda.get_allocator_backend()),
        "device": torch.cuda.get_device_name(),
    }


def main():
    mark = sys.argv[1]
    try:
        said = work()
    except BaseException as error:
        said = {"error": "%s: %s" % (type(error).__name__, str(error).strip()[:600])}
    sys.stdout.write("\n" + mark + json.dumps(said) + mark + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
