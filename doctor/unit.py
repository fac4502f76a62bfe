"""Unit: `launch` as a service: a systemd unit, and a compose file for a container. Pure text."""

import json
import re
import shlex
from collections.abc import Sequence

UNIT = """\
# Written by comfy-doctor launch --systemd. For one user: ~/.config/systemd/user/comfyui.service,
# then: systemctl --user enable --now comfyui. For the machine: /etc/systemd/system/comfyui.service
# with a User= of its own, then: systemctl enable --now comfyui.
[Unit]
Description=ComfyUI, watched by comfy-doctor
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=4

[Service]
Type=exec
WorkingDirectory={folder}
ExecStart={command}
KillSignal=SIGINT
KillMode=mixed
TimeoutStopSec=60
# 130: it was asked to end
SuccessExitStatus=130
Restart=on-failure
RestartSec=15
NoNewPrivileges=true
PrivateTmp=true

[Install]
WantedBy=default.target
"""


def systemd(command: Sequence[str], folder: str) -> str:
    """A service that starts the watcher, which starts ComfyUI."""
    return UNIT.format(folder=escaped(folder), command=" ".join(map(word, command)))


def escaped(text: str) -> str:
    """systemd.unit(5): % begins a specifier."""
    return text.replace("%", "%%")


def word(text: str) -> str:
    """systemd.service(5): quoted where needed, $ doubled."""
    plain = escaped(text).replace("\\", "\\\\").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", plain):
        return plain
    return '"' + plain.replace('"', '\\"').replace("\n", "\\n") + '"'


COMPOSE = """\
# Written by comfy-doctor launch --compose. The first start sets ComfyUI up in ./comfyui; it takes
# as long as the downloads do. docker compose up -d
services:
  comfyui:
    image: python:3.12
    working_dir: /comfyui
    command:
      - sh
      - -c
      - {script}
    volumes:
      - {folder}:/comfyui
    ports:
      # this machine alone; put a proxy with a password before it for others
      - "127.0.0.1:{port}:{port}"
    stop_signal: SIGINT
    stop_grace_period: 60s
    restart: unless-stopped
    healthcheck:
      test: [CMD, comfy-doctor, status, --comfyui, /comfyui]
      interval: 30s
      timeout: 10s
      retries: 3
      start_period: 30m
"""
CARDS = """\
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: all
              capabilities: [gpu]
"""


def compose(own: Sequence[str], port: int, nvidia: bool) -> str:
    """A service that sets ComfyUI up once, and then starts it under watch.

    own: the owner's arguments for main.py, but for --listen and --port.
    """
    words = shlex.join([*own, "--listen", "0.0.0.0", "--port", str(port)]).replace("$", "$$")
    script = (
        "pip install --no-cache-dir comfy-doctor && comfy-doctor setup /comfyui --yes"
        f" && exec comfy-doctor launch --comfyui /comfyui -- {words}"
    )
    text = COMPOSE.format(script=json.dumps(script), folder="./comfyui", port=port)
    return text + (CARDS if nvidia else "")


def without(own: Sequence[str], *names: str) -> list[str]:
    """The arguments but for these and their values."""
    kept: list[str] = []
    skipping = False
    for one in own:
        if one.partition("=")[0] in names:
            skipping = "=" not in one
        elif skipping and not one.startswith("--"):
            skipping = False
        else:
            skipping = False
            kept.append(one)
    return kept
