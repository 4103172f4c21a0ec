"""What the site takes from outside this folder: README, changes, pictures of results. Other links there become text."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add them."""
    for source, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    for picture in sorted((ROOT / "benchmarks" / "results").rglob("*.png")):
        place = f"results/{picture.parent.name}-{picture.name}"
        files.append(File.generated(config, place, abs_src_path=str(picture)))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to where files are in the site."""
    places = {Path(file.abs_src_path).resolve(): file.src_uri for file in files if file.abs_src_path}
    folder = Path(page.file.abs_src_path or "").parent

    def moved(link: re.Match[str]) -> str:
        target = (folder / link[3]).resolve()
        if target in places:
            return f"{link[1]}[{link[2]}]({places[target]}{link[4] or ''})"
        if not target.exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {link[3]}, which is not there")
        return link[2]

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out the roles of docstrings: the name stands in code anyway."""
    return re.sub(r":(?:func|class|meth|mod):(?=\s*<code>)", "", html)
