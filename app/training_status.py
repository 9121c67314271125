"""A training as a page shows it: what it is at, how much time is left, and how its pictures look by now."""

import base64
import html
from pathlib import Path

from app.progress_file import Progress, Stage
from app.training_folder import Job

STAGES = {
    "demo": "Make the demo scene",
    "scene": "Find the cameras",
    "rgb": "Fit Gaussians to the photos",
    "features": "Describe what the photos show",
    "language": "Give the Gaussians their words",
    "score": "Score on photos held back",
}
"""Stages in their order, for people."""

TIMED = ("demo", "rgb", "features", "language")
"""Stages whose pace tells when they end; the others are made of several pieces of work."""

TELLING = ("scene", "rgb")
"""Stages whose last message is worth reading when they are over."""

STYLE = """
ol { list-style: none; margin: 0.5rem 0 0; padding: 0; }
li { padding: 0.2rem 0 0.2rem 1.6rem; position: relative; }
li::before { content: "○"; position: absolute; left: 0.1rem; }
li.done::before { content: "✓"; color: var(--color-accent); }
li.now { font-weight: 600; }
li.now::before { content: "▶"; color: var(--color-accent); }
li small { display: block; font-weight: 400; font-size: 0.85em; opacity: 0.75; overflow-wrap: anywhere; }
progress { width: 100%; height: 0.5rem; display: block; margin: 0.2rem 0; appearance: none; border: 0;
  background: var(--border-color-primary); border-radius: 0.25rem; overflow: hidden; }
progress::-webkit-progress-bar { background: var(--border-color-primary); }
progress::-webkit-progress-value { background: var(--color-accent); }
progress::-moz-progress-bar { background: var(--color-accent); }
p { margin: 0; overflow-wrap: anywhere; }
figure { margin: 0; }
img { width: 100%; border-radius: var(--radius-sm); display: block; }
figcaption { display: flex; font-size: 0.85em; }
figcaption span { flex: 1; text-align: center; }
"""


def label(job: Job) -> str:
    """A training in one line of a list."""
    waits = "next in line" if job.turn <= 1 else f"{job.turn} go before it"
    return f"{job.name} ({waits if job.state == 'waiting' else job.state})"


def status_html(job: Job | None, progress: Progress) -> str:
    """State, stages and time left."""
    if job is None:
        return "<p>No training yet. Upload photos, or make the demo scene.</p>"
    record = job.record
    given = {"demo": "demo scene", "video": "a video"}.get(record.kind, f"{record.count} photos")
    head = f"<p><b>{html.escape(label(job))}</b>, {given}, preset {html.escape(record.preset)}</p>"
    said = "Ready to be shown in the Scene tab." if job.state == "finished" else job.sentence
    sentence = f"<p>{html.escape(said)}</p>" if said else ""
    known = {stage.name: stage for stage in progress.stages}
    present = progress.stages[-1].name if progress.stages and job.state != "finished" else ""
    rows = [
        _row(name, known.get(name), name == present, job) for name in STAGES if name != "demo" or record.kind == "demo"
    ]
    return f"{head}{sentence}<ol>{''.join(rows)}</ol>"


def _row(name: str, stage: Stage | None, present: bool, job: Job) -> str:
    title = STAGES[name]
    if stage is None or job.state == "waiting":
        return f"<li>{title}</li>"
    message = f"<small>{html.escape(stage.message)}</small>"
    if not present:
        return f'<li class="done">{title}{message if name in TELLING else ""}</li>'
    share = stage.done / max(stage.total, 1)
    bar = f'<progress max="1" value="{share:.3f}" aria-label="{title}"></progress>'
    left = ""
    if job.state == "running" and stage.seconds_left is not None and name in TIMED:
        left = f", {duration(stage.seconds_left)} left"
    return f'<li class="now">{title}: {share:.0%}{left}{bar}{message}</li>'


def duration(seconds: float) -> str:
    """About how long, for people."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {seconds / 3600:.1f} h"


def preview_html(path: Path) -> str:
    """The picture of `splat.preview`, in the page itself: files that change so often would fill the page's cache.

    Empty while there is none.
    """
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return ""
    words = "A view as rendered by now, on the left, and its photo, on the right"
    caption = "<figcaption><span>As rendered by now</span><span>Photo</span></figcaption>"
    return f'<figure><img alt="{words}" src="data:image/jpeg;base64,{data}">{caption}</figure>'
