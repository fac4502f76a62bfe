"""Report: verdicts, renders and timings as lines for a person, in English or Chinese.

Pure functions of JSON objects, so that they import nothing heavy; cli prints what they yield.
"""

import os
from collections.abc import Iterator, Mapping
from typing import Any

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "passed": "passed",
        "failed": "FAILED",
        "not judged": "not judged",
        "verified": "Verified: the numbers on this machine are ComfyUI's.",
        "cured": "{gate}: right with nothing changed but this: {names}.",
        "uncured": "{gate}: still wrong; tried: {names}.",
        "wrong": "Not verified: {n} of {of} gates failed.",
        "nothing": "Nothing could be judged.",
        "rendered": "Rendered {files} in {seconds:.1f} s on {device} in {dtype}.",
        "executed": "Executed {n} nodes in {seconds:.1f} s on {device} in {dtype}.",
        "black": "The result is not finite: NaN or infinity first in {where}.",
        "rate": "{rate:.2f} steps a second ({ms:.0f} ms ± {spread:.0f} ms, {n} steps timed).",
        "share": "{tera:.3f} TFLOP/s, {share:.0%} of this device's large products ({best:.3f}).",
        "doubt": "doubt",
        "note": "note",
        "note-synthetic": "The weights are synthetic: the picture is noise by nature.",
        "note-size": "This model was trained on pictures of {side} x {side} pixels only.",
        "note-words": "This model does not know {words}; it knows shapes, colours, sizes, places"
        " and textures.",
        "note-embedding": "embedding:{name} is not there and was left out of the prompt.",
        "fits": "Fits the prompt by {after:.2f}, before {before:.2f} (CLIP's cosine).",
        "faster": "{times:.2f} times as fast as the other result.",
        "cause": "cause",
        "with-malloc": "ComfyUI's cudaMallocAsync may stay as it is: {because}.",
        "without-malloc": "Start ComfyUI with --disable-cuda-malloc: {because}.",
        "plot-stages": "Time by stage:",
        "plot-spread": "How long steps took:",
        "plot-sizes": "Steps a second by size:",
        "plot-roof": "Roofline: {intensity:.0f} operations a byte of weights; {allowed:.3f} TFLOP/s"
        " possible here, {rate:.3f} reached.",
        "card": "The card at work: {told}.",
        "wrote": "Wrote {files} ({size:.2f} GB).",
        "weights": "weights",
        "verify": "gates",
        "suspects": "suspects",
        "page": "pages",
        "step": "steps",
        "node": "nodes",
        "bench": "timed runs",
        "file": "tensors written",
        "refused": "{message}",
        "interrupted": "Interrupted; nothing half-written was left.",
        "bug": "This is a fault of the runner. Please report all of the following:",
    },
    "zh": {
        "passed": "通过",
        "failed": "未通过",
        "not judged": "未能判断",
        "verified": "已验证：本机的数值与 ComfyUI 一致。",
        "cured": "{gate}：只改用“{names}”就正确。",
        "uncured": "{gate}：仍然有误；已试过：{names}。",
        "wrong": "未通过验证：{of} 项检验中有 {n} 项未通过。",
        "nothing": "没有任何一项能够判断。",
        "rendered": "已生成 {files}，用时 {seconds:.1f} 秒（{device}，{dtype}）。",
        "executed": "已执行 {n} 个节点，用时 {seconds:.1f} 秒（{device}，{dtype}）。",
        "black": "结果含有 NaN 或无穷大，最先出现在 {where}。",
        "rate": "每秒 {rate:.2f} 步（{ms:.0f} 毫秒 ± {spread:.0f} 毫秒，共计时 {n} 步）。",
        "share": "{tera:.3f} TFLOP/s，为本设备大矩阵乘法速度（{best:.3f}）的 {share:.0%}。",
        "doubt": "存疑",
        "note": "注意",
        "note-synthetic": "权重是合成的：图片本来就是噪声。",
        "note-size": "该模型只在 {side} x {side} 像素的图片上训练过。",
        "note-words": "该模型不认识 {words}；它只懂形状、颜色、大小、位置和纹理。",
        "note-embedding": "找不到 embedding:{name}，已从提示词中略去。",
        "fits": "与提示词的契合度 {after:.2f}，渲染前为 {before:.2f}（CLIP 余弦）。",
        "faster": "速度是另一结果的 {times:.2f} 倍。",
        "cause": "原因",
        "with-malloc": "ComfyUI 的 cudaMallocAsync 可以保留：{because}。",
        "without-malloc": "请用 --disable-cuda-malloc 启动 ComfyUI：{because}。",
        "plot-stages": "各阶段用时：",
        "plot-spread": "每步用时分布：",
        "plot-sizes": "各尺寸每秒步数：",
        "plot-roof": "屋顶线：每字节权重 {intensity:.0f} 次运算；本机可达 {allowed:.3f} TFLOP/s，"
        "实际 {rate:.3f}。",
        "card": "计时期间显卡的状态：{told}。",
        "wrote": "已写入 {files}（{size:.2f} GB）。",
        "weights": "权重",
        "verify": "检验",
        "suspects": "可疑环节",
        "page": "页面",
        "step": "步",
        "node": "节点",
        "bench": "计时",
        "file": "已写入的张量",
        "refused": "无法继续：{message}",
        "interrupted": "已中断；没有留下不完整的文件。",
        "bug": "这是 runner 自身的错误，请附上以下全部内容反馈：",
    },
}
GATES_ZH = {
    "tokens": "分词",
    "schedules": "噪声时间表",
    "noise": "初始噪声",
    "weights": "权重校验",
    "text": "文本编码",
    "encode": "图像编码",
    "decode": "图像解码",
    "denoiser": "去噪网络",
    "arithmetic": "设备算术",
    "precision": "计算精度",
    "engine": "快速引擎",
    "batch": "批次位置",
    "finite": "无 NaN 或无穷大",
    "picture": "画面",
    "determinism": "可重复性",
    "fresh process": "全新进程",
    "memory": "设备内存",
    "cpu against gpu": "CPU 与 GPU 对照",
    "timing": "计时",
}
EXPERIMENTS_ZH = {
    "again": "原样重做一次",
    "attention-math": "普通公式的 attention",
    "attention-float32": "float32 的 attention",
    "vae-float32": "float32 的 VAE",
    "unet-float32": "float32 的去噪网络",
    "without-libraries": "不用 cuDNN 或 oneDNN",
    "deterministic": "确定性内核",
    "one-thread": "单线程",
    "cpu": "在 CPU 上",
}
MARKS = {"passed": "+", "failed": "x", "not judged": "?"}


