from aimessage.crypto import labels


def test_no_label_is_another_ones() -> None:
    values = [getattr(labels, name) for name in labels.__all__]

    assert len(set(values)) == len(values)
