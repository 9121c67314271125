"""Results as tables on stdout."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

import encoders


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """The scores as tables a person reads."""
    console = Console()
    rows = metrics.get("per_query") or []
    if rows:
        table = Table(title="Queries in labelled views", title_justify="left")
        table.add_column("query")
        for name in ("IoU", "located", "level"):
            table.add_column(name, justify="right")
        for row in rows:
            located = f"{row['hit_rate']:.0%} {'✓' if row['hit'] else '✗'}"
            table.add_row(row["query"], f"{row['iou']:.3f}", located, encoders.LEVELS[row["level"]])
        table.add_section()
        table.add_row("mean", f"{metrics['miou']:.3f}", f"{metrics['localization_accuracy']:.0%}", "")
        console.print(table)
    facts = []
    if "psnr" in metrics:
        facts.append(f"PSNR {metrics['psnr']:.2f} dB, SSIM {metrics['ssim']:.3f} on held-out views")
    if "gaussians" in metrics:
        facts.append(f"{metrics['gaussians']:,} Gaussians")
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in metrics["seconds"].items() if name != "query")
    facts.append(stages)
    if "query" in metrics["seconds"]:
        facts.append(f"{metrics['seconds']['query'] * 1000:.0f} ms per query")
    facts.append(f"peak memory {metrics['peak_rss_mb']:,.0f} MiB")
    for fact in filter(None, facts):
        console.print(fact, highlight=False)


def print_answers(answer: Mapping[str, Any]) -> None:
    """One line per phrase: where it was looked for, how sure the answer is, where it is."""
    table = Table()
    for name in ("text", "view", "level"):
        table.add_column(name)
    for name in ("sure", "point", "box", "pixels"):
        table.add_column(name, justify="right")
    for result in answer["results"]:
        point = ", ".join(map(str, result["point"]))
        box = ", ".join(map(str, result["box"])) if result["box"] else "nothing selected"
        cells = (result["phrase"], result["view"], result["level_name"], f"{result['confidence']:.2f}")
        table.add_row(*cells, point, box, f"{result['pixels']:,}")
    console = Console()
    console.print(table)
    for result in answer["results"]:
        if "files" in result:
            console.print(f"{result['phrase']}: {result['files']}", highlight=False, markup=False, soft_wrap=True)
