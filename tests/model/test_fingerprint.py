"""The fingerprint: every fact that can move a score moves it, no other does, and it is the same on all versions."""

import json

import pytest
import tokenizers
import torch
import transformers
from helpers.checkpoint_edits import edit_config
from helpers.tiny_models import tiny_model
from safetensors.torch import save_file

from pyterrier_bertcat.model.bert_cat import BertCatModel
from pyterrier_bertcat.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from pyterrier_bertcat.model.classifier import SequenceClassificationModel
from pyterrier_bertcat.model.config import read_config
from pyterrier_bertcat.model.fingerprint import configuration_facts

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "cat",
    "cafe",
    "CAFÉ",
    "##s",
    "na",
    "##ive",
    "3",
    ".",
    "14",
]
SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
ROBERTA_SPECIAL = {
    "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>",
    "unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>",
}  # fmt: skip
# As the hub's files have them, some with keys that a newer transformers no longer knows.
BERT = {
    "architectures": ["BertForSequenceClassification"], "model_type": "bert", "vocab_size": 15, "hidden_size": 8,
    "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 16, "hidden_act": "gelu",
    "attention_probs_dropout_prob": 0.1, "hidden_dropout_prob": 0.1, "classifier_dropout": None,
    "max_position_embeddings": 32, "type_vocab_size": 2, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
    "pad_token_id": 0, "use_cache": True, "position_embedding_type": "absolute", "gradient_checkpointing": False,
    "is_decoder": False, "torch_dtype": "float32", "transformers_version": "4.6.0.dev0", "tie_word_embeddings": True,
    "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0},
    "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0.dev0"},
}  # fmt: skip
DISTILBERT = {
    "architectures": ["DistilBertForSequenceClassification"], "model_type": "distilbert", "vocab_size": 15, "dim": 8,
    "n_layers": 2, "n_heads": 4, "hidden_dim": 16, "activation": "gelu", "dropout": 0.1, "attention_dropout": 0.1,
    "seq_classif_dropout": 0.2, "qa_dropout": 0.1, "max_position_embeddings": 32, "sinusoidal_pos_embds": False,
    "pad_token_id": 0, "initializer_range": 0.02, "tie_weights_": True, "id2label": {"0": "LABEL_0"},
    "label2id": {"LABEL_0": 0},
}  # fmt: skip
ELECTRA = {
    **BERT, "architectures": ["ElectraForSequenceClassification"], "model_type": "electra", "embedding_size": 4,
    "summary_activation": "gelu", "summary_type": "first", "summary_use_proj": True, "summary_last_dropout": 0.1,
}  # fmt: skip
ROBERTA = {
    **BERT, "architectures": ["RobertaForSequenceClassification"], "model_type": "roberta", "vocab_size": 24,
    "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 34,
}  # fmt: skip
PUBLISHED = {
    "architectures": ["BERT_Cat"], "bert_model": "distilbert-base-uncased", "model_type": "BERT_Cat",
    "transformers_version": "4.5.1",
}  # fmt: skip
CONFIGS = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "electra": ELECTRA,
    "roberta": ROBERTA,
    "xlm-roberta": {**ROBERTA, "architectures": ["XLMRobertaForSequenceClassification"], "model_type": "xlm-roberta"},
    "BERT_Cat": {**PUBLISHED, "encoder": DISTILBERT},
    "BERT_Cat over BERT": {**PUBLISHED, "bert_model": "bert-base-uncased", "encoder": BERT},
}
FROZEN = {  # on transformers 4.46.3 and 5.23; whoever changes one makes old pins, stores and jobs invalid
    "bert": "90c0d27c9200f9dc",
    "distilbert": "5c7189fe1f2011ea",
    "electra": "7c53b2eeb72475ec",
    "roberta": "73cf127ca99ab3bc",
    "xlm-roberta": "4178db3cfa75a2a6",
    "BERT_Cat": "6ab993c95f772f39",
    "BERT_Cat over BERT": "5f73bc2b69ff811d",
    "mini": "596716d8b3debc2a",
}


def write_wordpiece(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(SPECIAL))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, **SPECIAL}))


