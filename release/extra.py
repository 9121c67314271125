"""What an extra asks for, a line each: python release/extra.py docs"""

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

if __name__ == "__main__":
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    print(*project["optional-dependencies"][sys.argv[1]], sep="\n")
