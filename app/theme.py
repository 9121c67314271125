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
/* A menu of many chips has its ring around all of it; the transparent one is seen where colours are forced. */
.wrap-inner input:focus-visible { outline-color: transparent !important; }
.wrap:has(> .wrap-inner input:focus-visible) { outline: 2px solid var(--color-accent); outline-offset: 1px; }
.dark input[type="range"] { --neutral-200: var(--neutral-600); }
.confidence-set { font-family: var(--font) !important; }
/* What went wrong is said in a message; the word "Error" would only cover what is below it. */
[data-testid="status-tracker"]:has(> .error) { display: none !important; }
.under-progress:has(.progress-text) > :not([data-testid="status-tracker"]) { visibility: hidden; }
footer .divider:last-child { display: none !important; }
footer .show-api { display: flex !important; }
.reading { max-width: 46rem; }
.narrow { align-self: flex-start; width: auto !important; }
@media (width <= 640px) {
  .low-on-phones :is(.upload-container:not(.icon-mode), .file-preview-holder) { height: 7rem !important; }
  .low-on-phones [data-testid="upload-icon"], .under-progress .progress-text, #tagline { display: none; }
}
.main.fillable { padding-inline: clamp(16px, 8vw - 16px, 32px) !important; }
"""
"""Where the keyboard is, is seen; and what of Gradio's looks would be in the way."""


def theme() -> gr.themes.Base:
    """Gradio's default theme with a contrast of 4.5 : 1 at least between text and what is behind it."""
    return gr.themes.Default(font=FONT).set(
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        block_label_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_color_focus="*primary_700",
        input_border_color_focus_dark="*primary_500",
        input_shadow_focus="none",
        input_shadow_focus_dark="none",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
        link_text_color_dark="*secondary_400",
        color_accent="*primary_700",
    )
