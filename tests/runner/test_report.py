import string

import pytest

from runner import report

GATES = [
    {"name": "tokens", "figure": 0, "bound": 0, "verdict": "passed", "why": ""},
    {"name": "text", "figure": "inf", "bound": 1e-5, "verdict": "failed", "why": "at layer 3"},
    {
        "name": "cpu against gpu",
        "figure": None,
        "bound": None,
        "verdict": "not judged",
        "why": "no",
    },
]


def test_both_languages_have_the_same_words_with_the_same_blanks():
    def blanks(text):
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    english, chinese = report.WORDS["en"], report.WORDS["zh"]
    assert english.keys() == chinese.keys()
    for word, text in english.items():
        assert blanks(text) == blanks(chinese[word]), word


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "1 of 3 gates failed"), ("zh", "3 项检验中有 1 项未通过")]
)
def test_a_verdict_names_what_failed_and_where(lang, words):
    lines = list(report.verify_lines({"gates": GATES, "passed": False}, lang))
    assert words in lines[-1]
    assert "at layer 3" in lines[1]
    assert [line[0] for line in lines[:3]] == ["+", "x", "?"]


def test_suspects_are_told_with_what_cured_them():
    tried = [{"experiment": "again"}, {"experiment": "again"}, {"experiment": "attention-math"}]
    found = [
        {"gate": "text", "cured_by": "attention-math", "tried": tried},
        {"gate": "decode in 16 bits", "cured_by": "", "tried": tried},
    ]
    verdict = {"gates": GATES, "suspects": found, "passed": False}
    english = list(report.verify_lines(verdict, "en"))
    assert "text: right with nothing changed but this: attention-math." in english[3]
    assert "decode in 16 bits: still wrong; tried: again, attention-math." in english[4]
    chinese = list(report.verify_lines(verdict, "zh"))
    assert "文本编码：只改用“普通公式的 attention”就正确" in chinese[3]
    assert "图像解码（16 位）" in chinese[4]


def test_a_render_that_is_not_finite_says_where():
    told = {
        "files": ["a.png"], "seconds": {"total": 1.0, "text": 1.0}, "device": "cpu",
        "dtype": "float32", "finite": False, "not_finite": ["step/2"], "notes": ["noise"],
    }  # fmt: skip
    text = "\n".join(report.render_lines(told, "en"))
    assert "step/2" in text
    assert "note: noise" in text


def test_a_timing_says_its_doubts():
    told = {
        "median": 0.5, "spread": 0.01, "steps_per_second": 2.0, "seconds": [0.5],
        "doubts": ["few"], "times_as_fast": 1.5, "share": 0.5, "flops": 1e11,
        "ceiling": {"flops": 4e11, "bytes": 1e10}, "stages": {"decode": 0.25},
    }  # fmt: skip
    lines = list(report.bench_lines(told, "en"))
    assert lines[0].startswith("2.00 steps a second (500 ms ± 10 ms")
    assert lines[1] == "0.200 TFLOP/s, 50% of this device's large products (0.400)."
    assert "1.50 times" in lines[2]
    assert "few" in lines[3]


@pytest.mark.parametrize(("locale", "lang"), [("zh_CN.UTF-8", "zh"), ("de_DE", "en"), ("", "en")])
def test_the_language_is_that_of_the_locale(monkeypatch, locale, lang):
    for key in ("LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("LANG", locale)
    assert report.language(None) == lang
    assert report.language("zh") == "zh"
