"""The page of a run: all of it in one file, escaped, and nothing loaded from anywhere."""

import base64
import dataclasses
import datetime
import html.parser
import io
import json
import re
import shutil
import subprocess

import jax
import numpy as np
import pytest
import small_run
from closeness import assert_close
from PIL import Image

import jaxbn
from train.commands import report
from train.commands.report import Report
from train.config import options
from train.config.sections import with_options
from train.data import Dataset, load
from train.host.errors import UsageError
from train.report import page
from train.report.norms import diagnose
from train.runs import invocations, restored
from train.training.plan import splits

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DATASET = Dataset(
    name="digits",
    source="drawn",
    train_inputs=small_run.images_of(small_run.DIGITS, 9),
    train_labels=np.zeros(9, np.int32),
    test_inputs=small_run.images_of(small_run.DIGITS, 30),
    test_labels=(np.arange(30) % 3).astype(np.int32),
    class_names=("a", "b", "c"),
)


class Page(html.parser.HTMLParser):
    """The content of a page: its elements with their attributes, and its text. Elements must be closed in order."""

    EMPTY = ("meta", "link", "img")

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def rows(self):
        """The cells of what stands in tables, joined by line."""
        return [re.sub(r"\s+", " ", line).strip() for line in self.text.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's network; its folder has a curves.png, whatever that shows."""
    folder = small_run.write(tmp_path_factory.mktemp("runs") / "run")
    Image.new("RGB", (90, 40), "#0072B2").save(folder / "curves.png")
    return restored.restore(folder, folder.parent)


@pytest.fixture(scope="module")
def written(run):
    """The page of the run."""
    path = page.write_report(run, DATASET)
    assert path == run.folder / "report.html"
    return path


def test_nothing_is_loaded_from_elsewhere(written):
    text = written.read_text(encoding="utf-8")
    found = Page(text)
    assert re.findall(r"(?:https?|ftp|file)://|url\(|@import", re.sub(r"base64,[^\"]*", "", text)) == []
    assert {tag for tag, _ in found.elements} & {
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "video",
    } == set()
    assert [each["href"] for each in found.of("link")] == ["data:,"]
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    (policy,) = (each["content"] for each in found.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_its_pictures_are_those_of_the_folder(run, written):
    sources = [each["src"] for each in Page(written.read_text(encoding="utf-8")).of("img")]
    for source, name in zip(sources, ("curves.png", "confusion.png", "mistakes.png"), strict=True):
        head, _, data = source.partition(",")
        assert head == "data:image/png;base64"
        content = base64.b64decode(data, validate=True)
        assert content == (run.folder / name).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            image.load()


def test_every_picture_has_a_text_instead(written):
    assert all(len(each["alt"]) > 20 for each in Page(written.read_text(encoding="utf-8")).of("img"))


def test_the_figures_are_those_of_the_network(run, written):
    variables = {"params": run.state.params, "batch_stats": run.state.batch_stats}
    logits = np.asarray(run.model.apply(variables, DATASET.test_inputs / np.float32(255), train=False), np.float64)
    right = int((logits.argmax(-1) == DATASET.test_labels).sum())
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(30), DATASET.test_labels]
    rows = Page(written.read_text(encoding="utf-8")).rows
    assert f"test accuracy{right / 30:.2%}: {right} of 30 right" in rows
    assert f"test loss{losses.mean():.4f} nats per example" in rows
    assert f"parameters{sum(leaf.size for leaf in jax.tree.leaves(run.state.params)):,}" in rows
    assert "steps7" in rows
    assert "time in training steps0.2 s" in rows
    assert "10.500075.00%0.250087.50%" in rows  # the epoch's record
    assert "conv1Conv10×10×3270" in rows
    assert "--norm-epsilon1e-05" in rows
    assert f"jax{jax.__version__}" in rows
    assert f"jaxbn{jaxbn.__version__}" in rows


def test_what_differs_from_the_default_is_marked(run):
    changed = {(option.section, option.name, option.value) for option in options.listed(run.config) if not option.usual}
    model = {("channels", "3 5"), ("hidden", "8"), ("norm-hidden", "off")}
    assert changed == {("data", "dataset", "digits"), *(("model", *option) for option in model)}


def test_the_norms_are_diagnosed_on_what_they_receive(run, written):
    """The first norm's input is what the first convolution gives; dead channels are counted."""
    params, stats = dict(run.state.params), run.state.batch_stats
    images = jax.numpy.asarray(DATASET.test_inputs)
    reports = diagnose(run.model, run.state, images)
    assert list(reports) == ["norm1", "norm2"]
    received = jax.lax.conv_general_dilated(
        images.astype(np.float32) / 255,
        params["conv1"]["kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    expected = jaxbn.diagnostics(
        jaxbn.BatchNormParams(**params["norm1"]),
        jaxbn.BatchNormState(**stats["norm1"], count=jax.numpy.zeros((), np.int32)),
        received,
        epsilon=1e-5,
    )
    for found, wanted in zip(reports["norm1"], expected, strict=True):
        assert_close(found, wanted, condition=50)
    norm2 = {**params["norm2"], "scale": params["norm2"]["scale"] * np.array([0, 1, 1, 0, 1])}
    dead = diagnose(run.model, run.state._replace(params={**params, "norm2": norm2}), images)["norm2"]
    np.testing.assert_array_equal(dead.dead, [True, False, False, True, False])
    gap = np.abs(np.asarray(expected.mean_gap)).max()
    assert any(row.startswith(f"norm13{gap:.2f} σ") for row in Page(written.read_text(encoding="utf-8")).rows)


def test_names_are_text_whatever_they_hold(tmp_path):
    evil = '<script>alert("&")</script>{{ 7 * 7 }}'
    folder = small_run.write(tmp_path / "a<b>&'{{ 7 * 7 }}")
    dataset = dataclasses.replace(DATASET, source=evil, note="<img src=x onerror=y>", class_names=(evil, "$", "\\frac"))
    path = page.write_report(restored.restore(folder, tmp_path), dataset)
    found = Page(path.read_text(encoding="utf-8"))
    assert found.of("script") == []
    assert len(found.of("img")) == 2  # there is no curves.png
    assert evil in found.text
    assert "<img src=x onerror=y>" in found.text
    assert "a<b>&'{{ 7 * 7 }}" in found.text
    assert "49" not in found.text.partition("Results")[0]


@pytest.mark.parametrize("placement", ["after", "none"])
def test_other_networks(placement, tmp_path):
    folder = small_run.write(tmp_path / "run", model=dataclasses.replace(small_run.CNN, norm_placement=placement))
    (folder / "metrics.jsonl").unlink()
    text = Page(page.write_report(restored.restore(folder, tmp_path), DATASET).read_text(encoding="utf-8")).text
    assert ("The network has no norms." in text) == (placement == "none")
    assert "No epoch was finished." in text


def test_the_validation_set_has_its_columns(tmp_path):
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 2.0, "test_accuracy": 0.25}
    held = {"validation_loss": 3.0, "validation_accuracy": 0.125}
    for extra, columns in ((held, 7), (dict.fromkeys(held), 5)):
        (tmp_path / "metrics.jsonl").write_text(json.dumps(record | extra) + "\n", encoding="utf-8")
        (row,) = page.epochs(tmp_path)
        assert len(row) == columns
        assert row.get("validation accuracy") == ("12.50%" if columns == 7 else None)


def test_a_line_that_was_never_finished_is_left_out(tmp_path):
    whole = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 2.0, "test_accuracy": 0.25}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(whole) + "\n" + json.dumps(whole)[:50], encoding="utf-8")
    assert page.epochs(tmp_path) == [
        {
            "epoch": "1",
            "train loss": "1.0000",
            "train accuracy": "50.00%",
            "test loss": "2.0000",
            "test accuracy": "25.00%",
        }
    ]


