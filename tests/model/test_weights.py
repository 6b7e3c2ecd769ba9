"""Weight files: damaged, foreign and dangerous ones are refused with a message that says which and why."""

import os
import pickle
import re

import pytest
import torch
from helpers.tiny_models import tiny_model
from safetensors.torch import save_file

from pyterrier_bertcat.errors import CheckpointError
from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.weights import build_and_fill, read_weights


@pytest.fixture(scope="module")
def weights():
    return dict(tiny_model().state_dict())


def fill(weights):
    return build_and_fill(lambda: BertCatModel(tiny_model().config), weights, source="a test")


def write(weights, folder, kind):
    if kind == "safetensors":
        path = folder / "model.safetensors"
        save_file(weights, path)
    else:
        path = folder / "pytorch_model.bin"
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    return path


@pytest.mark.parametrize("kind", ["safetensors", "zip", "before torch 1.6"])
def test_each_format_gives_the_same_weights(kind, weights, tmp_path):
    write(weights, tmp_path, kind)
    read = read_weights(tmp_path)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def test_half_precision_becomes_float32(weights, tmp_path):
    write({name: tensor.half() for name, tensor in weights.items()}, tmp_path, "safetensors")
    assert {tensor.dtype for tensor in read_weights(tmp_path).values()} == {torch.float32}


def test_safetensors_is_preferred(weights, tmp_path):
    write(weights, tmp_path, "safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    assert read_weights(tmp_path).keys() == weights.keys()


@pytest.mark.parametrize("kind", ["safetensors", "zip", "before torch 1.6"])
@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file_is_named(kind, kept, weights, tmp_path):
    path = write(weights, tmp_path, kind)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match=re.escape(path.name)) as caught:
        read_weights(tmp_path)
    assert "again" in str(caught.value)


@pytest.mark.parametrize("position", [0, 2, 3, 4, 28])
def test_a_byte_flipped_in_an_old_file_is_found_out(position, tmp_path):
    path = write({"weight": torch.zeros(2)}, tmp_path, "before torch 1.6")
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=re.escape(path.name)):
        read_weights(tmp_path)


def test_no_weights_at_all_says_which_files_are_expected(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors or pytorch_model\.bin"):
        read_weights(tmp_path)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(zipped, tmp_path):
    proof = tmp_path / "executed"
    bad = {"weight": Payload(proof)}
    if zipped:
        torch.save(bad, tmp_path / "pytorch_model.bin")
    else:
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(bad, protocol=2))
    with pytest.raises(CheckpointError, match="could run code"):
        read_weights(tmp_path)
    assert not proof.exists()
    pickle.loads(pickle.dumps(Payload(proof)))
    assert proof.exists(), "the payload would have worked"


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(2)}, torch.zeros(2)])
def test_a_file_that_is_no_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        read_weights(tmp_path)


def test_filling_restores_every_weight_and_constant(weights):
    reference, model = tiny_model("bert"), None
    model = build_and_fill(lambda: BertCatModel(reference.config), dict(reference.state_dict()), source="a test")
    assert not model.training
    for name, buffer in reference.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
    assert model.state_dict().keys() == reference.state_dict().keys()
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


def test_a_constant_that_is_not_known_here_is_still_right():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))
            self.register_buffer("scale", torch.tensor([3.0, 4.0]), persistent=False)

    model = build_and_fill(Odd, {"weight": torch.ones(2)}, source="a test")
    assert model.scale.tolist() == [3.0, 4.0]
    assert model.weight.tolist() == [1.0, 1.0]


def test_the_position_ids_of_old_files_are_dropped(weights):
    old = {**weights, "bert_model.embeddings.position_ids": torch.arange(512)[None]}
    assert fill(old).state_dict().keys() == weights.keys()


def test_a_missing_weight_is_named(weights):
    del (fewer := dict(weights))["_classification_layer.weight"]
    with pytest.raises(CheckpointError, match=r"missing \(1\): _classification_layer\.weight"):
        fill(fewer)


def test_an_unexpected_weight_is_named(weights):
    with pytest.raises(CheckpointError, match=r"unexpected \(1\): bert_model\.position_ids"):
        fill({**weights, "bert_model.position_ids": torch.zeros(1)})


def test_a_weight_of_another_shape_is_named_with_both_shapes(weights):
    with pytest.raises(CheckpointError, match=r"_classification_layer\.weight \(expected \(1, 32\), got \(2, 32\)\)"):
        fill({**weights, "_classification_layer.weight": torch.zeros(2, 32)})


def test_many_faults_are_counted_and_a_few_shown(weights):
    with pytest.raises(CheckpointError, match=r"missing \(38\): .* and 33 more") as caught:
        fill({})
    assert len(str(caught.value)) < 1000
