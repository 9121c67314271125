"""Lets documentation pages link to files of the repository that are not pages: the site gets copies of them."""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTSIDE = re.compile(r"\]\((\.\./[^)#]+)\)")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files, **_: Any) -> str:
    """Let links that leave `docs/` lead to the site's copies. mkdocs calls this for every page."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, link[1]))
        source = Path(config.docs_dir).parent / target
        if target.startswith("docs/") or not source.is_file():
            return link[0]  # a page of its own, or a mistake that mkdocs will report
        copy = f"repository/{target}"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, abs_src_path=str(source)))
        return f"]({posixpath.relpath(copy, folder or '.')})"

    return OUTSIDE.sub(inside, markdown)
