from doctor.startup import Startup

SAID = b"""Adding extra search path loras /data/loras
Total VRAM 24080 MB, total RAM 64213 MB
\x1b[33mpytorch version: 2.13.0+cu130\x1b[0m
[Prompt Server] web root: /x
Cannot import /c/custom_nodes/broken module for custom nodes: No module named 'cv2'

Import times for custom nodes:
   0.0 seconds: /c/custom_nodes/websocket_image_save.py
   0.1 seconds (IMPORT FAILED): /c/custom_nodes/broken
  12.5 seconds: C:\\ComfyUI\\custom_nodes\\slow pack

Starting server
To see the GUI go to: http://127.0.0.1:8188
"""


def told(*, at=lambda number: float(number)):
    startup = Startup()
    for number, line in enumerate(SAID.splitlines(keepends=True)):
        startup.feed(line, at(number))
    return startup


def test_phases_have_the_seconds_between_their_lines():
    phases = [(phase.name, phase.seconds) for phase in told().phases]
    assert phases == [("imports", 1), ("devices", 2), ("nodes", 3), ("server", 6)]


def test_packs_have_their_seconds_and_the_reason_they_failed():
    startup = told()
    assert [(node.name, node.why) for node in startup.failed] == [
        ("broken", "No module named 'cv2'")
    ]
    assert [(node.name, node.seconds) for node in startup.slowest()] == [("slow pack", 12.5)]
    assert startup.models == 1


def test_a_line_may_come_in_pieces():
    whole, pieces = told(), Startup()
    for byte in SAID:
        pieces.feed(bytes([byte]), 0.0)
    assert pieces.nodes == whole.nodes
    assert [phase.name for phase in pieces.phases] == [phase.name for phase in whole.phases]


def test_a_line_without_end_costs_bounded_memory():
    startup = Startup()
    for _ in range(100):
        startup.feed(b"x" * 100_000, 0.0)
    assert len(startup.rest) < 10_000
