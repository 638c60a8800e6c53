"""The documentation says what the catalogue says, finds where an activation is flat, and builds without a warning."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from scipy.special import lambertw

from docs.generator import plots
from docs.generator.activation_page import counterparts, page
from docs.generator.curves import Curve, curve_of
from docs.generator.markdown import linked, moved
from docs.generator.saturation import Flatness, Interval, flatness, number, words
from docs.generator.writing import PROJECT_FILES, project
from torchact import catalogue
from torchact.diagnostics import Thresholds

ROOT = Path(__file__).parent.parent
FRACTION = Thresholds().saturated_slope
EVERYWHERE = Interval(-math.inf, math.inf)


def below(end, closed=False):
    return Interval(-math.inf, end, False, closed)


def above(end, closed=False):
    return Interval(end, math.inf, closed, False)


def logistic_end():
    """Return where σ'(x) = σ(x)(1 − σ(x)) is the fraction of its maximum ¼."""
    return math.log((1 + math.sqrt(1 - FRACTION)) / (1 - math.sqrt(1 - FRACTION)))


def gaussian_end(branch):
    """Return where 2x exp(−x²) is the fraction of its maximum √(2/e): −2x² = W(−fraction² / e)."""
    return math.sqrt(-lambertw(-(FRACTION**2) / math.e, branch).real / 2)


CLOSED_FORMS = {
    "sigmoid": Flatness((), (below(-logistic_end()), above(logistic_end())), ()),
    "tanh": Flatness((), (below(-logistic_end() / 2), above(logistic_end() / 2)), ()),
    "softsign": Flatness((), (below(1 - FRACTION**-0.5), above(FRACTION**-0.5 - 1)), ()),
    "elu": Flatness((), (below(math.log(FRACTION)),), ()),
    "gaussian": Flatness(
        (),
        (below(-gaussian_end(-1)), above(gaussian_end(-1))),
        (Interval(-gaussian_end(0), gaussian_end(0)),),
    ),
    "tanhshrink": Flatness((), (), (Interval(-math.atanh(math.sqrt(FRACTION)), math.atanh(math.sqrt(FRACTION))),)),
    "leaky_relu": Flatness((), (below(0.0, closed=True),), ()),
    "relu": Flatness((below(0.0, closed=True),), (), ()),
    "squared_relu": Flatness((below(0.0, closed=True),), (), ()),
    "hardtanh": Flatness((below(-1.0, closed=True), above(1.0, closed=True)), (), ()),
    "softshrink": Flatness((Interval(-0.5, 0.5, True, True),), (), ()),
    "binary_step": Flatness((EVERYWHERE,), (), ()),
    "identity": Flatness((), (), ()),
    "glu": Flatness((), (below(-logistic_end()), above(logistic_end())), ()),
    "softmax": Flatness((), (below(-logistic_end()), above(logistic_end())), ()),
}


@pytest.mark.parametrize("key", CLOSED_FORMS)
def test_flatness_is_that_of_the_closed_form(key):
    found, expected = flatness(curve_of(catalogue.get(key))), CLOSED_FORMS[key]
    for kind in ("dead", "saturated", "nearly_flat"):
        intervals, others = getattr(found, kind), getattr(expected, kind)
        assert len(intervals) == len(others), kind
        for interval, other in zip(intervals, others, strict=True):
            assert interval[:2] == pytest.approx(other[:2], rel=1e-7, abs=1e-9)
            assert interval[2:] == other[2:]


