"""The page of demo_app.py: asked as a program asks it, and read in a browser."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import demo_app
import numpy as np
import pytest
import soundfile

from recipe.data.audio import read_waveform
from recipe.errors import RecipeError
from recipe.inference.recognizer import Recognizer
from recipe.inference.segments import attention_of, segments
from sounds import SAMPLE_RATE, tone
from trained import write_trained

HOST = "127.0.0.1"
CARD = """---
tags:
- for-the-hub
---

# The card

![](http://picture.invalid/of-the-card.png)
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_trained(folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture(scope="module")
def url(model, tmp_path_factory):
    """The address of a page as its command starts it, behind a proxy; it takes 6 s at most, and leaves no file."""
    pytest.importorskip("gradio")
    temporary = tmp_path_factory.mktemp("temporary")
    process = subprocess.Popen(
        [sys.executable, demo_app.__file__, model, "--longest", "0.1"],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TMPDIR": str(temporary),
            "http_proxy": "http://127.0.0.1:9",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process.stdout.readline().split()[0]
    assert "talk.wav" in files_below(temporary)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert files_below(temporary) == set()


def files_below(folder):
    return {path.name for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def talk(tmp_path):
    dice = np.random.default_rng(0)
    sound = np.concatenate([tone(frequency, 1.5, noise=0.01, dice=dice) for frequency in (0, 440, 0)])
    soundfile.write(tmp_path / "talk.wav", sound, SAMPLE_RATE)
    return tmp_path / "talk.wav"


@pytest.fixture
def no_audio(tmp_path):
    (tmp_path / "text.wav").write_text("no audio")
    return tmp_path / "text.wav"


def client_of(url):
    return pytest.importorskip("gradio_client").Client(url, verbose=False)


def submit(client, path):
    return client.submit(pytest.importorskip("gradio_client").handle_file(path), 1280, api_name="/listen")


def table_of(answer):
    found = segments(answer)
    return [["seconds", "class", "probability", "attention"]] + [
        [f"{start:.2f}-{end:.2f}", label, f"{probability:.0%}", f"{weight:.0%}"]
        for (start, end, label, probability), weight in zip(found, attention_of(answer, found), strict=True)
    ]


def test_an_answer_is_the_recognizer_s(url, model, talk):
    answer = Recognizer(model)(talk)
    weights, found = attention_of(answer, segments(answer)), segments(answer)
    assert len(found) > 1
    heaviest = found[int(np.argmax(weights))]

    _, probabilities, picture, player, table = submit(client_of(url), talk).result()
    assert probabilities["label"] == answer.label
    shown = {entry["label"]: entry["confidence"] for entry in probabilities["confidences"]}
    assert shown == pytest.approx(answer.by_class, abs=1e-5)
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert rows[:1] + rows[2:] == table_of(answer)
    assert f"{heaviest.label}, {heaviest.start:.2f} to {heaviest.end:.2f} s, {max(weights):.0%}" in player["label"]
    sound, rate = soundfile.read(player["value"])
    expected = read_waveform(talk)[round(heaviest.start * SAMPLE_RATE) : round(heaviest.end * SAMPLE_RATE)]
    assert rate == SAMPLE_RATE
    np.testing.assert_allclose(sound, expected, atol=1e-4)


def test_two_at_once_and_one_with_a_file_that_is_none(url, model, talk, no_audio, tmp_path):
    soundfile.write(tmp_path / "other.wav", tone(700, 2, noise=0.05, dice=np.random.default_rng(1)), SAMPLE_RATE)
    jobs = [submit(client_of(url), path) for path in (talk, no_audio, tmp_path / "other.wav")]
    first, none, other = (job.result() for job in jobs)
    recognizer = Recognizer(model)
    for result, path in ((first, talk), (other, tmp_path / "other.wav")):
        shown = {entry["label"]: entry["confidence"] for entry in result[1]["confidences"]}
        assert shown == pytest.approx(recognizer(path).by_class, abs=1e-5)
    assert none[0]["value"] == (
        "This recording cannot be used: it is not audio, or its header is damaged. Try another one; WAV, FLAC, MP3 "
        "and Ogg can be read."
    )


def test_a_recording_that_is_too_long_is_refused_whatever_its_header_says(url, tmp_path):
    soundfile.write(tmp_path / "long.wav", tone(300, 7), SAMPLE_RATE)
    content = bytearray((tmp_path / "long.wav").read_bytes())
    content[40:44] = bytes(4)  # as one that was written to a pipe
    (tmp_path / "piped.wav").write_bytes(content)
    for name in ("long.wav", "piped.wav"):
        word = submit(client_of(url), tmp_path / name).result()[0]["value"]
        assert word.startswith("This recording is longer than 0.1 minutes")
        assert "predict.py" in word


def test_a_pooling_without_frames_has_probabilities_alone(talk, tmp_path, monkeypatch):
    module = pytest.importorskip("recipe.inference.page", exc_type=ModuleNotFoundError)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "kept"))
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    write_trained(tmp_path / "model", pooling="statistics")
    recognizer = Recognizer(tmp_path / "model")
    page = module.page(recognizer, "", 60)
    page.launch(prevent_thread_lock=True, quiet=True)
    results = submit(client_of(page.local_url), talk).result()
    page.close()
    assert results[1]["label"] == recognizer(talk).label
    assert results[2:] == ({"__type__": "update"},) * 3


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["demo_app.py", *map(str, arguments)])
    demo_app.main()


def test_a_port_that_is_taken(url, model, monkeypatch):
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "no_proxy"):
        monkeypatch.setenv(name, "")  # for what the page sets to be undone
    port = urlsplit(url).port
    with pytest.raises(RecipeError, match=f"--port: {port} is not free; choose another"):
        call(monkeypatch, model, "--port", port)


@pytest.mark.parametrize("option", [("--port", "0"), ("--port", "65536"), ("--longest", "0"), ("--longest", "nan")])
def test_an_option_that_cannot_be(option, model, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, model, *option)
    assert f"argument {option[0]}: invalid" in capsys.readouterr().err


def test_without_gradio_a_line_says_what_to_install(model, monkeypatch):
    monkeypatch.setattr(demo_app, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r'needs Gradio; run `pip install -e "\.\[demo\]"`'):
        call(monkeypatch, model)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # for root to start it too
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser(url, browser, model, talk, no_audio, width):
    answer = Recognizer(model)(talk)
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request))
    page.goto(url)
    page.get_by_role("heading", name="a system: angry, happy, sad").wait_for()

    page.locator("input[type=file]").set_input_files(talk)
    picture = page.get_by_alt_text("class probabilities over time")
    picture.wait_for()
    page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    assert page.get_by_test_id("label-output-value").inner_text() == answer.label
    text = page.locator("body").inner_text()
    for label, probability in answer.by_class.items():
        assert f"{label}\n{probability:.0%}" in text
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("tr").all()]
    assert rows == table_of(answer)
    assert "The segment that weighed most" in text
    assert page.evaluate("document.documentElement.scrollWidth") == width

    page.get_by_label("Clear").first.click()
    picture.wait_for(state="hidden")
    page.locator("input[type=file]").set_input_files(no_audio)
    page.get_by_text("This recording cannot be used: it is not audio").wait_for()
    assert not picture.is_visible()

    page.get_by_text("About this model").click()
    page.get_by_role("heading", name="The card").wait_for()
    assert "for-the-hub" not in page.locator("body").inner_text()
    outside = {request.url: request.failure for request in asked if urlsplit(request.url).hostname not in (None, HOST)}
    assert outside == {"http://picture.invalid/of-the-card.png": "csp"}  # refused by the page's own rule
    page.close()
