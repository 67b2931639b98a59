//! OpenELM: configuration, layer-wise allocation and the transformer on burn.
