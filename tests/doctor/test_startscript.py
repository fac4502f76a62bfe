"""Start scripts: they start what they say, from wherever they lie, and name the reasons."""

import subprocess
import sys

from doctor.facts import Flag
from doctor.startscript import text

FLAGS = {"--reserve-vram": Flag("gpu-out-of-memory", "1.0", ("Allocation\non device",))}


def test_the_shell_script_starts_main_py_with_flags_in_its_folder(tmp_path):
    here = tmp_path / "a folder's"
    here.mkdir()
    (here / "main.py").write_text("import os, sys; print(os.getcwd(), sys.argv[1:])")
    for where in (here, tmp_path):
        script = where / "start.sh"
        given = ("--output-directory", "my pictures")
        script.write_text(
            text(str(script), str(here), (sys.executable, "-s", "main.py"), FLAGS, given)
        )
        words = ["sh", str(script), "--port", "8190"]
        run = subprocess.run(words, capture_output=True, text=True, cwd="/", check=True)
        flags = ["--reserve-vram", "1.0", *given, "--port", "8190"]
        assert run.stdout == f"{here} {flags}\n"
        assert "# --reserve-vram: gpu-out-of-memory; Allocation on device" in script.read_text()


def test_an_interpreter_in_the_folder_is_named_from_there():
    made = text("/srv/C/start.sh", "/srv/C", ("/srv/C/.venv/bin/python", "main.py"), {}, ())
    assert 'exec .venv/bin/python main.py "$@"' in made
    made = text("/srv/C/start.sh", "/srv/C", ("/opt/env/bin/python", "main.py"), {}, ())
    assert 'exec /opt/env/bin/python main.py "$@"' in made


def test_the_batch_file_of_the_portable_version():
    folder = "D:\\AI 100%\\ComfyUI"
    command = ("D:\\AI 100%\\python_embeded\\python.exe", "-s", "main.py")
    made = text(folder + "\\start.bat", folder, command, FLAGS, ("--base-directory", "E:\\A&B"))
    lines = made.split("\r\n")
    assert lines[0] == "@echo off"
    assert 'cd /d "%~dp0." || exit /b 1' in lines
    assert lines[-2] == (
        '..\\python_embeded\\python.exe -s main.py --reserve-vram 1.0 --base-directory "E:\\A&B" %*'
    )
    assert "--reserve-vram: gpu-out-of-memory" in made
