"""CUDA graphs: everything a step launches, recorded once and launched as one.

A UNet step of SD 1.5 is some 700 kernels of a few microseconds each; launched one by one they
wait for the host (facts: CUDA C++ Programming Guide, "CUDA Graphs"; torch.cuda.CUDAGraph).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Words = Sequence[tuple[Tensor, Tensor]]
Pass = Callable[[Tensor, Tensor, Words], Tensor]
WARM = 3  # passes before recording: libraries choose their kernels in them


class Captured:
    """A pass recorded for one set of shapes; called with new numbers in those shapes.

    What it returns is overwritten by the next call. Where recording fails the pass itself runs:
    slower, and the same numbers.
    """

    def __init__(self, plain: Pass, x: Tensor, shift: Tensor, words: Words):
        self.plain = plain
        self.x, self.shift = x.clone(), shift.clone()
        self.words = [(k.clone(), v.clone()) for k, v in words]
        self.said = words
        self.why = ""
        self.graph: torch.cuda.CUDAGraph | None = None
        try:
            self.record()
        except RuntimeError as error:  # torch's word for all that a device may refuse
            self.graph, self.why = None, str(error)

    def record(self) -> None:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self.plain(self.x, self.shift, self.words)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.out = self.plain(self.x, self.shift, self.words)
        self.graph = graph

    def fits(self, x: Tensor, shift: Tensor, words: Words) -> bool:
        """Whether these have the shapes it was recorded for."""
        ours = [self.x, self.shift, *(one for pair in self.words for one in pair)]
        theirs = [x, shift, *(one for pair in words for one in pair)]
        return [one.shape for one in ours] == [one.shape for one in theirs]

    def __call__(self, x: Tensor, shift: Tensor, words: Words) -> Tensor:
        if self.graph is None:
            return self.plain(x, shift, words)
        self.x.copy_(x)
        self.shift.copy_(shift)
        if words is not self.said:
            for ours, theirs in zip(self.words, words, strict=True):
                ours[0].copy_(theirs[0])
                ours[1].copy_(theirs[1])
            self.said = words
        self.graph.replay()
        return self.out