def test_every_flat_place_of_a_wave_is_found():
    found = flatness(curve_of(catalogue.get("sine"))).nearly_flat
    middles = torch.tensor([(interval.low + interval.high) / 2 for interval in found], dtype=torch.float64)
    turns = middles * 30 / math.pi - 0.5
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-6)
    assert len(found) == pytest.approx(2000 * 30 / math.pi, abs=1)
    width = torch.tensor([interval.high - interval.low for interval in found], dtype=torch.float64)
    torch.testing.assert_close(width, torch.full_like(width, 2 * math.asin(FRACTION) / 30), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("key", "saturates", "nearly_flat", "dead"),
    [
        ("sigmoid", "for x < −4.98 and x > 4.98", None, "never"),
        ("relu", "only where it is dead", None, "for x ≤ 0"),
        ("leaky_relu", "for x ≤ 0 (the slope is 0.01 there)", None, "never"),
        ("hardtanh", "only where it is dead", None, "for x ≤ −1 and x ≥ 1"),
        ("softshrink", "only where it is dead", None, "for −0.5 ≤ x ≤ 0.5"),
        ("hardswish", "only where it is dead", "for −1.62 < x < −1.38", "for x ≤ −3"),
        ("sine", "never", "around x = 0.0524 and again every 0.105", "never"),
        ("snake", "never", "around x = 2.36 and again every 3.14", "never"),
        ("squared_relu", "never: the derivative is unbounded", None, "for x ≤ 0"),
        ("binary_step", "only where it is dead", None, "for every x"),
        ("swiglu", "for g < −4.85", "for −1.43 < g < −1.15", "never"),
        ("identity", "never", None, "never"),
    ],
)
def test_the_words(key, saturates, nearly_flat, dead):
    curve = curve_of(catalogue.get(key))
    expected = {"saturates": saturates, "nearly flat": nearly_flat, "dead": dead}
    assert words(curve, flatness(curve)) == {kind: said for kind, said in expected.items() if said}


def curve_with(slope):
    return Curve(value=torch.zeros_like, slope=slope, kinks=(), steepest=1.0)


def test_a_tail_that_comes_back_far_outside_is_not_called_saturated():
    right = curve_with(lambda x: torch.where((x.abs() < 5) | (x > 5e5), 1.0, 1e-3))
    left = curve_with(lambda x: torch.where((x.abs() < 5) | (x < -5e5), 1.0, 1e-3))
    assert flatness(right) == Flatness((), (below(-5.0, closed=True),), ())
    assert flatness(left) == Flatness((), (above(5.0, closed=True),), ())


def test_at_a_jump_the_slope_there_decides_which_side_it_belongs_to():
    assert flatness(curve_with(lambda x: (x <= 0).double())) == Flatness((above(0.0),), (), ())
    assert flatness(curve_with(lambda x: (x < 0).double())) == Flatness((above(0.0, closed=True),), (), ())


def test_zeros_of_rounding_are_not_called_dead():
    curve = curve_with(lambda x: 1 - torch.sigmoid(x))  # exactly 0 from 37 on
    found = flatness(curve)
    assert not found.dead
    assert len(found.saturated) == 1


def test_flat_places_without_a_rhythm_are_counted():
    curve = curve_with(lambda x: torch.where(((x - torch.tensor([[1.0], [2], [4], [8]])).abs() < 0.1).any(0), 0.01, 1))
    assert words(curve, flatness(curve))["nearly flat"] == "around x = 1, and in 3 more places within ±1000"


@pytest.mark.parametrize(("value", "written"), [(-math.inf, "−∞"), (-0.25, "−0.25"), (4.98360, "4.98"), (0.0, "0")])
def test_numbers(value, written):
    assert number(value) == written


def test_a_page_says_what_the_catalogue_says(activation):
    curve = curve_of(activation)
    said = words(curve, flatness(curve))
    text = page(activation, curve, said)
    rows = dict(re.findall(r"^\* - (.+)\n  - (.+)$", text, flags=re.M))
    assert text.startswith(f"# {activation.name}\n")
    assert f"## Formula\n\n$$\n{activation.formula}\n$$" in text
    assert f"## Derivative\n\n$$\n{activation.derivative_formula}\n$$" in text
    assert rows["Range"] == "from {} to {}".format(*map(number, activation.range))
    assert rows["Saved for backward"] in (activation.saves, f"the {activation.saves}")
    assert {kind.capitalize(): where for kind, where in said.items()}.items() <= rows.items()
    assert rows["Source"] == linked(activation.source)
    assert (rows["In torch"] == "none") == (activation.torch_module is None and activation.torch_function is None)
    if activation.torch_module is not None:
        assert f"`torch.nn.{activation.torch_module.__name__}`" in rows["In torch"]
    for name in activation.aliases:
        assert name in text
    for name in activation.parameters:
        assert f"`{name}=" in rows["Usual parameters"]
    for theme in ("light", "dark"):
        assert f"{activation.key}-{theme}.svg" in text


