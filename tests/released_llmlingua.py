"""llmlingua 0.2.2, to be held against: a random XLM-R of its kind, and its word probabilities."""

from pathlib import Path
from unittest import mock

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForTokenClassification

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def make_model(folder: Path, texts: list[str], *, layers: int, width: int, vocabulary: int = 4000) -> str:
    """Saves a token classifier with random weights and XLM-R's kind of tokenizer (unigram, NFKC, blanks); its folder.

    llmlingua knows its models by a part of their name, so the folder's has that part.
    """
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    names = {"bos": "<s>", "cls": "<s>", "pad": "<pad>", "eos": "</s>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{f"{name}_token": token for name, token in names.items()}
    )
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        max_position_embeddings=514,
        type_vocab_size=1,
        num_labels=2,
        initializer_range=0.2,  # scores far apart
        pad_token_id=fast.pad_token_id,
        bos_token_id=fast.bos_token_id,
        eos_token_id=fast.eos_token_id,
    )
    folder = folder / "xlm-roberta-large-random"
    XLMRobertaForTokenClassification(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


class Words:
    """Stands in for tiktoken's encoding, which llmlingua downloads and counts with: one token a word."""

    def encode(self, text: str) -> list[str]:
        return text.split() or [text]


def load_compressor(folder: str):
    """llmlingua's PromptCompressor on the CPU, without the network."""
    import tiktoken
    from llmlingua import PromptCompressor

    with mock.patch.object(tiktoken, "encoding_for_model", lambda name: Words()):
        return PromptCompressor(model_name=folder, device_map="cpu", use_llmlingua2=True)


def word_probabilities(compressor, text: str) -> tuple[list[str], list[float]]:
    """llmlingua's own words of a text and their probabilities, caught where it computes them."""
    found: list[float] = []
    method = "_PromptCompressor__token_prob_to_word_prob"
    original = getattr(compressor, method)

    def catch(token_probs, convert_mode="mean"):
        found.extend(result := original(token_probs, convert_mode=convert_mode))
        return result

    with mock.patch.object(compressor, method, catch):
        result = compressor.compress_prompt(text, rate=0.5, return_word_label=True, word_sep="\x00", label_sep="\x01")
    labelled = result["fn_labeled_original_prompt"].split("\x00")
    return [part.partition("\x01")[0] for part in labelled], [float(value) for value in found]
