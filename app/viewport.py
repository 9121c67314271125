"""The viewport of the Scene tab: a picture of the scene that is turned with the mouse, the keyboard or fingers.

Its script (`viewport.js`) sends gestures to the frame route (`app.frame_route`) and shows what comes back. While the
camera moves, frames are small: 480 pixels wide, or less where that takes longer than an eighth of a second; what is
looked for is splatted even smaller (`app.frames.QUICK`). One request is under way at a time and carries all that
happened since the last. Once the camera rests, the full picture is drawn. A frame that does not come is asked for again
after a while, seldom if it goes on; only a visit that is over ends the page.
"""

from importlib.resources import files
from typing import Any

import gradio as gr

from app.visits import Visit


def viewport() -> gr.HTML:
    """The component. Its value is what `shown` gives; its event ``pick`` has the clicked place as shares x, y."""
    folder = files("app")
    html, style, script = (
        folder.joinpath(f"viewport.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return gr.HTML(
        value={},
        html_template=html,
        css_template=style,
        js_on_load=script,
        elem_id="viewport",
        label="Scene",
        apply_default_css=False,
    )


def shown(visit: Visit | None, message: str = "") -> dict[str, Any]:
    """The viewport's value: the page's token, so that it draws again; or a message instead of a picture."""
    if visit is None:
        return {"token": "", "message": message}
    return {"token": visit.token, "version": next(visit.versions), "message": message}