@pytest.mark.parametrize(
    ("key", "links"),
    [
        ("sigmoid", "{py:func}`torch.sigmoid`, {py:class}`torch.nn.Sigmoid`"),
        ("logsigmoid", "{py:func}`torch.nn.functional.logsigmoid`, {py:class}`torch.nn.LogSigmoid`"),
        ("prelu", "{py:func}`torch.nn.functional.prelu`, {py:class}`torch.nn.PReLU`"),
        ("softmax2d", "{py:class}`torch.nn.Softmax2d`"),
        ("sine", "none"),
    ],
)
def test_torchs_counterparts(key, links):
    assert counterparts(catalogue.get(key)) == links


def test_papers_are_linked():
    source = "One, arXiv:1302.4389; another, doi:10.1007/3-540-49430-8_2"
    assert linked(source) == (
        "One, [arXiv:1302.4389](https://arxiv.org/abs/1302.4389); "
        "another, [doi:10.1007/3-540-49430-8_2](https://doi.org/10.1007/3-540-49430-8_2)"
    )


def test_the_links_of_the_projects_files_lead_somewhere():
    for name, text in project(ROOT).items():
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert link in PROJECT_FILES or (ROOT / "docs" / "project" / link).resolve().exists(), (name, link)
    assert moved("[a](https://b.org) [c](#d) [e](LICENSE)", ()) == "[a](https://b.org) [c](#d) [e](../../LICENSE)"
    assert moved("[f](README.md) ![g](docs/h.png)", PROJECT_FILES) == "[f](README.md) ![g](../h.png)"


def test_pictures_have_a_gap_and_a_dot_where_a_line_jumps():
    curve = curve_of(catalogue.get("relu"))
    upper, lower = plots.draw(curve, flatness(curve)).axes
    (no_dots, value, *_), (dots, slope, *_) = upper.lines, lower.lines
    assert not len(no_dots.get_xdata())
    assert not torch.isnan(torch.as_tensor(value.get_ydata())).any()
    assert (dots.get_xdata().tolist(), dots.get_ydata().tolist()) == ([0.0], [0.0])
    assert torch.as_tensor(slope.get_xdata())[torch.isnan(torch.as_tensor(slope.get_ydata()))].tolist() == [0.0]


def test_pictures_for_dark_pages_have_other_colours_and_nothing_else():
    curve = curve_of(catalogue.get("silu"))
    light, dark = plots.pictures(curve, flatness(curve)).values()
    assert [element.tag for element in ElementTree.fromstring(light).iter()] == [
        element.tag for element in ElementTree.fromstring(dark).iter()
    ]
    for colour in plots.LIGHT[1:6]:
        assert colour in light
        assert colour not in dark
    assert plots.pictures(curve, flatness(curve))["light"] == light


def test_waves_are_drawn_in_a_narrower_window():
    assert curve_of(catalogue.get("sigmoid")).window == (-6, 6)
    low, high = curve_of(catalogue.get("sine")).window
    assert 2 <= (high - low) * 30 / (2 * math.pi) <= 5  # periods


def build(docs, site):
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going", str(docs), str(site)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_the_site_builds_without_a_warning_and_is_read_without_a_network(tmp_path):
    generated = shutil.ignore_patterns("_build", "activations", "project", "__pycache__")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=generated)
    for name in PROJECT_FILES:
        shutil.copy(ROOT / name, tmp_path)
    result = build(tmp_path / "docs", tmp_path / "site")
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {f"activations/{key}.html" for key in catalogue.CATALOGUE} | {"activations/index.html"} <= pages.keys()
    for name, path in pages.items():
        html = path.read_text(encoding="utf-8")
        assert not re.search(r'<(script|link|img)[^>]+(src|href)="(https?:)?//', html), name
        assert not name.startswith("activations/") or "<math" in html, name


def test_a_formula_that_cannot_be_read_is_a_warning(tmp_path):
    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "extensions, html_math_renderer = ['docs.generator.mathml'], 'mathml'\n"
    )
    (tmp_path / "index.rst").write_text("Title\n=====\n\n.. math:: \\frac{1\n")
    result = build(tmp_path, tmp_path / "site")
    assert result.returncode != 0
    assert r"no MathML for \frac{1" in result.stderr
