"""What can be told of a page's looks without eyes: names, overflow, contrast. Each function returns complaints."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page

OPERATED = {
    "button", "checkbox", "combobox", "link", "listbox", "menuitem", "option", "radio", "searchbox", "slider",
    "spinbutton", "switch", "tab", "textbox", "application",
}  # fmt: skip
"""Roles of what people operate."""

_OVERFLOWING = """() => {
  const width = document.documentElement.clientWidth;
  const found = [];
  if (document.documentElement.scrollWidth > width) found.push(`the page: ${document.documentElement.scrollWidth}`);
  for (const one of document.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect();
    if (!box.width || !box.height || (box.right <= width + 1 && box.left >= -1)) continue;
    if (!one.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    let scrolls = false;
    for (let up = one.parentElement; up; up = up.parentElement)
      if (up !== document.body && getComputedStyle(up).overflowX !== "visible") scrolls = true;
    if (!scrolls) found.push(`${one.tagName} ${one.className}: ${box.left} to ${box.right}`);
  }
  return found;
}"""

_CONTRAST = """least => {
  const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  function rgba(color) {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = color;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  }
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
  function luminance(color) {
    const [r, g, b] = color.map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  }
  function behind(one) {
    const layers = [];
    for (; one; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (style.backgroundImage !== "none") return null;
      layers.push(rgba(style.backgroundColor));
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  }
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const one = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || !one.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (one.closest("footer, svg, [disabled], [aria-hidden=true], script, style")) continue;
    const back = behind(one);
    if (!back) continue;
    let opacity = 1;
    for (let up = one; up; up = up.parentElement) opacity *= getComputedStyle(up).opacity;
    const color = rgba(getComputedStyle(one).color);
    color[3] *= opacity;
    const [light, dark] = [luminance(over(color, back)), luminance(back)].sort((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < least) found.add(`${contrast.toFixed(1)}: ${text.slice(0, 60)} (${one.tagName} ${one.className})`);
  }
  return [...found];
}"""


def overflowing(page: "Page") -> list[str]:
    """What is wider than the window, other than in boxes that scroll."""
    return list(page.evaluate(_OVERFLOWING))


def faint(page: "Page", least: float) -> list[str]:
    """Visible text whose contrast with what is behind it is under ``least`` (WCAG's ratio, 1..21)."""
    return list(page.evaluate(_CONTRAST, least))


def nameless(page: "Page") -> list[str]:
    """What people operate that the accessibility tree of the browser has no name for."""
    session = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        f"{node['role']['value']} {node.get('properties', [])[:1]} {node['nodeId']}"
        for node in nodes
        if not node.get("ignored")
        and node["role"]["value"] in OPERATED
        and not node.get("name", {}).get("value", "").strip()
    ]


_REACHED = """() => {
  const one = document.activeElement;
  if (one === document.body) return ["", true];
  const style = getComputedStyle(one);
  const ring = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  const name = one.getAttribute("aria-label") || one.labels?.[0]?.innerText || one.innerText || one.tagName;
  return [name.trim(), ring];
}"""


def reached(page: "Page") -> tuple[str, bool]:
    """The name of what has the keyboard ("" if nothing has), and whether it shows that."""
    name, ring = page.evaluate(_REACHED)
    return str(name), bool(ring)
