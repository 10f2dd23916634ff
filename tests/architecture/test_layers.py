"""The picture of layers shows the imports as they are."""

from graphlib import CycleError

import pytest

from tests.architecture.layers import PICTURE, direct, drawn, floors, rooms


def test_the_picture_shows_todays_imports() -> None:
    assert PICTURE.read_text("utf-8") == drawn(), "run: make layers"


def test_every_import_points_to_a_lower_floor() -> None:
    graph = rooms()
    level = {room: number for number, floor in enumerate(floors(graph)) for room in floor}
    assert level["chassis"] == 0
    assert all(level[below] < level[room] for room in graph for below in graph[room])


def test_a_circle_is_an_error() -> None:
    with pytest.raises(CycleError):
        floors({"a": {"b"}, "b": {"a"}})


def test_an_arrow_that_a_longer_path_replaces_is_not_drawn() -> None:
    assert direct({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == [("a", "b"), ("b", "c")]
