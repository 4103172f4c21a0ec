"""A hash follows the content, not the order in which its keys were put down."""

from semicl.files import short_hash


def test_it_differs_where_the_content_does() -> None:
    assert short_hash({"a": 1, "b": [2, 3]}) == short_hash({"b": [2, 3], "a": 1})
    assert short_hash({"a": 1, "b": [3, 2]}) != short_hash({"a": 1, "b": [2, 3]})
    assert len(short_hash("anything")) == 8