def language(asked: str | None) -> str:
    """The language asked for, else Chinese where the locale is, else English."""
    if asked:
        return asked
    names = (os.environ.get(key, "") for key in ("LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next((name for name in names if name), "")
    return "zh" if locale.lower().startswith("zh") else "en"


def say(word: str, lang: str, **values: object) -> str:
    return WORDS[lang][word].format(**values)


def gate_name(name: str, lang: str) -> str:
    if lang == "zh":
        plain, narrow, _ = name.partition(" in 16 bits")
        name = GATES_ZH.get(plain, plain) + ("（16 位）" if narrow else "")
        name = name.replace("sampler ", "采样器 ").replace("run ", "完整运行 ")
        name = name.replace("picture ", "画面 ")
    return name


def suspect_line(suspect: Mapping[str, Any], lang: str) -> str:
    """What the experiments on a failed gate came to."""
    names = [suspect["cured_by"]] if suspect["cured_by"] else dict.fromkeys(
        trial["experiment"] for trial in suspect["tried"]
    )  # fmt: skip
    shown = [EXPERIMENTS_ZH.get(name, name) if lang == "zh" else name for name in names]
    word = "cured" if suspect["cured_by"] else "uncured"
    gate = gate_name(suspect["gate"], lang)
    return say(word, lang, gate=gate, names=", ".join(shown) or "-")


def verify_lines(verdict: Mapping[str, Any], lang: str) -> Iterator[str]:
    """Every gate with its figure and bound, then the verdict."""
    for gate in verdict["gates"]:
        figure = "" if gate["figure"] is None else f"{float(gate['figure']):.2g}"
        bound = "" if gate["bound"] is None else f" <= {gate['bound']:.0e}"
        head = f"{MARKS[gate['verdict']]} {gate_name(gate['name'], lang)}"
        told = f"  ({gate['why']})" if gate["why"] else ""
        yield f"{head}: {say(gate['verdict'], lang)}  {figure}{bound}{told}"
    yield from (f"  {suspect_line(one, lang)}" for one in verdict.get("suspects", ()))
    failed = sum(gate["verdict"] == "failed" for gate in verdict["gates"])
    if failed:
        yield say("wrong", lang, n=failed, of=len(verdict["gates"]))
    else:
        yield say("verified" if verdict["passed"] else "nothing", lang)


def render_lines(render: Mapping[str, Any], lang: str) -> Iterator[str]:
    """What was written and how long each stage took."""
    files, seconds = ", ".join(render["files"]), render["seconds"]
    where = {"device": render["device"], "dtype": render["dtype"]}
    yield say("rendered", lang, files=files, seconds=seconds["total"], **where)
    yield "  " + ", ".join(f"{k} {v:.2f} s" for k, v in seconds.items() if k != "total")
    if not render["finite"]:
        yield say("black", lang, where=render["not_finite"][0])
    fit = render.get("measures", {}).get("positive")
    if fit:
        yield "  " + say("fits", lang, before=fit["input"], after=fit["output"])
    yield from (f"  {say('note', lang)}: {note}" for note in render["notes"])


def workflow_lines(done: Mapping[str, Any], lang: str) -> Iterator[str]:
    """How many nodes ran and where, and every file that came out."""
    seconds, where = done["seconds"], {"device": done["device"], "dtype": done["dtype"]}
    yield say("executed", lang, n=len(seconds) - 1, seconds=seconds["total"], **where)
    yield from (f"  {file}" for file in done["files"])
    if not done["finite"]:
        yield say("black", lang, where=done["not_finite"][0])
    yield from (f"  {say('note', lang)}: {note}" for note in done["notes"])


def bench_lines(bench: Mapping[str, Any], lang: str) -> Iterator[str]:
    """Steps a second, spread, and every doubt about the number."""
    typical, spread = bench["median"] * 1000, bench["spread"] * 1000
    rate, count = bench["steps_per_second"], len(bench["seconds"])
    yield say("rate", lang, rate=rate, ms=typical, spread=spread, n=count)
    if bench["share"] is not None:
        rates = {"share": bench["share"], "tera": bench["flops"] / bench["median"] / 1e12}
        yield say("share", lang, **rates, best=bench["ceiling"]["flops"] / 1e12)
    if bench.get("card"):
        yield say("card", lang, told=", ".join(card_words(bench["card"])))
    if "times_as_fast" in bench:
        yield say("faster", lang, times=bench["times_as_fast"])
    yield from (f"  {say('doubt', lang)}: {doubt}" for doubt in bench["doubts"])
    if "allocators" in bench:
        told = bench["allocators"]
        word = "without-malloc" if told["disable_cuda_malloc"] else "with-malloc"
        yield f"  {say(word, lang, because=told['because'])}"
    for cause in bench.get("causes", ()):
        yield f"  {say('cause', lang)}: {cause['because']} ({cause['id']})"


CARD = {  # what a card told of itself -> its unit
    "clock": " MHz", "power": " W", "temperature_most": " °C", "joules_a_step": " J/step",
}  # fmt: skip


def card_words(card: Mapping[str, Any]) -> Iterator[str]:
    for name, unit in CARD.items():
        if name in card:
            yield f"{card[name]:.4g}{unit}"
    yield from card.get("slowed", ())
