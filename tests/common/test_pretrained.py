"""Checkpoint folders: the same numbers as transformers, read and written both ways, and clear words on bad ones."""

import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers  # loads its parts where they are used
from safetensors.torch import load_file, save_file, save_model

from common import pretrained
from common.fast.answering import continue_all
from common.gpt2 import GPT2
from common.lora import add_lora, lora_layers, merged_weights, save_adapter
from common.pretrained import CLASSROOM_FOLDER, PUBLIC, find_folder, load_pretrained, save_pretrained
from common.support.files import InputError
from common.tokenizer import Tokenizer
from tests.models import make_model

IDS = torch.tensor([[5, 200, 31, 31, 7, 90, 256, 0], [1, 2, 3, 4, 5, 6, 7, 8]])


def make_peer(**settings: object) -> "transformers.GPT2LMHeadModel":
    """A random model of transformers, with clearly different outputs for different inputs."""
    torch.manual_seed(1)
    config = transformers.GPT2Config(**{
        "vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 256,
        "eos_token_id": 256} | settings)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.5)
    return model


@pytest.fixture
def folder(tiny_model, tokenizer, tmp_path) -> Path:
    """A checkpoint that our code wrote."""
    save_pretrained(tiny_model, tokenizer, tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def peer() -> "transformers.GPT2LMHeadModel":
    return make_peer()


@pytest.fixture
def peer_folder(peer, tokenizer, tmp_path) -> Path:
    """A checkpoint that transformers wrote, tokenizer and all."""
    tokenizer.save(tmp_path, model_max_length=64)
    peer.save_pretrained(tmp_path / "theirs")
    transformers.GPT2Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def change_weights(folder: Path, change: Callable[[dict], object]) -> None:
    """Rewrite the weights after `change` altered the dict of tensors."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def change_config(folder: Path, **settings: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


def same_tensors(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


# --- the same numbers as transformers


@torch.no_grad()
def test_logits_are_those_of_transformers(peer, peer_folder):
    model, _ = load_pretrained(peer_folder)
    assert (model(IDS) - peer(IDS).logits).abs().max() <= 1e-4


@pytest.mark.parametrize("settings", [{"n_inner": 48}, {"layer_norm_epsilon": 1e-3}, {"n_layer": 1, "n_head": 1}],
                         ids=["inner width", "epsilon", "one layer and head"])
@torch.no_grad()
def test_unusual_sizes_are_read_from_the_config(settings, tokenizer, tmp_path):
    peer = make_peer(**settings)
    peer.save_pretrained(tmp_path)
    tokenizer.save(tmp_path, model_max_length=64)
    ours = load_pretrained(tmp_path)[0]
    assert (ours(IDS) - peer(IDS).logits).abs().max() <= 1e-4
    save_pretrained(ours, tokenizer, tmp_path / "again")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert (theirs(IDS).logits - peer(IDS).logits).abs().max() <= 1e-4


@pytest.mark.slow
def test_forty_greedy_tokens_are_those_of_transformers(peer, peer_folder):
    model, _ = load_pretrained(peer_folder)
    prompt = [10, 20, 30, 40, 50]
    theirs = peer.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, 5, dtype=torch.long), max_new_tokens=40,
                           do_sample=False, eos_token_id=None, pad_token_id=256)[0, 5:].tolist()
    [ours] = continue_all(model, [prompt], 40, eot_id=-1)
    assert len(theirs) == 40 and len(set(theirs)) > 10
    assert ours.ids == theirs


def test_transformers_loads_ours_completely_with_the_same_logits(tiny_model, folder):
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert theirs.config.eos_token_id == 256  # where their generation stops
    with torch.no_grad():
        assert (theirs.eval()(IDS).logits - tiny_model(IDS)).abs().max() <= 1e-4


def test_transformers_loads_our_tokenizer(folder, tokenizer):
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert (len(theirs), theirs.eos_token_id, theirs.model_max_length) == (257, 256, 64)
    assert theirs("Hello, été!")["input_ids"] == tokenizer.encode("Hello, été!")


# --- nothing changes on the way


def test_saving_and_loading_ours_is_exact(tiny_model, tokenizer, folder):
    again, same_tokenizer = load_pretrained(folder)
    assert again.config == tiny_model.config
    assert same_tensors(again.state_dict(), tiny_model.state_dict())
    assert (same_tokenizer.vocab_size, same_tokenizer.eot_id) == (tokenizer.vocab_size, tokenizer.eot_id)
    assert not again.training


def test_theirs_through_ours_and_back_is_exact(peer, peer_folder, tmp_path):
    save_pretrained(*load_pretrained(peer_folder), tmp_path / "back")
    assert same_tensors(load_file(tmp_path / "back" / "model.safetensors"), load_file(peer_folder / "model.safetensors"))
    assert same_tensors(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict(), peer.state_dict())


def test_ours_through_theirs_and_back_is_exact(tiny_model, folder, tmp_path):
    transformers.AutoModelForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "back")
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "back")
    assert same_tensors(load_pretrained(tmp_path / "back")[0].state_dict(), tiny_model.state_dict())


def test_saving_twice_gives_the_same_bytes(tiny_model, tokenizer, folder, tmp_path):
    save_pretrained(tiny_model, tokenizer, tmp_path / "twice")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes()


# --- variants of the files


def without_prefix(tensors: dict) -> None:
    for name in list(tensors):
        tensors[name.removeprefix("transformer.")] = tensors.pop(name)


def with_mask_buffers(tensors: dict) -> None:
    for layer in range(2):
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(64, 64).tril()[None, None]
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)


def with_equal_head(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()


def as_published(tensors: dict) -> None:
    with_mask_buffers(tensors)
    without_prefix(tensors)


def with_head_alone(tensors: dict) -> None:
    tensors["lm_head.weight"] = tensors.pop("transformer.wte.weight")


@pytest.mark.parametrize("change", [without_prefix, with_mask_buffers, with_equal_head, as_published, with_head_alone])
def test_variants_of_the_weights_file_are_read_alike(change, tiny_model, folder):
    before = load_file(folder / "model.safetensors").keys()
    change_weights(folder, change)
    assert load_file(folder / "model.safetensors").keys() != before
    assert same_tensors(load_pretrained(folder)[0].state_dict(), tiny_model.state_dict())


def test_what_safetensors_own_save_model_writes_is_read(peer, peer_folder):
    """Of tied weights it keeps one name, `lm_head.weight`."""
    save_model(peer, str(peer_folder / "model.safetensors"))
    assert "transformer.wte.weight" not in load_file(peer_folder / "model.safetensors")
    with torch.no_grad():
        assert (load_pretrained(peer_folder)[0](IDS) - peer(IDS).logits).abs().max() <= 1e-4


def test_rows_that_no_token_belongs_to_are_marked(tokenizer, tmp_path, tiny_model, folder):
    save_pretrained(make_model(vocab_size=260), tokenizer, tmp_path / "padded")
    model = load_pretrained(tmp_path / "padded")[0]
    assert model.without_token.nonzero().flatten().tolist() == [257, 258, 259]
    save_pretrained(model, tokenizer, tmp_path / "again")
    assert same_tensors(load_pretrained(tmp_path / "again")[0].state_dict(), make_model(vocab_size=260).state_dict())
    assert getattr(load_pretrained(folder)[0], "without_token", None) is None


@pytest.mark.slow
def test_a_config_with_the_six_needed_keys_is_enough(tiny_model, folder):
    config = json.loads((folder / "config.json").read_text())
    needed = ("model_type", "vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in needed}))
    assert same_tensors(load_pretrained(folder)[0].state_dict(), tiny_model.state_dict())


def test_weights_in_parts_are_read(peer, peer_folder):
    (peer_folder / "model.safetensors").unlink()
    peer.save_pretrained(peer_folder, max_shard_size="40KB")
    assert len(list(peer_folder.glob("model-*.safetensors"))) > 1
    assert not (peer_folder / "model.safetensors").exists()
    with torch.no_grad():
        assert (load_pretrained(peer_folder)[0](IDS) - peer(IDS).logits).abs().max() <= 1e-4


def test_a_folder_with_tokenizer_json_alone_is_read(peer_folder):
    assert (peer_folder / "tokenizer.json").exists() and not (peer_folder / "vocab.json").exists()
    _, tokenizer = load_pretrained(peer_folder)
    assert (tokenizer.vocab_size, tokenizer.eot_id, tokenizer.encode("hi")) == (257, 256, [104, 105])


def test_dropout_is_off_whatever_the_config_says(folder, tiny_model):
    change_config(folder, resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    model = load_pretrained(folder)[0].train()
    with torch.no_grad():
        assert torch.equal(model(IDS), tiny_model(IDS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_loaded_in_float32(dtype, tokenizer, tmp_path):
    save_pretrained(make_model().to(dtype), tokenizer, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    model = load_pretrained(tmp_path)[0]
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert same_tensors(model.state_dict(), make_model().to(dtype).float().state_dict())
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").dtype == dtype


def test_dtype_chooses_the_precision(folder, tiny_model):
    model = load_pretrained(folder, dtype=torch.bfloat16)[0]
    assert same_tensors(model.state_dict(), tiny_model.to(torch.bfloat16).state_dict())


# --- what is refused


def refusal(call: Callable[[], object]) -> str:
    """The message of the InputError that the call ends with, which must be one sentence."""
    with pytest.raises(InputError) as refused:
        call()
    message = str(refused.value)
    assert "\n" not in message and message.endswith("."), message
    assert not re.search(r"[.!?]\s+[A-Z]", message), message
    return message


def write_index(folder: Path, content: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def config(**settings: object) -> Callable[[Path], None]:
    return lambda folder: change_config(folder, **settings)


def weights(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, change)


def vocab(**changes: object) -> Callable[[Path], None]:
    """Change vocab.json."""
    def damage(folder: Path) -> None:
        path = folder / "vocab.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return damage


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


REFUSED = {
    "no config.json": (drop("config.json"), "config.json"),
    "config.json cut off": (lambda f: (f / "config.json").write_text('{"model_type": "gp'), "config.json"),
    "config.json is a list": (lambda f: (f / "config.json").write_text("[]"), "config.json"),
    "another kind of model": (config(model_type="bert"), "bert"),
    "no kind of model": (config(model_type=None), "model_type"),
    "another activation": (config(activation_function="relu"), "relu"),
    "exact GELU": (config(activation_function="gelu"), "gelu"),
    "untied head": (config(tie_word_embeddings=False), "tie_word_embeddings"),
    "attention scaled by layer": (config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
    "no layers": (config(n_layer=0), "n_layer"),
    "width that is no number": (config(n_embd="32"), "n_embd"),
    "width that heads do not divide": (config(n_head=5), "n_head"),
    "no weights": (drop("model.safetensors"), "model.safetensors"),
    "weights cut off": (cut, "model.safetensors"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors"),
    "a page as weights": (lambda f: (f / "model.safetensors").write_text("<!doctype html>" * 9), "model.safetensors"),
    "index without its parts": (lambda f: write_index(f, '{"weight_map": {"wte.weight": "model-1.safetensors"}}'),
                                "model-1.safetensors"),
    "index that is no index": (lambda f: write_index(f, "{}"), "model.safetensors.index.json"),
    "index cut off": (lambda f: write_index(f, '{"weight_'), "model.safetensors.index.json"),
    "missing tensor": (weights(lambda t: t.pop("transformer.h.1.ln_2.weight")), "h.1.ln_2.weight"),
    "unexpected tensor": (weights(lambda t: t.update(extra=torch.ones(2))), "extra"),
    "wrong shape": (weights(lambda t: t.update({"transformer.wpe.weight": torch.ones(63, 32)})), "(63, 32)"),
    "layers not transposed": (weights(lambda t: t.update({"transformer.h.0.mlp.c_fc.weight": torch.ones(128, 32)})), "c_fc"),
    "fewer layers than stored": (config(n_layer=1), "h.1."),
    "unequal head": (weights(lambda t: t.update({"lm_head.weight": t["transformer.wte.weight"] + 1})), "lm_head.weight"),
    "no finite weight": (weights(lambda t: t["transformer.ln_f.bias"].fill_(torch.nan)), "ln_f.bias holds"),
    "an infinite weight": (weights(lambda t: t["transformer.wpe.weight"].__setitem__((3, 5), torch.inf)), "wpe.weight holds"),
    "too large for float32": (weights(lambda t: t.update({"transformer.ln_f.bias": torch.ones(32).double() * 1e300})),
                              "ln_f.bias holds"),
    "a matrix of three dimensions": (weights(lambda t: t.update({"transformer.h.0.mlp.c_fc.weight": torch.ones(32, 128, 1)})),
                                     "(32, 128, 1)"),
    "epsilon that is no number": (config(layer_norm_epsilon=float("nan")), "layer_norm_epsilon = nan"),
    "epsilon that no float holds": (config(layer_norm_epsilon=10**400), "layer_norm_epsilon = 1000"),
    "epsilon that is a text": (config(layer_norm_epsilon="1e-5"), "layer_norm_epsilon = '1e-5'"),
    "layers without end": (config(n_layer=10**9), "n_layer = 1000000000"),
    "a width that overflows": (config(n_embd=10**19), "n_embd"),
    "a size that no memory holds": (config(n_embd=10**5, n_head=1), "this machine has"),
    "heads that are true": (config(n_head=True), "n_head = True"),
    "another type's setting": (config(scale_attn_weights=[]), "scale_attn_weights"),
    "a part elsewhere": (lambda f: write_index(f, '{"weight_map": {"a": "../model.safetensors"}}'), "'../model.safetensors'"),
    "an index of numbers": (lambda f: write_index(f, '{"weight_map": {"a": 1}}'), "not a text"),
    "deep nesting": (lambda f: (f / "config.json").write_text("[" * 100_000), "config.json"),
    "another encoding": (lambda f: (f / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-16"), "config.json"),
    "ids below 0": (vocab(a=-1), "from 0 up"), "an id twice": (vocab(a=5), "all different"),
    "ids that are texts": (vocab(a="5"), "vocab.json"), "ids that are missing": (vocab(a=None), "vocab.json"),
    "ids that are fractions": (vocab(a=5.5), "vocab.json"), "ids that are true": (vocab(a=True), "vocab.json"),
    "an id that is huge": (vocab(a=10**30), "do not belong together"),
    "other tools' settings": (lambda f: (f / "tokenizer_config.json").write_text("[1, 2"), "tokenizer_config.json"),
    "no tokenizer": (drop("vocab.json"), "tokenizer"),
    "a tokenizer larger than the model": (lambda f: Tokenizer.from_merges([(b"a", b"b")]).save(f, 64), "258"),
}


@pytest.mark.parametrize("damage, word", REFUSED.values(), ids=REFUSED)
def test_a_folder_that_is_not_a_whole_gpt2_is_refused(damage, word, folder):
    damage(folder)
    message = refusal(lambda: load_pretrained(folder))
    assert word in message
    assert str(folder) in message


def test_a_tokenizer_with_an_id_outside_the_model_is_refused(folder):
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps(vocab | {"<|endoftext|>": 300}))
    assert "tokenizer" in refusal(lambda: load_pretrained(folder))


@pytest.mark.parametrize("name", ["classroom", "gpt2", "smollm2"])
def test_a_folder_with_the_name_of_a_public_model_is_not_passed_over(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_pretrained(make_model(), Tokenizer.from_merges([]), name)
    assert f"write ./{name} for the folder" in refusal(lambda: find_folder(name))
    assert find_folder(f"./{name}") == Path(name)
    if name == "classroom":
        (tmp_path / "other" / name).mkdir(parents=True)  # holds no model
        monkeypatch.chdir(tmp_path / "other")
        assert find_folder(name) == CLASSROOM_FOLDER


@pytest.mark.parametrize("name", ["gpt2-medium", "openai-community/gpt2-medium"])
def test_the_hub_id_of_a_pinned_model_is_pinned_too(name, monkeypatch):
    """An adapter names its model by the hub id."""
    asked: list = []
    monkeypatch.setattr("common.pretrained.download", lambda name, pin, patterns: asked.append(pin) or Path("there"))
    assert find_folder(name) == Path("there") and asked == [PUBLIC["gpt2-medium"]]


@pytest.mark.parametrize("name", ["no-such-model", "./missing/folder", "/missing/folder", "a/b/c", "gpt3"])
def test_an_unknown_name_is_refused_with_the_names_that_are_known(name):
    message = refusal(lambda: find_folder(name))
    assert repr(name) in message
    for known in ("classroom", "gpt2-xl", "distilbert/distilgpt2", "folder"):
        assert known in message


def test_a_folder_with_pickled_weights_only_is_told_what_to_do(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refusal(lambda: load_pretrained(folder))
    assert "pytorch_model.bin" in message and "convert" in message


# --- after loading


def test_a_training_step_changes_every_parameter_and_not_the_file(folder):
    stored = (folder / "model.safetensors").read_bytes()
    model = load_pretrained(folder)[0].train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.randint(0, 257, (4, 64), generator=torch.Generator().manual_seed(0))  # all 64 positions
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), ids.roll(-1, 1).flatten()).backward()
    optimizer.step()
    assert len(before) == 28
    assert [name for name, p in model.named_parameters() if torch.equal(p, before[name])] == []
    assert (folder / "model.safetensors").read_bytes() == stored


def test_a_trained_model_saved_over_its_own_folder_is_read_back(folder, tokenizer):
    model = load_pretrained(folder)[0]
    with torch.no_grad():
        model.ln_f.bias.add_(1)
    save_pretrained(model, tokenizer, folder)
    assert same_tensors(load_pretrained(folder)[0].state_dict(), model.state_dict())


def test_weights_loaded_into_an_existing_model_keep_its_parameters(folder, tiny_model):
    """An optimizer holds them."""
    model = make_model()
    parameters = list(model.parameters())
    with torch.no_grad():
        for p in parameters:
            p.zero_()
    pretrained.load_weights(model, folder)
    assert all(p is q for p, q in zip(parameters, model.parameters()))
    assert same_tensors(model.state_dict(), tiny_model.state_dict())


# --- saving


def test_saving_writes_five_files_and_no_others(folder):
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "vocab.json", "merges.txt",
                                                        "tokenizer_config.json"}


def test_saving_makes_missing_parent_folders(tiny_model, tokenizer, tmp_path):
    save_pretrained(tiny_model, tokenizer, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "model.safetensors").exists()


def test_a_failure_while_writing_leaves_the_old_weights_and_no_rest(folder, tokenizer, monkeypatch):
    def write_half_and_fail(tensors: dict, path: Path, **_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model: GPT2 = make_model()
    with torch.no_grad():
        model.wte.weight.add_(1)
    monkeypatch.setattr(pretrained, "save_file", write_half_and_fail)
    with pytest.raises(OSError, match="No space left"):
        save_pretrained(model, tokenizer, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_whose_first_saving_failed_has_no_weights(tiny_model, tokenizer, tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pretrained, "save_file", fail)
    with pytest.raises(OSError):
        save_pretrained(tiny_model, tokenizer, tmp_path)
    assert "model.safetensors" in refusal(lambda: load_pretrained(tmp_path))


@pytest.mark.slow
def test_parity_at_the_shape_of_gpt2():
    """Random weights of its width, heads, vocabulary and context, in two of its twelve layers: logits, 40 greedy tokens, and
    the way back, all in one go as it is slow."""
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(n_layer=2)).eval()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        theirs.save_pretrained(first)
        gpt2 = Tokenizer.gpt2()
        gpt2.save(Path(first), 1024)
        ours, tokenizer = load_pretrained(first)
        assert tokenizer.same_as(gpt2)
        prompt = tokenizer.encode("The quick brown fox jumps over the lazy dog.")
        ids = torch.tensor([prompt])
        with torch.no_grad():
            assert (ours(ids) - theirs(ids).logits).abs().max() <= 1e-4
            expected = theirs.generate(ids, max_new_tokens=40, do_sample=False, pad_token_id=tokenizer.eot_id)[0, len(prompt):]
        [found] = continue_all(ours, [prompt], 40, tokenizer.eot_id)
        assert found.ids == expected.tolist() and len(found.ids) == 40

        save_pretrained(ours, gpt2, second)
        back, info = transformers.GPT2LMHeadModel.from_pretrained(second, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"]
        for (name, mine), (_, original) in zip(back.state_dict().items(), theirs.state_dict().items()):
            assert torch.equal(mine, original), name


# --- adapters of peft


def adapter(peer_folder: Path, to: Path, base: object = None, **settings: object) -> Callable[[torch.Tensor], torch.Tensor]:
    """Let peft adapt a model, change all updates, and save the adapter. Gives what computes its logits."""
    peft = pytest.importorskip("peft")
    torch.manual_seed(2)
    model = peft.get_peft_model(transformers.GPT2LMHeadModel.from_pretrained(peer_folder), peft.LoraConfig(**{
        "r": 4, "lora_alpha": 8, "target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True, "task_type": "CAUSAL_LM"}
        | settings))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(to)
    change_json(to / "adapter_config.json", base_model_name_or_path=str(base or peer_folder))
    return lambda ids: model.eval()(ids).logits


def change_json(path: Path, **settings: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"use_rslora": True}, {"r": 3, "rank_pattern": {"c_proj": 7}},
                                      {"target_modules": ["c_fc"], "layers_to_transform": [1]}], ids=str)
def test_an_adapter_folder_is_the_model_it_adapts_with_its_updates(settings, peer, peer_folder, tmp_path):
    theirs = adapter(peer_folder, tmp_path / "adapter", **settings)
    model, tokenizer = load_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        assert (model(IDS) - theirs(IDS)).abs().max() <= 1e-4 < (theirs(IDS) - peer(IDS).logits).abs().max()
    save_pretrained(model, tokenizer, tmp_path / "merged")
    assert same_tensors(load_pretrained(tmp_path / "merged")[0].state_dict(), model.state_dict())


def test_the_adapter_of_a_run_can_be_loaded_and_adapted_again(tiny_model, folder, tmp_path):
    add_lora(tiny_model, 2)
    with torch.no_grad():
        for layer in lora_layers(tiny_model).values():
            layer.B.normal_()
    save_adapter(tiny_model, str(folder), tmp_path / "one")
    first = load_pretrained(tmp_path / "one")[0]
    torch.testing.assert_close(first(IDS), tiny_model(IDS))
    save_adapter(tiny_model, str(tmp_path / "one"), tmp_path / "two")
    updates = merged_weights(tiny_model)["h.0.mlp.c_fc.weight"] - make_model().h[0].mlp.c_fc.weight
    twice = load_pretrained(tmp_path / "two")[0].h[0].mlp.c_fc.weight - first.h[0].mlp.c_fc.weight
    torch.testing.assert_close(twice, updates)


def also_model(folder: Path) -> None:
    save_pretrained(make_model(), Tokenizer.from_merges([]), folder)


def further_tensor(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors | {"base_model.model.lm_head.weight": torch.ones(257, 32)}, folder / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "damage", "words"), [
    ({"use_dora": True}, None, "use_dora = True"), ({"bias": "all"}, None, "bias = 'all'"),
    ({"modules_to_save": ["ln_f"]}, None, "modules_to_save = ['ln_f']"),
    ({"alpha_pattern": {"c_proj": 3}}, None, "alpha_pattern"), ({"target_modules": ["wte"]}, None, "no update of a block's"),
    ({"base": "no/such/base"}, None, "is an adapter of the model 'no/such/base', which cannot be found"),
    ({}, also_model, "two models could be meant"), ({}, further_tensor, "holds base_model.model.lm_head.weight"),
    ({}, drop("adapter_model.safetensors"), "no such file"),
    ({}, lambda f: change_json(f / "adapter_config.json", peft_type="IA3"), "peft_type = 'IA3'"),
    ({}, lambda f: change_json(f / "adapter_config.json", later_setting=3), "later_setting = 3"),
    ({}, lambda f: (f / "adapter_config.json").write_text("[]"), "not the adapter_config.json of a LoRA")])
def test_other_adapters_are_refused(settings, damage, words, peer_folder, tmp_path):
    adapter(peer_folder, tmp_path / "adapter", **settings)
    if damage:
        damage(tmp_path / "adapter")
    assert words in refusal(lambda: load_pretrained(tmp_path / "adapter"))


@pytest.mark.slow
def test_an_adapter_of_another_size_is_refused(peer_folder, tokenizer, tmp_path):
    adapter(peer_folder, tmp_path / "adapter", tmp_path / "base")
    save_pretrained(make_model(n_embd=16), tokenizer, tmp_path / "base")
    assert "they do not belong together" in refusal(lambda: load_pretrained(tmp_path / "adapter"))
