from xml.etree import ElementTree

from doctor.monitor import Case, Sample, junit, metrics
from tests.doctor.command import doctor

CASES = [
    Case("torch-broken", "failed", "It is broken.\nbecause \x00 of & <this>", 1.5),
    Case("port-in-use", "passed"),
    Case("start", "not judged", "no time"),
]


def test_junit_counts_and_escapes():
    root = ElementTree.fromstring(junit("comfy-doctor check", CASES, 2.0))
    (suite,) = root
    counts = {name: suite.get(name) for name in ("tests", "failures", "skipped", "errors")}
    assert counts == {"tests": "3", "failures": "1", "skipped": "1", "errors": "0"}
    failure = suite.find("testcase/failure")
    assert failure.get("message") == "It is broken."
    assert failure.text == "It is broken.\nbecause \ufffd of & <this>"
    assert suite.find("testcase/skipped").get("message") == "no time"


def test_metrics_name_each_metric_once_and_escape_labels():
    text = metrics(
        [
            Sample("healthy", 1, {"command": "check"}),
            Sample("finding", 1, {"id": 'a"b\\c\nd'}),
            Sample("finding", 1, {"id": "e"}),
            Sample("seconds", float("nan"), {"stage": "x"}),
        ]
    )
    lines = text.splitlines()
    assert lines.count("# TYPE comfy_doctor_finding gauge") == 1
    assert 'comfy_doctor_healthy{command="check"} 1' in lines
    assert 'comfy_doctor_finding{id="a\\"b\\\\c\\nd"} 1' in lines
    assert "seconds" not in text, "what is no number is not told"


def test_check_writes_both(tmp_path):
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/nowhere/python")
    files = ["--junit", tmp_path / "out/j.xml", "--metrics", tmp_path / "out/m.prom"]
    code, _, _ = doctor("check", "--level", "1", "--python", python, *files)
    assert code == 1
    suite = ElementTree.parse(tmp_path / "out/j.xml").getroot()[0]
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert "python-broken" in failed
    text = (tmp_path / "out/m.prom").read_text()
    assert 'comfy_doctor_healthy{command="check"} 0' in text
    assert "comfy_doctor_run_timestamp_seconds" in text
