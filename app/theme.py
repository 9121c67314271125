"""How the page looks: Gradio's own theme, with letters that are all there and colours that everybody can read."""

import gradio as gr

FONT: list[gr.themes.Font | str] = [
    # Not Gradio's semi-bold file, which lacks most letters.
    gr.themes.LocalFont("Source Sans Pro", weights=(400, 700)),
    "ui-sans-serif",
    "system-ui",
    "sans-serif",
]

CSS = """
.dark { --color-accent: var(--primary-500); }
input:focus-visible, textarea:focus-visible, button:focus-visible {
  outline: 2px solid var(--color-accent) !important;
  outline-offset: 1px;
}
"""
"""Where the keyboard is, is seen."""


def theme() -> gr.themes.Base:
    """Gradio's default theme with a contrast of 4.5 : 1 at least between text and what is behind it."""
    return gr.themes.Default(font=FONT).set(
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        link_text_color_dark="*secondary_400",
        color_accent="*primary_700",
    )
