from common.runs import data_hash, model_hash
from tests.conftest import make_model


def test_hashes_see_every_change():
    model = make_model()
    before = model_hash(model)
    model.h[1].mlp.c_fc.bias.data[3] += 1e-3
    assert model_hash(model) != before == model_hash(make_model())
    assert data_hash([{"a": 1, "b": 2}]) == data_hash([{"b": 2, "a": 1}]) != data_hash([{"a": 1, "b": 3}])
