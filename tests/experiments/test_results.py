import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from PIL import Image

from experiments.results import ResultsFolder


def test_a_table_is_documented_and_reads_back(tmp_path):
    table = pd.DataFrame({"b": [1.5, math.nan], "a": ["x", "ü"]})
    path = ResultsFolder(tmp_path / "deep" / "er").write_table("t", table, {"a": "a name", "b": "a length in m"})
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# a: a name\n# b: a length in m\na,b\n")
    pd.testing.assert_frame_equal(pd.read_csv(path, comment="#"), table[["a", "b"]])


def test_a_column_without_a_description_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"columns: described \['a'\], but the table has \['a', 'b'\]"):
        ResultsFolder(tmp_path).write_table("t", pd.DataFrame({"a": [1], "b": [2]}), {"a": "one"})
    assert list(tmp_path.iterdir()) == []


def test_a_summary_is_json_whatever_the_numbers(tmp_path):
    summary = {"x": math.inf, "y": np.float64("nan"), "n": np.int64(3), "t": (1, 2), "p": tmp_path, "u": "ü"}
    path = ResultsFolder(tmp_path).write_summary("s", summary)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "x": None,
        "y": None,
        "n": 3,
        "t": [1, 2],
        "p": str(tmp_path),
        "u": "ü",
    }


def test_a_picture_is_a_png_and_leaves_nothing_else(tmp_path):
    path = ResultsFolder(tmp_path).write_picture("p", Figure())
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.png"]


def test_an_animation_is_a_gif_at_its_own_speed_and_an_old_one_survives_a_failed_write(tmp_path):
    def draw_frame(frame):
        figure.suptitle(f"{frame} of {1 / (3 - frame):.1f}")  # the fourth cannot be drawn
        return []

    figure = Figure(figsize=(1, 1))
    folder = ResultsFolder(tmp_path)
    path = folder.write_animation("a", FuncAnimation(figure, draw_frame, frames=3, interval=500))
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.gif"]
    whole = path.read_bytes()
    with Image.open(path) as gif:
        assert (gif.format, gif.n_frames, gif.info["duration"]) == ("GIF", 3, 500)
    with pytest.raises(ZeroDivisionError):
        folder.write_animation("a", FuncAnimation(figure, draw_frame, frames=4, interval=500))
    assert path.read_bytes() == whole


def test_an_old_file_survives_a_failed_write(tmp_path):
    folder = ResultsFolder(tmp_path)
    path = folder.write_summary("s", {"a": 1})
    with pytest.raises(TypeError):
        folder.write_summary("s", {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_folder_that_cannot_be_written_ends_the_command_with_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match=r"out: cannot write to .*file/x.*; choose a writable folder"):
        ResultsFolder(tmp_path / "file" / "x")
