"""The figures of a benchmark (benchmark.py) as tables for the terminal."""

from bitwren.report.worker import OURS
from bitwren.terminal import aligned, byte_count, ruled


def format_benchmark(figures: dict) -> str:
    """Return the tables: latency and memory of each engine, throughput where it was measured, what was skipped."""
    parts = [_heading(figures), ruled(aligned(_latency_rows(figures), left=1))]
    throughput = _throughput_rows(figures)
    if len(throughput[0]) > 1:
        parts.append(f"pictures a second\n{ruled(aligned(throughput, left=1))}")
    parts += [f"skipped    {row['reason']}" for row in figures["skipped"]]
    return "\n\n".join(parts)


def _heading(figures: dict) -> str:
    model, made = figures["model"], figures["made_by"]
    shape = "x".join(map(str, model["input"]))
    processor = made["processor"]
    return (
        f"{model['file']}: {model['weights']:,} weights, pictures {shape}, "
        f"{model['multiplications']:,} multiplications for a picture\n"
        f"{processor['name'] or 'processor unknown'}, {processor['cores']} cores, {' '.join(processor['flags'])}"
    )


def _latency_rows(figures: dict) -> list[tuple[str, ...]]:
    threads = sorted({told["threads"] for row in figures["engines"] for told in row["latency"]})
    heads = [(f"{n} thr. ms", "quartiles", "x ours") for n in threads]
    rows = [("engine", *(word for head in heads for word in head), "memory", "model", "open ms", "top-1")]
    ours = {told["threads"]: told["median_s"] for row in figures["engines"] if row["engine"] == OURS and not row["avx2"]
            for told in row["latency"]}
    for row in figures["engines"]:
        cells = []
        latency = {told["threads"]: told for told in row["latency"]}
        for n in threads:
            if n not in latency:
                cells += ["-"] * 3
                continue
            first, third = latency[n]["quartiles_s"]
            median = latency[n]["median_s"]
            cells += [_ms(median), f"{_ms(first)}..{_ms(third)}", f"{median / ours[n]:.2f}" if n in ours else "-"]
        told = row["latency"][0]
        peak = "-" if told["peak_bytes"] is None else byte_count(told["peak_bytes"])
        top1 = f"{row['accuracy']['top1']:.1%}" if "accuracy" in row else "-"
        rows.append((row["label"], *cells, peak, byte_count(row["model_bytes"]), _ms(told["open_s"]), top1))
    return rows


def _throughput_rows(figures: dict) -> list[tuple[str, ...]]:
    cases = sorted({(told["threads"], told["batch"]) for row in figures["engines"] for told in row["throughput"]})
    rows = [("engine", *(f"{threads} thr. x{batch}" for threads, batch in cases))]
    for row in figures["engines"]:
        rates = {(told["threads"], told["batch"]): told["pictures_per_s"] for told in row["throughput"]}
        rows.append((row["label"], *(f"{rates[case]:,.1f}" if case in rates else "-" for case in cases)))
    return rows


def format_steps(steps: list[dict]) -> str:
    """Return the table of the runtime's plan: each step's layers, kernel, choice and time, and where the time goes."""
    parts = ("tables", "lookups", "spills", "finishing")
    rows = [("layers", "kernel", "choice", "MMAC", "ms", *parts)]
    for step in steps:
        times = (_ms(step["seconds"]), *(_ms(step[f"{part}_s"]) for part in parts))
        rows.append((step["layers"], step["kernel"], step["choice"], f"{step['macs'] / 1e6:.2f}", *times))
    total = sum(step["seconds"] for step in steps)
    sums = [sum(step[f"{part}_s"] for step in steps) for part in parts]
    macs = sum(step["macs"] for step in steps)
    rows.append(("all", "", "", f"{macs / 1e6:.2f}", _ms(total), *map(_ms, sums)))
    if total > 0:
        rows.append(("share", "", "", "", "100%", *(f"{part / total:.1%}" for part in sums)))
    return f"one thread, one picture at a time, measured as it runs\n{ruled(aligned(rows, left=3))}"


def _ms(seconds: float) -> str:
    """Return milliseconds with three figures that count."""
    ms = seconds * 1e3
    return f"{ms:.1f}" if ms >= 100 else f"{ms:.2f}" if ms >= 1 else f"{ms:.3f}"
