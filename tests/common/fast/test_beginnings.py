from common.fast.beginnings import Kind, common_beginning, kinds_of


def test_common_beginning():
    assert common_beginning([[1, 2, 3], [1, 2, 4], [1, 2]]) == [1, 2]
    assert common_beginning([[1, 2, 3]]) == [1, 2, 3] and common_beginning([[1], [2]]) == []


def test_kinds_part_where_texts_first_differ():
    """A text that is nothing but the common beginning is a kind of its own."""
    assert kinds_of([[1, 2, 3], [1, 5, 6], [1, 2, 4], [1]]) == [Kind([0, 2], [1, 2]), Kind([1], [1, 5, 6]), Kind([3], [1])]
    assert kinds_of([]) == []


def test_many_kinds_are_one():
    assert kinds_of([[1, token, 3] for token in range(9)]) == [Kind(list(range(9)), [1])]
