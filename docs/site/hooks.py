"""Hooks of mkdocs.yml: pages from files beside docs/ and from notebooks, and formulas as MathML.

On GitHub a page may link to any file of the repository. On the site those files become pages too, so that no such link
leaves it. A notebook becomes a page with the outputs that it was saved with: the plugin for them, mkdocs-jupyter, loads
scripts from servers. Browsers draw MathML by themselves, so that a formula needs no script.
"""

import html
import os.path
import re
from collections.abc import Iterator
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "SECURITY.md": "security.md",
    "README.md": "source/readme.md",
    "benchmarks/README.md": "benchmarks.md",
    "examples/recipe/README.md": "recipe/code.md",
    "tests/mutants.md": "mutants.md",
}
SOURCES = (".py", ".txt")  # that pages link to, and that become pages
ORIGINS = {page: ROOT / origin for origin, page in PAGES.items()}
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
NAME = re.compile(r"<code>([^<\s]{1,32}|--[^<]{1,30})</code>")  # which style.css keeps in one piece


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for page, origin in ORIGINS.items():
        files.append(File.generated(config, page, abs_src_path=str(origin)))
    for notebook in sorted(DOCS.glob("notebooks/*.ipynb")):
        for path, content in notebook_page(notebook):
            files.append(File.generated(config, path, content=content))
    linked = {
        target_of(link, file.src_uri)
        for file in files.documentation_pages()
        for link in LINK.findall(file.content_string)
        if link.endswith(SOURCES)
    }
    for source in sorted(linked):
        files.append(File.generated(config, site_path(source), content=source_page(source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def on_site(match: re.Match[str]) -> str:
        target = target_of(match[1], page.file.src_uri)
        if not target.is_file():  # something between brackets in code
            return match[1]
        return os.path.relpath(site_path(target), os.path.dirname(page.file.src_uri) or ".")

    return LINK.sub(on_site, markdown)


def on_page_content(html_text: str, **_: object) -> str:
    return FORMULA.sub(mathml, NAME.sub(r'<code class="name">\1</code>', html_text))


def target_of(link: str, page: str) -> Path:
    """What the link of a page of the site leads to in the repository."""
    origin = ORIGINS.get(page, DOCS / page)
    return Path(os.path.normpath(origin.parent / link))


def site_path(target: Path) -> str:
    """Where a file of the repository is on the site."""
    name = target.relative_to(ROOT).as_posix()
    if target.suffix in SOURCES:
        return f"source/{name}.md"
    if target.suffix == ".ipynb":
        return target.relative_to(DOCS).with_suffix(".md").as_posix()
    return PAGES.get(name, name.removeprefix("docs/"))


def source_page(source: Path) -> str:
    head = "---\nsearch: {exclude: true}\nhide: [navigation, toc]\n---\n"
    name = source.relative_to(ROOT).as_posix()
    return f"{head}# {name}\n\n~~~~python\n{source.read_text(encoding='utf-8')}~~~~\n"


def notebook_page(notebook: Path) -> Iterator[tuple[str, str | bytes]]:
    """A page, and the pictures that its code has drawn; each with its path on the site."""
    page, pictures = Path(site_path(notebook)), f"{notebook.stem}_files"
    names = {"unique_key": notebook.stem, "output_files_dir": pictures}
    markdown, found = MarkdownExporter().from_filename(str(notebook), resources=names)
    link = f'<a href="{notebook.name}" download>This page as a notebook</a>'
    yield page.as_posix(), f"{markdown.replace('![png](', '![What this code draws](')}\n\n{link}\n"
    for path, picture in found["outputs"].items():
        yield (page.parent / path).as_posix(), picture


def mathml(match: re.Match[str]) -> str:
    block = match[1] == "div"
    drawn = convert(html.unescape(match[2]), display="block" if block else "inline")
    # log T, which would read as logT
    return re.sub(r"(<mi>[a-z]{2,}</mi>)(?=<m(?:i|sub|row)>)", r'\1<mspace width="0.167em" />', drawn)
