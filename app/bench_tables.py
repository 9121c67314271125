"""The speed table on a screen and in Markdown, from the numbers of `app.bench.measure`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

STAGES = {"rendering": "render", "decoding": "decode", "relevancy": "compare"}
"""Stages of a frame, as LangSplatV2's paper splits them, and what their columns are called."""

COLUMNS = ("ms", *STAGES.values(), "total", "× ours")

RATIOS = {
    "codes_over_rgb": ("codes", "rgb"),
    "dense_1536_over_codes": ("dense_1536", "codes"),
    "langsplat_over_ours": ("langsplat_query", "query"),
    "materialised_over_ours": ("materialised_query", "query"),
    "torch_over_ours": ("torch_training_step", "rgb_training_step"),
}
"""Whose median over whose, by the ratio's key; one is left out where a row is."""


@dataclass(frozen=True)
class Section:
    """Rows that do the same thing, ours last, which the others are compared with."""

    title: str
    labels: dict[str, str]
    staged: bool = True


def sections(config: Mapping[str, Any]) -> list[Section]:
    """The parts of the table, with a label for each row that there may be."""
    levels, atoms, dim = config["levels"], config["atoms"], config["dim"]
    why = {levels * atoms: f" = {levels} × {atoms} atoms", levels * dim: f" = {levels} × {dim}-D"}
    dense = {
        f"dense_{channels}": f"dense, {channels:,}{why.get(channels, ' channels')}" for channels in config["dense"]
    }
    return [
        Section(
            "splatting",
            {"rgb": "RGB, degree-3 harmonics"}
            | dense
            | {"codes": f"ours: codes, {levels} × {config['nonzeros']} of {levels} × {atoms}"},
        ),
        Section(
            "text query",
            {
                "langsplat_query": "LangSplat: 3-D latents, MLP",
                "materialised_query": f"LangSplatV2: codes, {levels} × {dim}-D",
                "query": "ours: relevancy in the splat",
            },
        ),
        Section(
            "RGB training step",
            {"torch_training_step": "torch, tile by tile", "rgb_training_step": "ours"},
            staged=False,
        ),
    ]


def digits(value: float) -> str:
    """About three of them: 0.012, 3.46, 33.1, 2,934."""
    places = 0 if value >= 99.5 else 1 if value >= 9.95 else 2 if value >= 0.0995 else 3
    return f"{value:,.{places}f}"


def rows(section: Section, result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Cells of the rows of a section that were measured."""
    ours = result["milliseconds"][list(section.labels)[-1]]
    found = []
    for name, label in section.labels.items():
        if name in result["stages"]:
            stages, total = result["stages"][name], result["milliseconds"][name]
            shown = stages if section.staged else {}
            parts = [digits(shown[stage]) if stage in shown else "" for stage in STAGES]
            found.append((label, *parts, digits(total), digits(total / ours)))
    return found


def title(result: Mapping[str, Any]) -> str:
    """What was measured on what, in one line."""
    config, machine = result["config"], result["machine"]
    where = machine["processor"]
    if config["device"] == "cpu":
        where = f"{machine['threads']} threads, {where} ({machine['isa']})"
    return f"{config['width']}×{config['height']}, {config['gaussians']:,} Gaussians, {where}, {result['date']}"


def facts(result: Mapping[str, Any]) -> list[str]:
    """Ratios, rows left out, and how far apart the two ways to the same relevancy are."""
    return [
        *(f"{name}: {result[name]:.2f}" for name in RATIOS if name in result),
        *(f"{name} left out: {reason}" for name, reason in result["skipped"].items()),
        f"relevancy differs from the materialised one by at most {result['largest_difference_from_materialised']:.0e}",
    ]


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """The table as a terminal shows it."""
    table = Table(title=title(result), title_justify="left", box=box.SIMPLE_HEAD)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "ms" else "right")
    for section in sections(result["config"]):
        table.add_section()
        table.add_row(f"[bold]{section.title}")
        for cells in rows(section, result):
            table.add_row(*cells)
    console.print(table)
    for fact in facts(result):
        console.print(fact, highlight=False, soft_wrap=True)


def markdown_table(result: Mapping[str, Any]) -> str:
    """The table as documentation shows it: a line before it, the facts after it."""
    lines = [f"{title(result)}; medians of {result['config']['repeats']} interleaved rounds.", ""]

    def add(*cells: str) -> None:
        lines.append("| " + " | ".join(cells) + " |")

    add(*COLUMNS)
    lines.append("|---" + "|--:" * (len(COLUMNS) - 1) + "|")
    for section in sections(result["config"]):
        add(f"**{section.title}**", *[""] * (len(COLUMNS) - 1))
        for cells in rows(section, result):
            add(*cells)
    return "\n".join([*lines, "", *(f"- {fact}" for fact in facts(result)), ""])
