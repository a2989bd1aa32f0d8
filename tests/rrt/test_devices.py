"""The choice of a device and of a number type (rrt/devices.py)."""

import pytest
import torch

from rrt import devices
from rrt.devices import choose_device, fastest_type, multiplication_rate
from rrt.errors import InputError

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


@pytest.mark.parametrize("gpu", [False, True])
def test_a_gpu_is_taken_where_there_is_one_and_none_is_named(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device() == choose_device("auto") == ("cuda" if gpu else "cpu")
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_refused_by_the_name_of_its_setting(monkeypatch):
    for wrong in ("tpu", "cpu:x", "meta", 5):
        with pytest.raises(InputError, match=f"--device={wrong!r}: expected cpu or cuda"):
            choose_device(wrong, "--device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="setting device='cuda:1': no GPU"):
        choose_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    "rates, taken",
    [((10, 10.9, 5), "float32"), ((10, 11.1, 5), "bfloat16"), ((10, 12, 13), "int8"), ((10, 0, 0), "float32")],
)
def test_exactness_is_given_up_only_for_what_it_is_worth(monkeypatch, rates, taken):
    known = dict(zip(TYPES.values(), rates))
    monkeypatch.setattr(devices, "multiplication_rate", lambda dtype, *_: known[dtype])
    assert fastest_type(TYPES, "cpu", (1, 1, 1), 1, worth=1.1) == taken


def test_a_type_that_is_many_times_slower_with_a_few_rows_is_not_tried_with_all(monkeypatch):
    measured = []

    def rate(dtype, device, shape, *_):
        measured.append((dtype, shape[0]))
        return {torch.float32: 10, torch.bfloat16: 2.4, torch.int8: 2.6}[dtype] * (
            1 if shape[0] <= 32 else 100 / shape[0]
        )

    monkeypatch.setattr(devices, "multiplication_rate", rate)
    assert fastest_type(TYPES, "cpu", (640, 8, 8), 1, worth=1.1) == "float32"
    assert [dtype for dtype, rows in measured if rows == 640] == [torch.float32, torch.int8]
    measured.clear()
    two = {name: TYPES[name] for name in ("float32", "bfloat16")}
    assert fastest_type(two, "cpu", (640, 8, 8), 1, worth=1.1) == "float32" and {rows for _, rows in measured} == {32}


def test_the_rate_of_multiplication_is_measured():
    for transposed in (False, True):
        assert multiplication_rate(torch.float32, "cpu", (64, 64, 64), 1, transposed) > 1e6
    assert multiplication_rate(torch.bool, "cpu", (8, 8, 8), 1) == 0


def test_a_product_that_would_take_long_is_not_made(monkeypatch):
    """As of a type that the processor only imitates."""
    made = []
    plain = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right: made.append(len(left)) or plain(left, right))
    monkeypatch.setattr(devices, "_LONG", 0.0)
    assert multiplication_rate(torch.float32, "cpu", (640, 64, 64), 3) > 1e5 and made == [32, 32]
    made.clear()
    monkeypatch.setattr(devices, "_LONG", 1e9)
    assert multiplication_rate(torch.float32, "cpu", (640, 64, 64), 3) > 1e5 and made == [32, 32, 640, 640, 640, 640]
