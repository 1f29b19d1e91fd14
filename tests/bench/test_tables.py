"""The report is written from samples alone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench import operations, plots, report, run, tables


def _sample(server: str, repeat: int, workload: str, **figures: Any) -> dict[str, Any]:
    return {
        "suite": "default",
        "server": server,
        "repeat": repeat,
        "workload": workload,
        **figures,
    }


def _result(cosine: float = 0.9999) -> dict[str, Any]:
    samples = []
    for repeat, (ours, theirs) in enumerate([(1000, 200), (900, 150)]):
        for server, rate, said in (("omnivec", ours, 0.9999), ("infinity", theirs, cosine)):
            verdict = {"cosine": said, "strays": 0, "floor": 0.999, "right": said >= 0.999}
            samples.append(_sample(server, repeat, "answers", **verdict))
            load = {"texts_per_second": float(rate), "bad": 0, "requests": 5}
            samples.append(_sample(server, repeat, "query-64", **load, generator_cores=0.1))
    titles = {"omnivec": True, "infinity": False}
    return {
        "date": "2026-01-02",
        "commit": "abc1234",
        "changed": False,
        "command": "python -m bench.run",
        "repeats": 2,
        "machine": {
            "processor": "P",
            "family": "F",
            "cores": 2,
            "flags": ["avx2"],
            "caches": {},
            "memory_gb": 1.0,
            "hypervisor": "KVM",
            "system": "Linux",
            "python": "3.11",
            "load_before": 0.0,
        },
        "ceiling_gflops": {"bfloat16": {"torch": 800.0}},
        "tokens": {},
        "left_out": {"sie": "why"},
        "servers": {
            name: {"title": name, "settings": "s", "ours": ours, "versions": {}, "commands": {}}
            for name, ours in titles.items()
        },
        "samples": samples,
    }


def test_a_row_has_medians_spreads_and_the_paired_ratio() -> None:
    line = _line(tables.section(_result(), "default"), "12 words, 64 connections")
    assert "950 (900 to 1,000)" in line
    assert "**175 (150 to 200)**" in line
    assert "**5.50 x** (5.00 to 6.00)" in line


def test_jobs_are_set_beside_those_of_the_sdks_server() -> None:
    result = _result()
    for one in result["samples"]:
        own = one["server"] == "omnivec"
        one |= {"suite": "jobs", "server": "omnivec-jobs" if own else "runpod-sdk"}
        if one["workload"] == "query-64":
            one |= {"workload": "runsync-1-32", "jobs_per_second": one["texts_per_second"]}
    told = {"settings": "s", "versions": {}, "commands": {}}
    result["servers"] = {
        "omnivec-jobs": {"title": "ours", "ours": True, **told},
        "runpod-sdk": {"title": "theirs", "ours": False, **told},
    }
    lines = tables.everything(result)
    line = _line(lines, "/runsync: 1 text of 12 words, 32 connections")
    assert "| jobs/s | 950 (900 to 1,000) |" in line
    assert "**5.50 x** (5.00 to 6.00)" in line
    assert not [one for one in lines if "1 connection |" in one]  # nobody was asked


def test_a_wrong_peer_is_void_and_nobody_is_measured_against_it() -> None:
    lines = tables.section(_result(cosine=0.9), "default")
    line = _line(lines, "12 words, 64 connections")
    assert "void: 175" in line
    assert line.endswith("| - |")
    assert "0.900000, void" in _line(lines, "lowest cosine")


def test_a_failed_request_voids_its_row() -> None:
    result = _result()
    result["samples"][-1]["bad"] = 3
    lines = tables.section(result, "default")
    assert "void: 175" in _line(lines, "12 words, 64 connections")
    assert "- infinity, query-64: 3 requests failed." in lines


def test_the_generators_share_is_of_all_cores() -> None:
    assert any("at most 5.0 % of the processor" in one for one in tables.everything(_result()))


@pytest.mark.parametrize(
    ("value", "wanted"), [(0.123, "0.12"), (9.996, "10.00"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_numbers_have_about_three_figures(value: float, wanted: str) -> None:
    assert tables.number(value) == wanted


def test_only_the_first_of_ours_is_set_against_peers() -> None:
    result = _result()
    result["servers"]["omnivec-int8"] = {**result["servers"]["omnivec"], "title": "int8"}
    for repeat in range(2):
        rate = {"texts_per_second": 5000.0, "bad": 0, "requests": 5}
        result["samples"].append(_sample("omnivec-int8", repeat, "query-64", **rate))
    line = _line(tables.section(result, "default"), "12 words, 64 connections")
    assert "5,000 (5,000 to 5,000)" in line
    assert "**5.50 x**" in line


def test_a_picture_has_its_rate_its_waits_and_its_processor_time() -> None:
    figures = {"texts_per_second": 40.0, "p50_ms": 24.0, "p99_ms": 31.0, "cpu_us": 46000.0}
    result = _result()
    result["samples"] = [
        {**_sample(server, 0, workload, **figures), "suite": "pictures"}
        for server in ("omnivec", "infinity")
        for workload in ("picture-32", "pictures-16")
    ]
    lines = tables.section(result, "pictures")
    assert "| pictures/s | 40.0" in _line(lines, "a picture, 32")
    assert "| ms | 31.0" in _line(lines, "p99 of a picture, 32")
    assert "| us | 46,000" in _line(lines, "processor time for each, with batches of 16")
    assert not any(line.startswith("| p50 of batches") for line in lines)


def test_flop_of_one_token_is_twice_its_weights() -> None:
    per_layer = 4 * 384**2 + 2 * 384 * 1536
    assert operations.flop("default", 1) == 2 * 6 * (per_layer + 2 * 384)


def test_qwen3s_layers_have_as_many_weights_as_qwen3() -> None:
    one = operations.flop("qwen3", 1) / 2
    layer = 1024 * (2048 + 1024 + 1024) + 2048 * 1024 + 3 * 1024 * 3072
    assert one == 27 * (layer + 2048) + 1024 * 2048


def test_a_run_fails_on_wrong_answers_and_never_on_a_time() -> None:
    fine = _sample("omnivec", 0, "query-1", bad=0, requests=1, p99_ms=1e9)
    wrong = _sample("omnivec", 0, "answers", right=False, cosine=0.5, strays=1)
    theirs = _sample("infinity", 0, "query-1", bad=2, requests=9)
    lost = _sample("omnivec", 0, "lost", why="ended with 1")
    assert list(run.mistakes([fine], strict=True)) == []
    assert len(list(run.mistakes([wrong, lost, fine], strict=False))) == 2
    assert list(run.mistakes([theirs], strict=False)) == []
    assert len(list(run.mistakes([theirs], strict=True))) == 1


def test_each_suite_comes_from_the_newest_result_that_has_it() -> None:
    old, new = _result(), _result()
    new["samples"] = [dict(one, suite="base") for one in new["samples"]]
    assert report.newest_by_suite([old, new]) == {"default": old, "base": new}


def test_plots_are_well_formed() -> None:
    drawn = plots.bars("a < b", "x", [("row & more", {"peer": 2.0, "other": 1.0})])
    curve = plots.lines("t", "x", "y", {"ours": [(1, 5), (1024, 9)]})
    single = plots.lines("t", "x", "y", {"ours": [(8, 5)]})
    for svg in (drawn, curve, single):
        assert ET.fromstring(svg).tag.endswith("svg")
    assert "a &lt; b" in drawn


def _line(lines: list[str], begins: str) -> str:
    return next(line for line in lines if line.startswith(f"| {begins}"))


def test_the_report_is_written_from_stored_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RESULTS", "PLOTS"):
        monkeypatch.setattr(report, name, tmp_path / name.lower())
    monkeypatch.setattr(report, "REPORT", tmp_path / "BENCHMARKS.md")
    result = _result()
    for x, rate in ((1, 100.0), (64, 900.0), (1024, 855.0)):
        point = _sample("omnivec", 0, "connections", x=x, texts_per_second=rate, bad=0)
        result["samples"].append({**point, "suite": "growth"})
    cost = _sample("omnivec", 0, "cost", cpu_us=95.0, texts_per_second=9000.0)
    result["samples"].append({**cost, "suite": "cost"})
    reply = _sample("omnivec", 0, "msgpack, float32", cpu_ms=1.5, mb=9.84)
    result["samples"].append({**reply, "suite": "replies"})
    for way, ms in (("8 frames", 100.0), ("all frames", 1050.0)):
        shown = _sample("omnivec", 0, f"a.mp4: {way}", ms=ms, frames=8)
        result["samples"].append({**shown, "suite": "videos"})
    for step, ms in (("decode", 2.0), ("inference", 38.0)):
        part = _sample("omnivec", 0, step, cpu_ms=ms)
        result["samples"].append({**part, "suite": "shares"})
    picture = _sample("omnivec", 0, "picture-32", cpu_us=44000.0)
    result["samples"].append({**picture, "suite": "pictures"})
    for x in (1.0, 2.0):
        turn = _sample(
            "omnivec", 0, "soak", x=x, of="mix", requests=5, bad=0, resident_mb=400.0, lag_ms=3.0
        )
        result["samples"].append({**turn, "suite": "soak"})
    assert report.store(result).name == "2026-01-02-abc1234.json"
    assert report.store(result).name == "2026-01-02-abc1234.2.json"
    written = (tmp_path / "BENCHMARKS.md").read_text()
    for said in (
        "From 64 on: at least 95 %",
        "one request, us: 95.0",
        "| msgpack, float32 | ms | 1.50 (1.50 to 1.50) | 9.84 |",
        "| a.mp4: all frames | ms | 1,050 (1,050 to 1,050) | 8 | 10.50 |",
        "| decode | ms | 2.00 (2.00 to 2.00) | 5 % |",
        "took 44.0 ms for each: 4.00 ms are HTTP",
        "10 requests of mix in turn, 0 failed; at most 400 MB",
        "What is not measured",
    ):
        assert said in written
    drawn = re.findall(r"\]\((.+\.svg)\)", written)
    assert {Path(one).name for one in drawn} == {
        "default-ratios.svg",
        "pictures-ratios.svg",
        "growth-connections.svg",
        "soak.svg",
    }
    assert all((tmp_path / one).exists() for one in drawn)
    assert not re.search(r"\n\n\n", written)


def test_the_memory_of_each_shape_is_told() -> None:
    told = {"weights_mb": 1191.6, "idle_mb": 1044.4, "loaded_mb": 1166.7, "peak_mb": 1871.3}
    sample = {"suite": "residents", "server": "omnivec", "repeat": 0, "workload": "0.6B", **told}
    lines = tables.section({**_result(), "samples": [sample]}, "residents")
    assert "| 0.6B | 1192 MB | 1044 MB | 1167 MB | 1871 MB |" in lines