def write_byte_level(folder):
    """RoBERTa's kind of tokenizer; its mask takes the space before it."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "Ġ", *"abcdefghijklmnopt", "ca", "<mask>"]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({word: row for row, word in enumerate(words)}, [("c", "a")]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.add_special_tokens(words[:4])
    backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "RobertaTokenizer", **ROBERTA_SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_unigram(folder):
    """XLM-R's kind of tokenizer, whose normalizer transformers 5 does not take over in full."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁the", "▁cat", *"abcdefghijklmnop"]
    model = tokenizers.models.Unigram([(piece, -float(row) / 4) for row, piece in enumerate(pieces)], unk_id=3)
    backend = tokenizers.Tokenizer(model)
    tidy = tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), "▁")
    backend.normalizer = tokenizers.normalizers.Sequence([tokenizers.normalizers.Strip(left=False), tidy])
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    backend.add_special_tokens(pieces[:4])
    backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "XLMRobertaTokenizer", **ROBERTA_SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_checkpoint(folder, kind, **changes):
    """A checkpoint like those on the hub, whose weights are the same numbers on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIGS[kind], **changes}))
    {"roberta": write_byte_level, "xlm-roberta": write_unigram}.get(kind, write_wordpiece)(folder)
    config = read_config(folder)
    model = (BertCatModel if "BERT_Cat" in kind else SequenceClassificationModel)(config)
    weights = {
        name: ((torch.arange(tensor.numel()) + len(name)) % 17 - 8).reshape(tensor.shape) / 64
        for name, tensor in model.published_weights().items()
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def fingerprint(folder):
    return load_checkpoint(folder).fingerprint


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_has_one_fingerprint_on_every_version_of_transformers(kind, tmp_path):
    assert fingerprint(write_checkpoint(tmp_path, kind))[:16] == FROZEN[kind]


def test_the_packaged_checkpoint_has_one_too():
    assert load_checkpoint("mini").fingerprint[:16] == FROZEN["mini"]


@pytest.mark.parametrize("kind", CONFIGS)
def test_saving_and_loading_keeps_it(kind, tmp_path):
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "first", kind))
    again = load_checkpoint(save_checkpoint(checkpoint, tmp_path / "second"))
    assert again.fingerprint == checkpoint.fingerprint


def test_any_weight_moves_it(tokenizer):
    original = Checkpoint(model=tiny_model(), tokenizer=tokenizer).fingerprint
    assert len(original) == 64
    assert Checkpoint(model=tiny_model(), tokenizer=tokenizer, source="elsewhere").fingerprint == original
    for name in [*list(tiny_model().state_dict())[:4], *list(tiny_model().state_dict())[-3:]]:
        model = tiny_model()
        with torch.no_grad():
            model.get_parameter(name).view(-1)[-1] += 1e-3
        assert Checkpoint(model=model, tokenizer=tokenizer).fingerprint != original, name


# --- the configuration -----------------------------------------------------------------------------------------------

LOADABLE = [
    ("bert", {"num_attention_heads": 2}),
    ("bert", {"hidden_act": "relu"}),
    ("bert", {"layer_norm_eps": 1e-5}),
    ("bert", {"pad_token_id": 4}),
    ("bert", {"is_decoder": True}),
    ("distilbert", {"n_heads": 2}),
    ("distilbert", {"activation": "relu"}),
    ("electra", {"num_attention_heads": 2}),
    ("roberta", {"hidden_act": "relu"}),
    ("BERT_Cat", {"encoder": {**DISTILBERT, "n_heads": 2}}),
    ("BERT_Cat over BERT", {"encoder": {**BERT, "hidden_act": "relu"}}),
]


@pytest.mark.parametrize(("kind", "change"), LOADABLE)
def test_what_the_encoder_computes_moves_it(kind, change, tmp_path):
    folder = write_checkpoint(tmp_path, kind)
    before = fingerprint(folder)
    edit_config(folder, **change)
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type_vocab_size", 1),
        ("max_position_embeddings", 64),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("rope_theta", 10_000),
        ("a_key_of_tomorrow", {"window": [128, 64]}),
    ],
)
def test_a_key_that_nobody_declared_harmless_counts(name, value):
    config = transformers.BertConfig()
    before = configuration_facts(config)
    setattr(config, name, value)
    assert configuration_facts(config) == {**before, name: value}


@pytest.mark.parametrize(
    "change",
    [
        {"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0, "classifier_dropout": 0.3},
        {"initializer_range": 0.5, "gradient_checkpointing": True, "use_cache": False},
        {"architectures": ["Another"], "transformers_version": "9.9", "torch_dtype": "float16", "_name_or_path": "x/y"},
        {"id2label": {"0": "relevant"}, "label2id": {"relevant": 0}, "problem_type": "regression"},
        {"sentence_transformers": None, "sbert_ce_default_activation_function": "torch.nn.Sigmoid"},
        {"output_attentions": True, "tokenizer_class": "BertTokenizer", "max_length": 20, "top_k": 50, "num_beams": 1},
        {"position_embedding_type": None, "is_decoder": None, "pad_token_id": None, "classifier_dropout": None},
        {"known_scores": [{"query": "q", "text": "t", "score": 1.0}], "tie_word_embeddings": False},
    ],
)
def test_what_moves_no_score_leaves_it(change, tmp_path):
    folder = write_checkpoint(tmp_path, "bert")
    before = fingerprint(folder)
    edit_config(folder, **change)  # None: takes the key out, which then has its default
    assert fingerprint(folder) == before


def test_the_name_of_the_encoder_and_how_it_was_trained_leave_it(tmp_path):
    folder = write_checkpoint(tmp_path, "BERT_Cat")
    before = fingerprint(folder)
    edit_config(folder, bert_model="another/name", known_scores=[], trainable=False)
    assert fingerprint(folder) == before


def test_numbers_count_by_their_value():
    one, other = transformers.BertConfig(), transformers.BertConfig()
    one.rope_theta, other.rope_theta = 10_000, 10_000.0
    one.sizes, other.sizes = [1, 2], (1, 2)
    assert json.dumps(configuration_facts(one)) == json.dumps(configuration_facts(other))


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def edit_tokenizer(folder, change):
    """The folder's checkpoint, and the same one with a changed tokenizer."""
    before = load_checkpoint(folder)
    after = load_checkpoint(folder)
    change(after.tokenizer)
    return before, after


