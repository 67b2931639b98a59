"""Configuration of an OpenELM model for Hugging Face transformers.

Every layer has widths of its own: `num_query_heads`, `num_kv_heads` and `ffn_multipliers` are lists with one entry a layer.
"""

from transformers import PretrainedConfig


def make_divisible(value, divisor):
    """The multiple of `divisor` nearest to `value`, at least one and never more than a tenth below it."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


class OpenELMConfig(PretrainedConfig):
    model_type = "openelm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "hidden_size": "model_dim",
        "num_hidden_layers": "num_transformer_layers",
        "max_position_embeddings": "max_context_length",
    }

    def __init__(
        self,
        vocab_size=32000,
        max_context_length=2048,
        num_transformer_layers=16,
        model_dim=1280,
        head_dim=64,
        num_gqa_groups=4,
        num_query_heads=None,
        num_kv_heads=None,
        qkv_multipliers=(0.5, 1.0),
        ffn_multipliers=(0.5, 4.0),
        ffn_dim_divisor=256,
        ffn_with_glu=True,
        normalize_qk_projections=True,
        share_input_output_layers=True,
        rope_freq_constant=10000,
        rope_max_length=4096,
        initializer_range=0.02,
        use_cache=True,
        bos_token_id=1,
        eos_token_id=2,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.max_context_length = max_context_length
        self.num_transformer_layers = num_transformer_layers
        self.model_dim = model_dim
        self.head_dim = head_dim
        self.num_gqa_groups = num_gqa_groups
        self.qkv_multipliers = list(qkv_multipliers)
        self.ffn_multipliers = self._per_layer(ffn_multipliers)
        self.ffn_dim_divisor = ffn_dim_divisor
        self.ffn_with_glu = ffn_with_glu
        self.normalize_qk_projections = normalize_qk_projections
        self.share_input_output_layers = share_input_output_layers
        self.rope_freq_constant = rope_freq_constant
        self.rope_max_length = rope_max_length
        self.initializer_range = initializer_range
        self.use_cache = use_cache
        if num_query_heads is None:
            unit = head_dim * num_gqa_groups
            widths = [make_divisible(model_dim * m, unit) for m in self._per_layer(qkv_multipliers)]
            num_query_heads = [width // head_dim for width in widths]
            num_kv_heads = [heads // num_gqa_groups for heads in num_query_heads]
        self.num_query_heads = list(num_query_heads)
        self.num_kv_heads = list(num_kv_heads)
        kwargs["tie_word_embeddings"] = share_input_output_layers
        super().__init__(bos_token_id=bos_token_id, eos_token_id=eos_token_id, **kwargs)

    def _per_layer(self, multipliers):
        """One number a layer: a list of two is the two ends of a line, rounded to two decimals."""
        layers = self.num_transformer_layers
        multipliers = list(multipliers)
        if len(multipliers) == layers and layers != 2:
            return multipliers
        first, last = multipliers
        step = (last - first) / max(layers - 1, 1)
        values = [first + step * layer for layer in range(layers - 1)] + [last] if layers > 1 else [first]
        return [round(value, 2) for value in values]

    def ffn_dim(self, layer):
        return make_divisible(self.ffn_multipliers[layer] * self.model_dim, self.ffn_dim_divisor)
