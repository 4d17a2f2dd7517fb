"""Every check, a session each: `nox` runs all of them, `nox -s lint types` two, and `nox -l` says what each one is.

A session whose Python is not on this machine is skipped, and nox says so.
"""

import zipfile
from pathlib import Path

import nox
from nox import Session
from packaging.requirements import Requirement

nox.needs_version = ">=2025.2.9"

PYPROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)  # those of the classifiers
REQUIREMENTS = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
LIBRARY = ("tests", "--ignore=tests/recipe", "--ignore=tests/integrations")
RECIPE = ("tests/recipe", "tests/integrations")


def only(extra: str, *names: str) -> list[str]:
    """Some requirements of an extra."""
    return [text for text in EXTRAS[extra] if Requirement(text).name in names]


def floors(*requirements: str) -> list[str]:
    """The oldest releases that are declared."""
    return [text.replace(">=", "==") for text in requirements]


def pytest(session: Session, *arguments: str) -> None:
    session.run("python", "-m", "pytest", *arguments, *session.posargs)


@nox.session
def lint(session: Session) -> None:
    """Ruff's rules and format."""
    session.install(*only("dev", "ruff"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: Session) -> None:
    """mypy and pyright, strict: the library, a user's code, and that no public type is unknown."""
    session.install("-e", ".", *only("dev", "mypy", "pyright"), *only("examples", "numpy"), *only("test", "pytest"))
    session.run("mypy")
    session.run("mypy", "tests/test_typed_example.py")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "framealign", "--ignoreexternal")


@nox.session(python=PYTHONS[0])
def oldest(session: Session) -> None:
    """The library's tests on the oldest Python, torch and einops that it declares."""
    session.install("-e", ".[examples]", *floors(*REQUIREMENTS, *only("examples", "torchaudio")), *only_testing())
    pytest(session, *LIBRARY, "src")


@nox.session(python=PYTHONS[-1])
def newest(session: Session) -> None:
    """The library's tests on the newest of everything; `--force-python 3.12` takes another Python."""
    session.install("--upgrade", "-e", ".[examples]", *only_testing())
    pytest(session, *LIBRARY, "src")


@nox.session(python=PYTHONS[0])
def recipe_oldest(session: Session) -> None:
    """The recipe's tests on the oldest of everything that it declares, transformers among it."""
    session.install("-e", ".", *floors(*REQUIREMENTS, *EXTRAS["examples"]), *only_testing())
    pytest(session, *RECIPE)


@nox.session(python=PYTHONS[1])
def recipe_newest(session: Session) -> None:
    """The tests of the recipe and of other frameworks on the newest of everything."""
    session.install("--upgrade", "-e", ".[test]")
    pytest(session, *RECIPE)


@nox.session
def coverage(session: Session) -> None:
    """The library's tests, and which branches of it they take."""
    session.install("-e", ".[examples]", *only("dev", "pytest-cov"), *only_testing())
    pytest(session, *LIBRARY, "--cov", "--cov-report=term-missing:skip-covered")


@nox.session
def wheel(session: Session) -> None:
    """What would be uploaded: built, checked, and the library's tests from the sdist against the installed wheel."""
    place = Path(session.create_tmp())
    session.install(*only("dev", "build", "twine"))
    session.run("python", "-m", "build", "--outdir", str(place))
    (built,), (archive,) = place.glob("*.whl"), place.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(built), str(archive))
    check_contents(session, built)
    session.install(f"{built}[examples]", *only_testing())
    session.run("python", "-m", "tarfile", "--extract", str(archive), str(place))
    sources = place / archive.name.removesuffix(".tar.gz")
    (sources / "src").rename(place / "src")  # so that nothing but the wheel can be imported
    session.chdir(sources)
    pytest(session, *LIBRARY, "--ignore=tests/test_links.py")  # of pages, which link to the sources


@nox.session
def docs(session: Session) -> None:
    """The pages as a site; a link that leads nowhere is an error."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", "--site-dir", session.create_tmp())


def only_testing() -> list[str]:
    return only("test", "hypothesis", "pytest", "pytest-xdist")


def check_contents(session: Session, wheel: Path) -> None:
    """The library, its licence and what says that it is typed, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    metadata = "-".join(wheel.name.split("-")[:2]) + ".dist-info/"
    strangers = [name for name in names if not name.startswith(("framealign/", metadata))]
    missing = {"framealign/py.typed", f"{metadata}licenses/LICENSE"} - set(names)
    if strangers or missing:
        session.error(f"the wheel holds {strangers}, and lacks {sorted(missing)}")