def test_the_validation_set_has_its_results(tmp_path):
    """The counts are those of the split that a run trains on; the results are those of the checkpoint's epoch."""
    folder = small_run.write(tmp_path / "run")
    run = restored.restore(folder, tmp_path)
    run = run._replace(config=with_options(run.config, validation=0.3))
    parts = splits(DATASET, 0.3)
    assert parts.validation is not None
    about = page.about(run, DATASET)
    assert about["training"] == f"{parts.train.labels.size} examples"
    assert about["validation"] == f"{parts.validation.labels.size} examples"
    record = {"train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 2.0, "test_accuracy": 0.25}
    held = [(1, 3, 0.75), (2, small_run.STEP, 0.5)]
    lines = [
        record | {"epoch": epoch, "step": step, "validation_loss": 1.25, "validation_accuracy": accuracy}
        for epoch, step, accuracy in held
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = page.results(run, DATASET, np.zeros((30, 3), np.float32))
    assert found["validation accuracy"] == "50.00%"
    assert found["validation loss"] == "1.2500 nats per example"
    assert found["best validation accuracy"] == "75.00%, after epoch 1"


def test_the_page_says_when_and_how_the_run_was_started(tmp_path):
    folder = small_run.write(tmp_path / "run")
    invocations.append(folder, ["dataset", "channels"])
    invocations.append(folder, ["keep-checkpoints"])
    run = restored.restore(folder, tmp_path)
    assert {option.name for option in page.listed(run) if not option.usual} == {
        "dataset",
        "channels",
        "keep-checkpoints",
    }
    rows = Page(page.write_report(run, DATASET).read_text(encoding="utf-8")).rows
    first, second = invocations.read(folder)
    assert f"started{first.time}" in rows
    assert f"resumed{second.time}" in rows
    assert datetime.datetime.fromisoformat(first.time).tzinfo is not None
    assert rows.count(f"command{first.command}") == 2
    assert f"git commit{first.commit or 'none: not run from a git checkout'}" in rows
    assert "seed0" in rows


@pytest.fixture(scope="module")
def iris(tmp_path_factory):
    """The folder of a run on the real iris."""
    card = load("iris").card
    return small_run.write(tmp_path_factory.mktemp("runs") / "iris", card, small_run.MLP)


def test_the_command(iris, capsys):
    report.report(Report(iris.relative_to(iris.parent), runs_dir=iris.parent))
    assert capsys.readouterr() == (f"{iris / 'report.html'}\n", "")
    assert {"confusion.png", "mistakes.png", "report.html"} <= {path.name for path in iris.iterdir()}
    assert {"test30 examples", "training120 examples", "validationnone"} <= {
        *Page((iris / "report.html").read_text("utf-8")).rows
    }


def test_data_that_the_run_did_not_learn_from(tmp_path):
    folder = small_run.write(tmp_path / "run", small_run.IRIS, small_run.MLP)
    with pytest.raises(UsageError, match=r"the data have changed since .*run was started: pass the same --data-dir"):
        report.report(Report(folder))
    assert not (folder / "report.html").exists()


def test_a_data_dir_for_data_that_has_none(iris, tmp_path):
    with pytest.raises(UsageError, match="iris is bundled with scikit-learn and reads no files"):
        report.report(Report(iris, data_dir=tmp_path))


def test_no_such_run(tmp_path):
    with pytest.raises(UsageError, match="there is no run nothing"):
        report.report(Report(tmp_path.relative_to(tmp_path) / "nothing", runs_dir=tmp_path))


# What the page tells of itself once it is loaded: its pictures, what was fetched, and what its policy forbade.
PROBE = """<script>
const forbidden = [];
addEventListener("securitypolicyviolation", event => forbidden.push(event.blockedURI));
addEventListener("load", () => setTimeout(() => {
  const found = {
    pictures: [...document.images].map(image => image.complete && image.naturalWidth),
    fetched: performance.getEntriesByType("resource").map(({name}) => name).filter(name => !name.startsWith("data:")),
    forbidden,
  };
  document.documentElement.dataset.found = JSON.stringify(found);
}, 0));
</script>"""


def browse(path, folder):
    """The page after it was loaded by a browser, and what the browser logged of it."""
    assert BROWSER is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options += ["--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={folder}"]
    command = [BROWSER, *options, "--virtual-time-budget=5000", "--dump-dom", path.as_uri()]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return finished.stdout, [line for line in finished.stderr.splitlines() if "CONSOLE" in line]


def probe(path, folder):
    """Measure the page in a browser, by a copy with one script."""
    text = path.read_text(encoding="utf-8").replace(
        "default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'"
    )
    copy = folder / "probed.html"
    copy.write_text(text.replace("<head>", "<head>" + PROBE), encoding="utf-8")
    page, console = browse(copy, folder / "profile")
    return json.loads(Page(page).of("html")[0]["data-found"]), console


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium, chromium-browser or google-chrome here")
def test_a_browser_shows_it(written, tmp_path):
    _, console = browse(written, tmp_path / "profile")
    assert console == []
    found, console = probe(written, tmp_path)
    assert console == []
    assert found == {"pictures": [90, 1350, 1350], "fetched": [], "forbidden": []}


@pytest.mark.skipif(BROWSER is None, reason="there is no chromium, chromium-browser or google-chrome here")
def test_a_browser_would_notice(written, tmp_path):
    """The test above can fail: a picture from elsewhere, and one that is none."""
    sabotaged = tmp_path / "sabotaged.html"
    extra = '<img src="http://127.0.0.1:9/x.png" alt=""><img src="data:image/png;base64,AAAA" alt="">'
    sabotaged.write_text(written.read_text(encoding="utf-8").replace("</body>", extra + "</body>"), encoding="utf-8")
    found, console = probe(sabotaged, tmp_path)
    assert found["pictures"] == [90, 1350, 1350, 0, 0]
    assert found["forbidden"] == ["http://127.0.0.1:9/x.png"]
    assert len(console) == 1