def lowercase_no_more(tokenizer):
    tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=False)


def keep_accents(tokenizer):
    tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(strip_accents=False)


def split_digits(tokenizer):
    split = [tokenizers.pre_tokenizers.BertPreTokenizer(), tokenizers.pre_tokenizers.Digits(individual_digits=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(split)


def other_template(tokenizer):
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.BertProcessing(("[MASK]", 4), ("[CLS]", 2))


def other_types(tokenizer):
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )


def cut_on_the_left(tokenizer):
    tokenizer.truncation_side = "left"


def give_up_on_long_words(tokenizer):
    tokenizer.backend_tokenizer.model.max_input_chars_per_word = 7


@pytest.mark.parametrize(
    "change",
    [
        lowercase_no_more,
        keep_accents,
        split_digits,
        other_template,
        other_types,
        cut_on_the_left,
        give_up_on_long_words,
    ],
)
def test_how_the_tokenizer_reads_moves_it(change, tmp_path):
    before, after = edit_tokenizer(write_checkpoint(tmp_path, "bert"), change)
    assert after.fingerprint != before.fingerprint


def test_two_words_that_change_places_move_it(tmp_path):
    folder = write_checkpoint(tmp_path, "bert")
    before = fingerprint(folder)
    swapped = [*WORDS[:5], WORDS[6], WORDS[5], *WORDS[7:]]
    (folder / "vocab.txt").write_text("\n".join(swapped) + "\n", encoding="utf-8")
    assert fingerprint(folder) != before


@pytest.mark.parametrize(
    ("kind", "old", "new"), [("xlm-roberta", "-1.25", "-1.5"), ("roberta", '"c"', '"a"')], ids=["scores", "merges"]
)
def test_how_words_are_cut_into_pieces_moves_it(kind, old, new, tmp_path):
    folder = write_checkpoint(tmp_path, kind)
    before = fingerprint(folder)
    path = folder / "tokenizer.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    part = "vocab" if kind == "xlm-roberta" else "merges"
    facts["model"][part] = json.loads(json.dumps(facts["model"][part]).replace(old, new, 1))
    if part == "merges":
        facts["model"]["vocab"]["aa"] = facts["model"]["vocab"].pop("ca")
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert fingerprint(folder) != before


def test_what_the_last_use_left_in_the_tokenizer_leaves_it(tmp_path):
    def use(tokenizer):
        tokenizer(["the cat"], ["cafe"], truncation=True, max_length=4, padding="max_length")

    before, after = edit_tokenizer(write_checkpoint(tmp_path, "bert"), use)
    assert after.fingerprint == before.fingerprint


def test_published_files_with_and_without_a_tokenizer_json_are_the_same(tmp_path):
    folder = write_checkpoint(tmp_path, "bert")
    before = load_checkpoint(folder)
    before.tokenizer.save_pretrained(str(folder))
    assert (folder / "tokenizer.json").is_file()
    assert fingerprint(folder) == before.fingerprint
