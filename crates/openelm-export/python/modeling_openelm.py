"""OpenELM in PyTorch, for Hugging Face transformers (`trust_remote_code=True`).

Works with `generate()` and its caches. Tensors have the names of Apple's files; a tied output head has no tensor of its own.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_openelm import OpenELMConfig

# Version 5 came to call `past_key_values` `cache`.
CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"


class OpenELMRMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).type_as(x) * self.weight


def rotate(x, cos, sin):
    """Turns pairs of channels that lie half a head apart; x: [batch, heads, seq, head_dim]."""
    first, second = x.float().chunk(2, dim=-1)
    return (x.float() * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)


class OpenELMAttention(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.layer = layer
        self.head_dim = config.head_dim
        self.query_heads = config.num_query_heads[layer]
        self.kv_heads = config.num_kv_heads[layer]
        heads = self.query_heads + 2 * self.kv_heads
        self.qkv_proj = nn.Linear(config.model_dim, heads * self.head_dim, bias=False)
        if config.normalize_qk_projections:
            self.q_norm = OpenELMRMSNorm(self.head_dim)
            self.k_norm = OpenELMRMSNorm(self.head_dim)
        else:
            self.q_norm = self.k_norm = None
        self.out_proj = nn.Linear(self.query_heads * self.head_dim, config.model_dim, bias=False)

    def forward(self, x, rotary, mask, cache):
        batch, seq, _ = x.shape
        qkv = self.qkv_proj(x).view(batch, seq, -1, self.head_dim).transpose(1, 2)
        query, key, value = qkv.split([self.query_heads, self.kv_heads, self.kv_heads], dim=1)
        if self.q_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        query, key = rotate(query, *rotary), rotate(key, *rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer)
        groups = self.query_heads // self.kv_heads
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
        # A cache of fixed length gives more keys than there are positions yet; the mask covers those too.
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask(key.shape[-2]))
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, seq, -1))


class OpenELMFeedForward(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        width = config.ffn_dim(layer)
        self.gated = config.ffn_with_glu
        self.proj_1 = nn.Linear(config.model_dim, 2 * width if self.gated else width, bias=False)
        self.proj_2 = nn.Linear(width, config.model_dim, bias=False)

    def forward(self, x):
        x = self.proj_1(x)
        if not self.gated:
            return self.proj_2(functional.silu(x))
        gate, up = x.chunk(2, dim=-1)
        return self.proj_2(functional.silu(gate) * up)


class OpenELMLayer(nn.Module):
    def __init__(self, config, layer):
        super().__init__()
        self.attn = OpenELMAttention(config, layer)
        self.ffn = OpenELMFeedForward(config, layer)
        self.ffn_norm = OpenELMRMSNorm(config.model_dim)
        self.attn_norm = OpenELMRMSNorm(config.model_dim)

    def forward(self, x, rotary, mask, cache):
        x = x + self.attn(self.attn_norm(x), rotary, mask, cache)
        return x + self.ffn(self.ffn_norm(x))


class OpenELMPreTrainedModel(PreTrainedModel):
    config_class = OpenELMConfig
    base_model_prefix = "transformer"
    _no_split_modules = ["OpenELMLayer"]
    _supports_sdpa = True
    _supports_cache_class = True
    _supports_static_cache = True

    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        elif isinstance(module, OpenELMRMSNorm):
            nn.init.ones_(module.weight)


class OpenELMModel(OpenELMPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.model_dim)
        self.layers = nn.ModuleList(OpenELMLayer(config, layer) for layer in range(config.num_transformer_layers))
        self.norm = OpenELMRMSNorm(config.model_dim)
        self.post_init()

    def get_input_embeddings(self):
        return self.token_embeddings

    def set_input_embeddings(self, embeddings):
        self.token_embeddings = embeddings

    def _rotary(self, positions):
        """Cosines and sines [batch, 1, seq, head_dim], in f32."""
        dim = self.config.head_dim
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim
        angles = positions[..., None].float() * self.config.rope_freq_constant**-exponents
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        return angles.cos(), angles.sin()

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        cache=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        **kwargs,
    ):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        x = self.token_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        batch, seq, _ = x.shape
        use_cache = self.config.use_cache if use_cache is None else use_cache
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache()
        past = 0 if cache is None else cache.get_seq_length()
        places = past + torch.arange(seq, device=x.device)
        if position_ids is None:
            position_ids = places[None]
            if attention_mask is not None and attention_mask.dim() == 2:
                # Padding on the left does not count.
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -seq:]
        masks = {}

        def mask(keys):
            """True where a query sees a key: [batch or 1, 1, seq, keys]."""
            if attention_mask is not None and attention_mask.dim() == 4:
                return attention_mask[..., :keys]
            if keys not in masks:
                seen = torch.arange(keys, device=x.device)[None] <= places[:, None]
                seen = seen[None, None]
                if attention_mask is not None:
                    real = functional.pad(attention_mask.bool(), (0, max(0, keys - attention_mask.shape[-1])), value=True)
                    # A row that sees nothing is padding: it may see itself, so that no value becomes NaN.
                    own = torch.arange(keys, device=x.device)[None] == places[:, None]
                    seen = seen & (real[:, None, None, :keys] | own)
                masks[keys] = seen
            return masks[keys]

        rotary = self._rotary(position_ids)
        for layer in self.layers:
            x = layer(x, rotary, mask, cache)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), **{CACHE: cache if use_cache else None})


class OpenELMForCausalLM(OpenELMPreTrainedModel, GenerationMixin):
    def __init__(self, config):
        super().__init__(config)
        self.transformer = OpenELMModel(config)
        tied = config.share_input_output_layers
        self.lm_head = None if tied else nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.transformer.token_embeddings

    def set_input_embeddings(self, embeddings):
        self.transformer.token_embeddings = embeddings

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, head):
        self.lm_head = head

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        cache=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        use_cache=None,
        logits_to_keep=0,
        **kwargs,
    ):
        outputs = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
        )
        x = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        head = self.transformer.token_embeddings.weight if self.lm_head is None else self.lm_head.weight
        logits = functional.linear(x[:, kept], head)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: outputs[CACHE] if CACHE in outputs else None})
